"""The acceptance gate as a pytest plugin: options, parametrisation, verdicts, exit code.

A suite's test declares what it measures with ``@pytest.mark.measures("metric", …)`` and hands the
values to the ``record`` fixture. It runs once for each artifact that has a gate on one of these
metrics. After it, every such gate is judged; a test that raises leaves them NOT_MEASURED. At the
end every gate that was asked for must have a passing verdict, whatever pytest collected or ran.

The parts are in ``harness.gate.plugin``; here are pytest's hooks and fixtures.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from exporters.variants import TARGETS, VARIANTS
from exportgate.errors import ExportGateError
from harness.gate.plugin import items
from harness.gate.plugin.book import CHECKPOINT
from harness.gate.plugin.options import add_options
from harness.gate.plugin.places import workdir
from harness.gate.plugin.request import checkpoint_of
from harness.gate.plugin.run import NOTES, GatePlugin
from harness.metrics import METRICS
from harness.run.context import RunContext
from harness.third_party.folder import imported_names, is_third_party
from harness.third_party.importing import import_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from harness.run.request import Request

CONTEXT_FACTORY: pytest.StashKey[Callable[[Request, Callable[[str], None]], RunContext]] = (
    pytest.StashKey()
)
"""Set by those who inject faults: what makes the context instead of ``RunContext`` itself."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the gate's options."""
    group = parser.getgroup("exportgate", "acceptance gate for exported RNN-T models")
    add_options(group.addoption)


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and the gate if a target was named."""
    config.addinivalue_line("markers", "measures(*metrics): metrics that a suite's test records")
    for name in sorted({t for v in VARIANTS for t in (v.graph, v.format, v.precision, v.exporter)}):
        config.addinivalue_line("markers", f"{name}: variants of this kind")
    config.addinivalue_line("markers", f"{CHECKPOINT}: gates on the model itself")
    try:
        folder: Path | None = config.getoption("--artifacts")
        if config.getoption("--target") is None and folder is not None and folder.is_dir():
            _import_third_party(config, folder)
        if config.getoption("--target") is not None:
            config.pluginmanager.register(GatePlugin(config), "exportgate-gate")
    except (ExportGateError, OSError) as error:
        raise pytest.UsageError(str(error)) from error


def _import_third_party(config: pytest.Config, folder: Path) -> None:
    """Take files without sidecars for what their contract.toml says, and judge those."""
    if not is_third_party(folder):
        return
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    out = workdir(config) / "gate" / f"imported-{key}"
    said: list[str] = []
    if hasattr(config, "workerinput"):  # of pytest-xdist: the main process has imported them
        names = imported_names(out)
    else:
        bound = config.getoption("--max-trace-len")
        names, said = import_folder(folder, checkpoint_of(config), out, bound)
    config.option.target, config.option.variant, config.option.artifacts = "all", names, out
    config.stash[NOTES] = said


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a measuring test once for each artifact that has a gate on what it measures."""
    metrics = items.measures(metafunc.definition)
    if metrics is None:
        return
    gate = metafunc.config.pluginmanager.get_plugin("exportgate-gate")
    if gate is None:  # refused once, below, instead of once for each file of tests
        metafunc.parametrize("artifact", [])
        return
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        msg = f"{metafunc.definition.nodeid} measures unknown metrics: {', '.join(unknown)}"
        raise pytest.UsageError(msg)
    metafunc.parametrize("artifact", gate.parameters(metrics))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the placeholder that pytest makes of a test without an artifact: nothing is skipped.

    Raises:
        UsageError: There are suites, and nothing that they should judge.
    """
    kept = [item for item in items if _has_artifact(item)]
    if len(kept) < len(items) and not config.pluginmanager.has_plugin("exportgate-gate"):
        msg = f"name what to judge: --target {'|'.join([*TARGETS, 'all'])}"
        raise pytest.UsageError(msg)
    items[:] = kept


def _has_artifact(item: pytest.Item) -> bool:
    return items.measures(item) is None or isinstance(items.artifact_of(item), str)


@pytest.fixture(scope="session")
def context(pytestconfig: pytest.Config) -> Generator[RunContext]:
    """Everything that can be known about the request, computed when first asked for."""
    gate = _gate(pytestconfig)
    found = pytestconfig.stash.get(CONTEXT_FACTORY, RunContext)(gate.request, gate.progress)
    yield found
    found.close()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record a measured value: ``record("sqnr_db", 43.7, detail="…", samples=(…))``."""
    return items.recorder(request.node)


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keep what the report draws: ``show("layers", rows)``, see ``harness.gate.report.outcome``."""
    return items.shower(request.node)


@pytest.fixture(scope="session")
def gate_settings(pytestconfig: pytest.Config) -> Callable[[str, str], tuple[str, ...]]:
    """Read a list of gates.toml: ``gate_settings(artifact, "allowed_fallback_ops")``."""
    gate = _gate(pytestconfig)

    def read(artifact: str, key: str) -> tuple[str, ...]:
        return gate.book.settings.get(artifact, {}).get(key, ())

    return read


@pytest.fixture(scope="session")
def limit_of(pytestconfig: pytest.Config) -> Callable[[str, str], float]:
    """Read a gate's limit, for a message: ``limit_of(artifact, "words_lost_p")``."""
    book = _gate(pytestconfig).book

    def read(artifact: str, metric: str) -> float:
        found = (gate.limit for gate in book.of(artifact) if gate.metric == metric)
        return next(found, float("nan"))

    return read


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Judge a measuring test's gates when it returns, and fail it with what was wrong."""
    result = yield
    if items.measures(pyfuncitem) is None:
        return result
    verdicts = items.judge_item(pyfuncitem, _gate(pyfuncitem.config).book, reason="")
    wrong = items.complaints(pyfuncitem, verdicts)
    if wrong:
        raise items.GateFailure("\n".join(wrong))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach verdicts to the report, so that they reach the main process under xdist too."""
    report = yield
    if items.measures(item) is not None and call.when != "teardown":
        items.attach(report, item, call, _gate(item.config).book)
    return report


def _gate(config: pytest.Config) -> GatePlugin:
    gate = config.pluginmanager.get_plugin("exportgate-gate")
    if not isinstance(gate, GatePlugin):
        msg = "the suites need --target"
        raise pytest.UsageError(msg)
    return gate
