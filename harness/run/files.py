"""The files of a run: exported where they were not given, and what can be read from each."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.pipeline.events import FileFailed, Stage, read_events
from exporters.variants import VARIANTS, called_contract, is_variant, other_half, variant
from exportgate.artifacts.contents import reading
from exportgate.artifacts.sidecar import Sidecar, read_sidecar, sha256_of
from exportgate.errors import ExportGateError
from exportgate.runtime.inputs import as_declared, encoder_input, step_inputs
from exportgate.runtime.opening import own_feeds
from harness.devices.browser.devices import Browser
from harness.inspect.cost import StaticCost, static_cost
from harness.run.memo import once
from harness.third_party.folder import is_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    from exporters.pipeline.events import Event
    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays
    from harness.run.request import Request
    from harness.run.workers import Workers

_WORKER = "audit"


class ExportError(ExportGateError, RuntimeError):
    """A file that a run needs could not be exported."""


@dataclass(repr=False)
class Files:
    """What a run judges, and what that is compared or decoded with.

    Attributes:
        failed: Why a file could not be exported, by its name; the others are judged.
    """

    request: Request
    workers: Workers
    progress: Callable[[str], None]
    failed: dict[str, str] = field(default_factory=dict)
    memo: dict[Hashable, Any] = field(default_factory=dict)

    @once
    def folder(self) -> Path:
        """Return the folder with the files, exporting them if none was given."""
        if self.request.artifacts is not None:
            return self.request.artifacts
        self._export(needed(self.request), self.request.folder)
        return self.request.folder

    def path(self, name: str) -> Path:
        """Return the path of a variant's file."""
        imported = is_imported(self.folder())
        lacks = name in lacking(self.request) and not imported
        return (self._exports() if lacks else self.folder()) / name

    @once
    def sidecar(self, name: str) -> Sidecar:
        """Return a file's sidecar, after checking the file's hash.

        What given files are compared or decoded with is exported, if they lack it.
        """
        if name in lacking(self.request):
            self._export([name], self.path(name).parent)
        return read_sidecar(self.path(name))

    def called_contract(self, name: str) -> IoContract:
        """Return inputs and outputs of what a file is run as: half a step is run with the other."""
        row, sidecar = variant(name), self.sidecar(name)
        return called_contract(row, sidecar.model) if row.interface.part else sidecar.contract

    @once
    def _exports(self) -> Path:
        """Return where fresh exports stand in for what given files lack."""
        return self.request.exports

    def is_third_party(self, name: str) -> bool:
        """Whether somebody else exported the file: its tensors have other names than ours."""
        return _is_third_party(self.sidecar(name))

    @once
    def deflated_bytes(self, name: str) -> int:
        """Return the size after deflate, level 6."""
        return len(zlib.compress(self.path(name).read_bytes(), 6))

    @once
    def brotli_bytes(self, name: str) -> int | None:
        """Return the size after brotli where pages download the file; None elsewhere."""
        device = self.request.device
        return device.brotli_bytes(self.path(name)) if isinstance(device, Browser) else None

    @once
    def identical(self, name: str) -> list[str]:
        """Return the other files of ours that are there and hold the same bytes."""
        mine = self.sidecar(name).sha256
        there = [path.name for path in self.folder().iterdir() if is_variant(path.name)]
        others = {*(row.name for row in VARIANTS), *there} - {name}
        return sorted(
            other
            for other in others
            if self.path(other).is_file() and sha256_of(self.path(other)) == mine
        )

    @once
    def contents(self, name: str) -> reading.Contents:
        """Return what the file itself says is in it."""
        self.sidecar(name)
        self.progress(f"{name}: read what is inside")
        return self.workers.get(_WORKER).call(reading.read_contents, self.path(name))

    @once
    def cost(self, name: str) -> StaticCost:
        """Return what a file costs on its longest input, without a clock."""
        return self.cost_of(name, self.path(name), self.sidecar(name))

    def cost_of(self, name: str, path: Path, sidecar: Sidecar) -> StaticCost:
        """Return what another file of that name, a released one, costs on the same input."""
        (inputs,) = self._feeds(path, sidecar, [self._longest(name)])
        return self.workers.get(_WORKER).call(static_cost, path, inputs)

    def own_feeds(self, name: str, feeds: Sequence[Arrays]) -> Sequence[Arrays]:
        """Return inputs under a file's own names and types, for who runs it without its session."""
        return self._feeds(self.path(name), self.sidecar(name), feeds)

    def _feeds(self, path: Path, sidecar: Sidecar, feeds: Sequence[Arrays]) -> Sequence[Arrays]:
        if _is_third_party(sidecar):
            return self.workers.get(_WORKER).call(own_feeds, path, feeds)
        return [as_declared(sidecar.contract, feed) for feed in feeds]

    def _longest(self, name: str) -> Arrays:
        contract = self.sidecar(name).contract
        if variant(name).graph == "step":
            return step_inputs(contract)
        channels = contract.inputs[0].shape[1]
        return encoder_input(np.zeros((int(channels), self.request.max_trace_len), np.float32))

    def _export(self, names: Sequence[str], out: Path) -> None:
        """Export files of the checkpoint to a folder, or take them from the cache."""
        self.progress(f"export {len(names)} file{'s'[: len(names) > 1]} to {out}")
        command = [sys.executable, "-P", "-m", "exporters.release"]
        command += ["--checkpoint", str(self.request.checkpoint), "--out", str(out)]
        if self.request.calibration is not None:
            command += ["--val-manifest", str(self.request.calibration)]
        command += ["--cache", str(self.request.workdir / "cache")]
        command += ["--max-trace-len", str(self.request.max_trace_len)]
        command += [part for name in names for part in ("--variant", name)]
        self._run_export(command)

    def _run_export(self, command: list[str]) -> None:
        """Run an export and show its stages as they come; keep which files failed, and why.

        Raises:
            ExportError: Nothing could be exported at all.
        """
        ours, theirs = os.pipe()
        with tempfile.TemporaryFile() as said, open(ours, encoding="utf-8") as lines:  # noqa: PTH123 - a descriptor
            process = subprocess.Popen(
                [*command, "--progress_fd", str(theirs)],
                stdout=subprocess.DEVNULL,
                stderr=said,
                pass_fds=[theirs],
            )
            os.close(theirs)
            with process:
                for event in read_events(lines):
                    self._take(event)
            if process.returncode not in (0, 2) or (process.returncode and not self.failed):
                said.seek(0)
                last = said.read().decode(errors="replace").strip().splitlines() or ["no message"]
                msg = f"the export failed with status {process.returncode}: {last[-1]}"
                raise ExportError(msg)

    def _take(self, event: Event) -> None:
        if isinstance(event, Stage):
            self.progress(f"  {event.name}")
        elif isinstance(event, FileFailed):
            self.failed[event.name] = event.reason
            self.progress(f"  {event.name} failed: {event.reason}")


def needed(request: Request) -> list[str]:
    """Return the asked-for files, and those that they are compared or decoded with."""
    names = [row.name for row in request.variants]
    for row in request.variants:
        names += [row.baseline] if row.baseline else []
        names += [step_for(row.name)] if row.graph == "encoder" else []
        half = other_half(row)
        names += [half.name] if half else []
    return list(dict.fromkeys(names))


def lacking(request: Request) -> list[str]:
    """Return what given files are compared or decoded with and do not have beside them.

    A bundle holds what a target ships, and an INT8 file for the web ships without its FP32 file. A
    file that is itself to be judged is never lacking in this sense: it has to be there.
    """
    if request.artifacts is None:
        return []
    judged = {row.name for row in request.variants}
    others = [name for name in needed(request) if name not in judged]
    return [name for name in others if not (request.artifacts / name).is_file()]


def step_for(name: str) -> str:
    """Return the step that decodes an encoder's words; of a step the FP32 one of its format."""
    row = variant(name)
    return row.step or row.baseline or row.name


def _is_third_party(sidecar: Sidecar) -> bool:
    return "foreign" in sidecar.recipe
