"""Run the real suites on harmed files, with NeMo's reference computed once for all runs."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exporters.variants import variant
from exportgate.artifacts.sidecar import read_sidecar, sha256_of, sidecar_path, write_text
from harness.gate.plugin.items import measures
from harness.gate.pytest_plugin import CONTEXT_FACTORY
from harness.run.context import RunContext
from harness.run.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.gate.gates import Verdict

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "golden"
CHECKPOINT = GOLDEN / "golden.nemo"
MANIFEST = GOLDEN / "val.jsonl"
WORKDIR = REPOSITORY / "build" / "gate"


class CutShortError(Exception):
    """The suites did not run to their end: every gate would look red, whatever the fault."""


class RefusedError(Exception):
    """The gate refused a request before it judged anything; the message is what it printed."""


@dataclass
class Workspace:
    """A folder of exported files to harm, and what else a fault can change.

    Attributes:
        folder: Copies of the exported files with their sidecars.
        checkpoint: The model that they are judged against.
        manifest: The swipes that they are judged with.
        change: Exchanges parts of the run's context: for a fault in a loader or a decoder.
        args: More options for pytest.
        share_reference: Whether NeMo's worker may be the shared one.
        only: The one metric whose test is run; None for all tests.
    """

    folder: Path
    checkpoint: Path = CHECKPOINT
    manifest: Path = MANIFEST
    change: Callable[[RunContext], None] = lambda _context: None
    args: tuple[str, ...] = ()
    share_reference: bool = True
    only: str | None = None

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        return self.folder / name

    def rewrite(self, name: str, payload: bytes, **claims: Any) -> None:
        """Replace a file, and its sidecar's hash and size, so that only the fault is wrong.

        Args:
            name: The file.
            payload: Its new bytes.
            claims: Fields of the sidecar to forge.
        """
        path = self.path(name)
        sidecar = read_sidecar(path)
        path.write_bytes(payload)
        changed = {"sha256": sha256_of(path), "size_bytes": len(payload), **claims}
        write_text(sidecar_path(path), replace(sidecar, **changed).to_json())

    def forge(self, name: str, **claims: Any) -> None:
        """Change what a sidecar says."""
        path = sidecar_path(self.path(name))
        data = json.loads(path.read_text(encoding="utf-8"))
        write_text(path, json.dumps({**data, **claims}))


@dataclass
class FaultLab:
    """Exports once, computes NeMo's reference once, and judges harmed copies."""

    artifacts: Path
    pristine: RunContext

    def close(self) -> None:
        """End the shared workers."""
        self.pristine.close()

    def workspace(self, folder: Path) -> Workspace:
        """Return a workspace with copies of all files."""
        shutil.copytree(self.artifacts, folder, dirs_exist_ok=True)
        return Workspace(folder)

    def judge(self, workspace: Workspace, variants: Sequence[str]) -> dict[str, Verdict]:
        """Run the suites on some files and return the verdicts by ``artifact metric_direction``.

        Without variants, the folder holds somebody else's files.

        Raises:
            RefusedError: The request was refused as a whole.
            CutShortError: The suites themselves are broken, so that nothing was judged.
        """
        plugin = _Injector(self._factory(workspace), workspace.only)
        report = workspace.folder.parent / "report"
        args = ["-q", "-p", "no:cacheprovider", *(["--target", "all"] if variants else [])]
        args += ["--rootdir", str(REPOSITORY), "-c", str(REPOSITORY / "pyproject.toml")]
        args += [part for name in variants for part in ("--variant", name)]
        args += ["--artifacts", str(workspace.folder), "--report", str(report)]
        args += ["--checkpoint", str(workspace.checkpoint), "--manifest", str(workspace.manifest)]
        # Seconds of a new process for each file, and no gate that could turn red.
        args += ["--deselect", "suites/test_latency.py::test_alone"]
        args += [*workspace.args, str(REPOSITORY / "suites")]
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            plugin.status = int(pytest.main(args, plugins=[plugin]))
        gate = plugin.config.pluginmanager.get_plugin("exportgate-gate")
        if gate is None or gate.report is None:
            raise RefusedError(said.getvalue().strip()[-2000:])
        if plugin.status in (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR):
            raise CutShortError(said.getvalue().strip()[-2000:])
        return {f"{v.gate.artifact} {v.gate.key}": v for v in gate.report.verdicts}

    def _factory(self, workspace: Workspace) -> Callable[..., RunContext]:
        same = self.pristine.request

        def make(request: Request, progress: Callable[[str], None]) -> RunContext:
            context = RunContext(request, progress)
            alike = (request.checkpoint, request.manifest) == (same.checkpoint, same.manifest)
            if workspace.share_reference and alike:
                context.share(self.pristine)
            workspace.change(context)
            return context

        return make


class _Injector:
    """A pytest plugin that sets the context's factory and keeps the configuration."""

    def __init__(self, factory: Callable[..., RunContext], only: str | None) -> None:
        self.factory = factory
        self.only = only
        self.status = -1
        self.config: pytest.Config

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config
        config.stash[CONTEXT_FACTORY] = self.factory

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave out the tests that do not measure the one metric."""
        if self.only is not None:
            items[:] = [item for item in items if self.only in (measures(item) or ())]


def open_lab(
    variants: Sequence[str],
    artifacts: Path | None = None,
    progress: Callable[[str], None] = print,
) -> FaultLab:
    """Take the golden checkpoint's files, by default exported or from the cache; ask NeMo once."""
    request = Request(
        checkpoint=CHECKPOINT,
        manifest=MANIFEST,
        calibration=GOLDEN / "calib.jsonl",
        variants=tuple(variant(name) for name in variants),
        artifacts=artifacts,
        workdir=WORKDIR,
        max_trace_len=200,
    )
    context = RunContext(request, progress)
    artifacts = context.files.folder()
    context.nemo.reference()
    return FaultLab(artifacts, context)
