"""The acceptance gate as a pytest plugin: options, parametrisation, verdicts, exit code.

A suite's test declares what it measures with ``@pytest.mark.measures("metric", …)`` and hands the
values to the ``record`` fixture. It runs once for each subject that has a gate on one of these
metrics. After it, every such gate is judged; a test that raises leaves them NOT_MEASURED. At the
end every gate that was asked for must have a passing verdict, whatever pytest collected or ran.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.variants import TARGETS, VARIANTS, Variant, variants_of
from exportgate.artifacts.sidecar import Sidecar, sha256_of
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from harness.gate.baseline import PREFIX, read_baseline
from harness.gate.gates import Gate, GateBook, GateError, Status, Verdict, judge, read_gates, waive
from harness.gate.report import Measured, Report, summary_lines, write_report
from harness.gate.third_party import adopt_folder, adopted_names, is_adopted, is_foreign
from harness.history.store import append
from harness.measure import instructions
from harness.measure.environment import environment
from harness.measure.golden_record import pinned_for
from harness.metrics import METRICS, Role
from harness.run.context import RunContext
from harness.run.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

CHECKPOINT = "checkpoint"
"""The subject of gates on the model itself rather than on one of its files."""
DEVICES = ("host",)
RECORDED_ACCURACY_SLACK = 0.005
"""How far NeMo may stay below the accuracy that a checkpoint records for the same swipes."""
PINNED_SCORE_NATS = 1e-3
"""How far NeMo's scores may be from the recorded ones: other kernels, not another model."""

_COUNTED_BY_EMULATOR = ("baseline_instruction_ratio",)
_OF_OUR_PTE = (
    "delegated_node_ratio", "delegated_compute_ratio",
    "layer_gain_error", "layer_shift", "unmatched_layers",
)  # fmt: skip
"""Of a .pte they are counted while lowering, or compared with the graph that was lowered."""

_VERDICTS = "exportgate.verdicts"
_MEASURED = "exportgate.measured"
_FILE = "exportgate.file"


class GateFailure(AssertionError):  # noqa: N818 - pytest prints the name; it is no error of ours
    """Gates of this test are broken or were not measured."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the gate's options."""
    group = parser.getgroup("exportgate", "acceptance gate for exported RNN-T models")
    targets = ", ".join([*TARGETS, "all"])
    group.addoption("--target", help=f"judge the files of this deployment target: {targets}")
    group.addoption(
        "--checkpoint", type=Path, help="the model (.nemo or .ckpt); default: golden/golden.nemo"
    )
    group.addoption("--manifest", type=Path, help="swipes to judge with; default: golden/val.jsonl")
    group.addoption(
        "--calibration", type=Path, help="swipes to calibrate with; default: golden/calib.jsonl"
    )
    group.addoption("--variant", action="append", help="judge only this file; repeatable")
    group.addoption(
        "--artifacts", type=Path, help="folder with files to judge; default: export them"
    )
    group.addoption("--device", default="host", choices=DEVICES, help="where the files run")
    group.addoption("--report", type=Path, help="folder of report.json; default: build/report")
    group.addoption("--lexicon", type=Path, help="a word a line; default: 200,000 English words")
    group.addoption("--gates", type=Path, action="append", help="gates laid over suites/gates.toml")
    group.addoption(
        "--accuracy-floor", type=float, help="word accuracy in [0, 1] that NeMo itself must reach"
    )
    group.addoption(
        "--history", type=Path, metavar="FILE", help="append the run to this store of runs"
    )
    group.addoption(
        "--baseline", type=Path, metavar="DIR", help="accepted files to measure beside these"
    )
    group.addoption(
        "--release",
        action="store_true",
        help="demand also what this machine lacks the tools for: NOT_MEASURED fails",
    )
    group.addoption("--history-job", metavar="KEY", help="a sweep's name of the run: appended once")
    group.addoption(
        "--max-trace-len",
        type=int,
        default=DEFAULT_MAX_TRACE_LEN,
        help="bound of the exported encoders in points (default %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers, and the gate if a target was named."""
    config.addinivalue_line("markers", "measures(*metrics): metrics that a suite's test records")
    for name in sorted({t for v in VARIANTS for t in (v.graph, v.format, v.precision, v.exporter)}):
        config.addinivalue_line("markers", f"{name}: variants of this kind")
    config.addinivalue_line("markers", f"{CHECKPOINT}: gates on the model itself")
    folder = config.getoption("--artifacts")
    if config.getoption("--target") is None and folder is not None and folder.is_dir():
        _adopt(config, folder)
    if config.getoption("--target") is not None:
        try:
            config.pluginmanager.register(GatePlugin(config), "exportgate-gate")
        except ExportGateError as error:
            raise pytest.UsageError(str(error)) from error


def _adopt(config: pytest.Config, folder: Path) -> None:
    """Take files without sidecars for what their contract.toml says, and judge those."""
    if not is_foreign(folder):
        return
    checkpoint = config.getoption("--checkpoint") or config.rootpath / "golden" / "golden.nemo"
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    out = config.rootpath / "build" / "gate" / f"foreign-{key}"
    said: list[str] = []
    if hasattr(config, "workerinput"):  # of pytest-xdist: the main process has adopted them
        names = adopted_names(out)
    else:
        try:
            names, said = adopt_folder(folder, checkpoint, out, config.getoption("--max-trace-len"))
        except ExportGateError as error:
            raise pytest.UsageError(str(error)) from error
    config.option.target, config.option.variant, config.option.artifacts = "all", names, out
    config.stash[_ADOPTED] = said


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a measuring test once for each subject that has a gate on what it measures."""
    marker = metafunc.definition.get_closest_marker("measures")
    if marker is None:
        return
    gate = metafunc.config.pluginmanager.get_plugin("exportgate-gate")
    if gate is None:
        msg = f"name what to judge: pytest suites/ --target {'|'.join([*TARGETS, 'all'])}"
        raise pytest.UsageError(msg)
    unknown = [metric for metric in marker.args if metric not in METRICS]
    if unknown:
        msg = f"{metafunc.definition.nodeid} measures unknown metrics: {', '.join(unknown)}"
        raise pytest.UsageError(msg)
    metafunc.parametrize("subject", gate.parameters(marker.args))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Drop the placeholder that pytest makes of a test without a subject: nothing is skipped."""
    items[:] = [
        item
        for item in items
        if item.get_closest_marker("measures") is None or isinstance(_subject_of(item), str)
    ]


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
    declared = request.node.get_closest_marker("measures").args
    subject = _subject_of(request.node)

    def keep(metric: str, value: float, detail: str = "", samples: Sequence[float] = ()) -> None:
        if metric not in declared:
            msg = f"{request.node.nodeid} records {metric}, but declares {', '.join(declared)}"
            raise GateError(msg)
        item = Measured(subject, metric, float(value), detail, tuple(map(float, samples)))
        request.node.stash.setdefault(_RECORDED, []).append(item)

    return keep


@pytest.fixture(scope="session")
def gate_settings(pytestconfig: pytest.Config) -> Callable[[str, str], tuple[str, ...]]:
    """Read a list of gates.toml: ``gate_settings(subject, "allowed_fallback_ops")``."""
    gate = _gate(pytestconfig)

    def read(subject: str, key: str) -> tuple[str, ...]:
        return gate.book.settings.get(subject, {}).get(key, ())

    return read


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Judge a measuring test's gates when it returns, and fail it with what was wrong."""
    result = yield
    if pyfuncitem.get_closest_marker("measures") is None:
        return result
    verdicts = _judge_item(pyfuncitem, reason="")
    wrong = [_explain(verdict) for verdict in verdicts if verdict.status is not Status.PASS]
    wrong += _unrecorded(pyfuncitem)
    if wrong:
        raise GateFailure("\n".join(wrong))
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach verdicts to the report, so that they reach the main process under xdist too."""
    report = yield
    if item.get_closest_marker("measures") is None or call.when == "teardown":
        return report
    if call.excinfo is not None:
        error = call.excinfo.value
        # The message says all; a traceback through the harness would bury it.
        if isinstance(error, (GateFailure, ExportGateError)):
            report.longrepr = str(error)
        if not isinstance(error, GateFailure):
            known = isinstance(error, ExportGateError)
            _judge_item(item, reason=str(error) if known else f"{type(error).__name__}: {error}")
    if call.when == "call" or call.excinfo is not None:
        verdicts = [verdict.to_json() for verdict in item.stash.get(_JUDGED, [])]
        measured = [value.to_json() for value in item.stash.get(_RECORDED, [])]
        report.user_properties += [
            (_VERDICTS, json.dumps(verdicts)),
            (_MEASURED, json.dumps(measured)),
            (_FILE, json.dumps(_judged_file(item))),
        ]
    return report


CONTEXT_FACTORY: pytest.StashKey[Callable[[Request, Callable[[str], None]], RunContext]] = (
    pytest.StashKey()
)
"""Set by those who inject faults: what makes the context instead of ``RunContext`` itself."""

_ADOPTED: pytest.StashKey[list[str]] = pytest.StashKey()
_RECORDED: pytest.StashKey[list[Measured]] = pytest.StashKey()
_JUDGED: pytest.StashKey[list[Verdict]] = pytest.StashKey()


def _judge_item(item: pytest.Item, reason: str) -> list[Verdict]:
    """Judge every gate that a test is answerable for; what it did not record is NOT_MEASURED."""
    marker = item.get_closest_marker("measures")
    subject = _subject_of(item)
    if marker is None:
        return []
    values = {value.metric: value for value in item.stash.get(_RECORDED, [])}
    verdicts = []
    for gate in _gate(item.config).book.of(subject):
        if gate.metric in marker.args:
            found = values.get(gate.metric)
            missing = reason or f"{item.name} recorded no {gate.metric}"
            verdicts.append(
                judge(gate, found.value, found.detail) if found else judge(gate, None, missing)
            )
    item.stash[_JUDGED] = verdicts
    return verdicts


def _unrecorded(item: pytest.Item) -> list[str]:
    """Name the informational metrics that a test declares and did not record."""
    marker = item.get_closest_marker("measures")
    recorded = {value.metric for value in item.stash.get(_RECORDED, [])}
    return [
        f"{item.name} recorded no {metric}"
        for metric in (marker.args if marker else ())
        if METRICS[metric].role is Role.INFORMATIONAL and metric not in recorded
    ]


def _judged_file(item: pytest.Item) -> dict[str, str]:
    """Return the hash of the file that a test judged, by its name; empty if it opened none."""
    subject = _subject_of(item)
    found = getattr(item, "funcargs", {}).get("context")
    kept = found.files.memo if isinstance(found, RunContext) else {}
    sidecar = kept.get(("sidecar", subject))
    return {subject: sidecar.sha256} if isinstance(sidecar, Sidecar) else {}


def _subject_of(item: pytest.Item) -> Any:  # noqa: ANN401 - a string, or pytest's placeholder
    return item.callspec.params["subject"]  # type: ignore[attr-defined]  # set by parametrize


def _explain(verdict: Verdict) -> str:
    gate, metric = verdict.gate, METRICS[verdict.gate.metric]
    value = "not measured" if verdict.value is None else metric.format(verdict.value)
    return (
        f"{gate.subject}: {gate.metric} is {value}, but should be {gate.bound} "
        f"({metric.meaning}). {verdict.detail}"
    ).rstrip()


def _gate(config: pytest.Config) -> GatePlugin:
    gate = config.pluginmanager.get_plugin("exportgate-gate")
    if not isinstance(gate, GatePlugin):
        msg = "the suites need --target"
        raise pytest.UsageError(msg)
    return gate


class GatePlugin:
    """One run of the gate: its request, its gates, and the verdicts that came in."""

    def __init__(self, config: pytest.Config) -> None:
        """Read request and gates.

        Raises:
            ExportGateError: Unknown target or variant, a missing file, a malformed gates file, a
                variant without a gate.
        """
        self.config = config
        self._start = time.perf_counter()
        self.variants = _selected(config)
        self.request = _request(config, self.variants)
        suites = config.rootpath / "suites" / "gates.toml"
        subjects = [CHECKPOINT, *(row.name for row in VARIANTS)]
        self.book = read_gates([suites, *(config.getoption("--gates") or [])], subjects)
        self.book = _with_pins(self.book, config, self.request)
        self.book = _with_baseline(self.book, self.request)
        self.gates = [
            gate
            for subject in [CHECKPOINT, *(row.name for row in self.variants)]
            for gate in self.book.of(subject)
        ]
        self.waived = {} if config.getoption("--release") else _waived(self.gates, self.request)
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.measured: list[Measured] = []
        self.files: dict[str, set[str]] = {}
        self.failed_tests: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.report: Report | None = None

    def progress(self, line: str) -> None:
        """Show what is being done, past pytest's capture."""
        reporter = self.config.pluginmanager.get_plugin("terminalreporter")
        capture = self.config.pluginmanager.get_plugin("capturemanager")
        if reporter is not None and capture is not None:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(f"    {time.perf_counter() - self._start:5.1f} s  {line}")

    def parameters(self, metrics: Sequence[str]) -> list[Any]:
        """Return a pytest parameter for each subject with a gate on one of the metrics.

        What is only informational is measured of every file.
        """
        rows: dict[str, Variant] = {row.name: row for row in self.variants}
        found = []
        wanted = [gate for gate in self.gates if gate.metric in metrics]
        demanded = [gate for gate in wanted if (gate.subject, gate.key) not in self.waived]
        subjects = [gate.subject for gate in demanded]
        if all(METRICS[metric].role is Role.INFORMATIONAL for metric in metrics):
            subjects = list(rows)
        for subject in dict.fromkeys(subjects):
            row = rows.get(subject)
            names = (row.graph, row.format, row.precision, row.exporter) if row else (CHECKPOINT,)
            marks = [getattr(pytest.mark, name) for name in names]
            found.append(pytest.param(subject, marks=marks, id=subject))
        return found

    def pytest_report_header(self) -> list[str]:
        """Say what is judged with what."""
        env = environment()
        packages = ", ".join(f"{name} {number}" for name, number in env.versions.items())
        return [
            f"gate: target {self.config.getoption('--target')}",
            f"gate: checkpoint {self.request.checkpoint}, swipes {self.request.manifest}",
            f"gate: {len(self.gates)} gates on {', '.join(row.name for row in self.variants)}",
            f"gate: {env.cpu} ({', '.join(env.cpu_flags)}); {packages}",
            *(f"gate: {line}" for line in self.config.stash.get(_ADOPTED, [])),
        ]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take in a test's verdicts, also those that an xdist worker sent."""
        broken = False
        for name, text in report.user_properties:
            if name == _VERDICTS:
                for data in json.loads(str(text)):
                    verdict = Verdict.from_json(data)
                    self.verdicts[verdict.gate.subject, verdict.gate.key] = verdict
                    if verdict.status is not Status.PASS:
                        broken = True
                        key = f"{verdict.gate.subject} {verdict.gate.metric}"
                        self.failed_tests[key] = report.nodeid
            elif name == _MEASURED:
                self.measured += [Measured.from_json(data) for data in json.loads(str(text))]
            elif name == _FILE:
                for subject, digest in json.loads(str(text)).items():
                    self.files.setdefault(subject, set()).add(digest)
        if report.failed and not broken:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.errors[report.nodeid] = crash.message if crash else report.longreprtext

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Judge the run as a whole: exit status 0 only if every gate asked for is kept."""
        if hasattr(session.config, "workerinput") or session.config.option.collectonly:
            return
        self.report = self._conclude(exitstatus)
        if not self.report.passed and exitstatus in {
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        }:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdict."""
        if self.report is None:
            return
        path = write_report(self.report, self._folder())
        history: Path | None = self.config.getoption("--history")
        if history is not None:
            job = self.config.getoption("--history-job")
            append(history, json.loads(self.report.to_json()), job)
        terminalreporter.section("release gate")
        for line in summary_lines(self.report):
            colour = {"PASS": "green", "FAIL": "red"}.get(line.split(":")[0])
            words = line.split()
            if colour is None and words:
                waived = "yellow" if self.report.passed else "red"
                colour = {"FAIL": "red", "NOT_MEASURED": waived}.get(words[-1])
            terminalreporter.write_line(line, **({colour: True} if colour else {}))
        terminalreporter.write_line(f"report: {path}")

    def _folder(self) -> Path:
        chosen: Path | None = self.config.getoption("--report")
        return chosen or self.config.rootpath / "build" / "report"

    def _conclude(self, exitstatus: int) -> Report:
        absent = (
            "the run was cut short"
            if exitstatus in {pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR}
            else "no test measured it: it was deselected, or no suite records this metric"
        )
        known = {**self.waived, **self.verdicts}
        verdicts = tuple(
            known.get((gate.subject, gate.key)) or judge(gate, None, absent) for gate in self.gates
        )
        return Report(
            request={
                "target": self.config.getoption("--target"),
                "device": self.config.getoption("--device"),
                "checkpoint": str(self.request.checkpoint),
                "checkpoint_sha256": sha256_of(self.request.checkpoint),
                "manifest": str(self.request.manifest),
                "manifest_sha256": sha256_of(self.request.manifest),
                "calibration": str(self.request.calibration),
                "calibration_sha256": (
                    sha256_of(self.request.calibration) if self.request.calibration else "synthetic"
                ),
                "artifacts": str(self.request.artifacts) if self.request.artifacts else None,
                "folder": str(self.request.folder),
                "baseline": str(self.request.baseline) if self.request.baseline else None,
                "variants": [row.name for row in self.variants],
                "max_trace_len": self.request.max_trace_len,
                "notes": self.config.stash.get(_ADOPTED, []),
                # Two hashes, if a file changed during the run: nobody can seal that.
                "files": {name: " ".join(sorted(self.files[name])) for name in sorted(self.files)},
            },
            environment=environment().to_json(),
            verdicts=verdicts,
            measured=tuple(sorted(self.measured, key=lambda m: (m.subject, m.metric))),
            reproduce={
                key: f"{_again(self.config)} '{nodeid}'"
                for key, nodeid in self.failed_tests.items()
            },
            errors=self.errors,
        )


def _again(config: pytest.Config) -> str:
    """Return the command that was run, without the paths of tests."""
    given = [str(arg) for arg in config.invocation_params.args]
    paths = set(map(str, config.args))
    return shlex.join(["pytest", *(arg for arg in given if arg not in paths)])


def _selected(config: pytest.Config) -> tuple[Variant, ...]:
    rows = variants_of(config.getoption("--target"))
    wanted = config.getoption("--variant")
    if not wanted:
        return rows
    unknown = sorted(set(wanted) - {row.name for row in rows})
    if unknown:
        msg = (
            f"target {config.getoption('--target')} has no variant {', '.join(unknown)}; "
            f"it has {', '.join(row.name for row in rows)}"
        )
        raise GateError(msg)
    return tuple(row for row in rows if row.name in wanted)


def _request(config: pytest.Config, variants: tuple[Variant, ...]) -> Request:
    golden = config.rootpath / "golden"
    request = Request(
        checkpoint=config.getoption("--checkpoint") or golden / "golden.nemo",
        manifest=config.getoption("--manifest") or golden / "val.jsonl",
        calibration=config.getoption("--calibration") or golden / "calib.jsonl",
        variants=variants,
        artifacts=config.getoption("--artifacts"),
        workdir=config.rootpath / "build" / "gate",
        max_trace_len=config.getoption("--max-trace-len"),
        baseline=config.getoption("--baseline"),
        lexicon=config.getoption("--lexicon"),
    )
    for flag, path in (
        ("--checkpoint", request.checkpoint),
        ("--manifest", request.manifest),
        ("--calibration", request.calibration),
    ):
        if path is not None and not path.is_file():
            msg = f"{flag}: no such file: {path}"
            raise GateError(msg)
    if request.lexicon is not None and not request.lexicon.is_file():
        msg = f"--lexicon: no such file: {request.lexicon}"
        raise GateError(msg)
    # Read here already: a malformed manifest is one error before work begins.
    for manifest in filter(None, (request.manifest, request.calibration)):
        read_manifest(manifest)
    if request.artifacts is not None and not request.artifacts.is_dir():
        msg = f"--artifacts: no such folder: {request.artifacts}"
        raise GateError(msg)
    return request


def _with_baseline(book: GateBook, request: Request) -> GateBook:
    """Drop the gates beside a baseline where none was asked for; where it was, it has to be there.

    Raises:
        BaselineError: ``--baseline`` names what was never accepted.
    """
    if request.baseline is not None:
        read_baseline(request.baseline)
        return book
    gates = tuple(gate for gate in book.gates if not gate.metric.startswith(PREFIX))
    return replace(book, gates=gates)


def _waived(gates: Sequence[Gate], request: Request) -> dict[tuple[str, str], Verdict]:
    """Waive the gates on what nothing here can count."""
    reasons = {metric: instructions.missing(instructions.X86_64) for metric in _COUNTED_BY_EMULATOR}
    if request.artifacts is not None and is_adopted(request.artifacts):
        why = "known of our own .pte only; delegates and unexpected_fallback_ops are judged"
        reasons |= dict.fromkeys(_OF_OUR_PTE, why)
    return {
        (gate.subject, gate.key): waive(gate, reason)
        for gate in gates
        if (reason := reasons.get(gate.metric))
        and (gate.metric not in _OF_OUR_PTE or gate.subject.endswith(".pte"))
    }


def _with_pins(book: GateBook, config: pytest.Config, request: Request) -> GateBook:
    """Add what was recorded for the checkpoint, and raise the floor of NeMo's own accuracy.

    The user's floor wins over the record, the record over the file.
    """
    given: float | None = config.getoption("--accuracy-floor")
    if given is not None and not 0.0 <= given <= 1.0:
        msg = f"--accuracy-floor is {given}, but should be a share from 0 to 1"
        raise GateError(msg)
    pinned = pinned_for(request.checkpoint, request.manifest)
    floor = pinned.accuracy - RECORDED_ACCURACY_SLACK if pinned else None
    floor = floor if given is None else given
    if floor is not None:
        book = book.with_limit(Gate(CHECKPOINT, "reference_word_accuracy", "min", floor))
    if pinned and pinned.tokens is not None:
        book = book.with_limit(Gate(CHECKPOINT, "pinned_token_mismatches", "max", 0))
        book = book.with_limit(
            Gate(CHECKPOINT, "pinned_score_max_abs_error", "max", PINNED_SCORE_NATS)
        )
    return book
