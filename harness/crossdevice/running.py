"""Run stages as commands of their own, some at a time, each with a time limit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError
from exportgate.exit import Exit
from harness.crossdevice.agreement import Status
from harness.crossdevice.outcome import Outcome
from harness.crossdevice.plan import How, Stage
from harness.devices.device import Need
from harness.devices.registry import device

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Places:
    """Where stages work, and where what they find goes."""

    workdir: Path
    out: Path

    def of(self, stage: Stage) -> Path:
        """Return the folder of a stage's report or table, and of its log."""
        return self.out / re.sub(r"[^\w.=-]+", "-", stage.name).strip("-")[:100]


@dataclass(frozen=True, slots=True)
class Running:
    """A stage that has begun.

    Attributes:
        stage: What is judged where.
        process: Its command.
        folder: Where its log and what it finds go.
        began: By the monotonic clock, in seconds.
    """

    stage: Stage
    process: subprocess.Popen[bytes]
    folder: Path
    began: float

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "log.txt"

    def outcome(self) -> Outcome | None:
        """Return what became of it; None while it runs. One that takes too long is ended."""
        took = time.monotonic() - self.began
        code = self.process.poll()
        if code is None and took < self.stage.limit_s:
            return None
        self.end()
        status, reason = self._verdict(code)
        return Outcome(self.stage, status, reason, took, self.folder)

    def end(self) -> None:
        """Leave nothing of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _verdict(self, code: int | None) -> tuple[Status, str]:
        if code is None:
            limit = self.stage.limit_s
            return Status.NOT_MEASURED, f"took longer than {limit:g} s; {self.log}"
        if code == Exit.PASSED:
            return Status.PASS, ""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        last = next((row for row in reversed(lines) if row.startswith(("FAIL", "error:"))), "")
        reason = f"{last or f'exit status {code}'}; {self.log}"
        return (Status.FAIL if code == Exit.FAILED else Status.NOT_MEASURED), reason


def run_all(
    stages: Sequence[Stage],
    places: Places,
    say: Callable[[str], None],
    *,
    jobs: int = 1,
    release: bool = False,
) -> list[Outcome]:
    """Run stages to their ends; return what became of each, in their order.

    Args:
        stages: Which; one that judges times runs beside no other.
        places: Where.
        say: Called with a line for whoever watches.
        jobs: How many at a time.
        release: Whether a device that cannot be installed is demanded too.
    """
    waiting, running, found = list(stages), list[Running](), dict[Stage, Outcome]()
    try:
        while waiting or running:
            alone = any(each.stage.alone for each in running)
            if waiting and len(running) < jobs and not alone:
                first = waiting[0]
                if not (first.alone and running):
                    waiting.pop(0)
                    say(first.name)
                    if absent := unavailable(first):
                        found[first] = _absent(first, absent, places, release=release)
                    else:
                        running.append(_begin(first, places))
                    continue
            for each in running:
                if outcome := each.outcome():
                    found[each.stage] = outcome
                    said = f"{outcome.status} in {outcome.seconds:.0f} s: {each.stage.name}"
                    say(f"  {said} {outcome.reason}".rstrip())
            running = [each for each in running if each.stage not in found]
            time.sleep(_LOOK_S)
    finally:
        for each in running:
            each.end()
    return [found[stage] for stage in stages]


def unavailable(stage: Stage) -> str:
    """Return why a stage's files cannot run on one of its devices; empty if they can."""
    needs = [Need.PTE if kind == "pte" else Need.ONNX for kind in {r.format for r in stage.rows}]
    for name in stage.devices:
        try:
            reasons = [device(name).lacks(need) for need in sorted(needs)]
        except ExportGateError as error:
            return str(error)
        if all(reasons):
            return f"{name}: {'; '.join(dict.fromkeys(reasons))}"
    return ""


def command_of(stage: Stage, workdir: Path, folder: Path) -> list[str]:
    """Return the command line of a stage."""
    words = ["--target", stage.target, "--workdir", str(workdir)]
    words += [word for name in stage.files for word in ("--variant", name)]
    if stage.how is How.SUITES:
        words = ["gate", *words, "--device", *stage.devices, "--report", str(folder)]
    else:
        words = ["devices", *words, "--devices", ",".join(stage.devices), "--out", str(folder)]
        words += [] if stage.swipes is None else ["--max-swipes", str(stage.swipes)]
        words += ["--no-times"]  # other stages run beside it
    return [sys.executable, "-P", "-m", "harness.console", *words]


def _absent(stage: Stage, reason: str, places: Places, *, release: bool) -> Outcome:
    waived = stage.optional and not release
    return Outcome(stage, Status.NOT_MEASURED, reason, 0.0, places.of(stage), waived)


def _begin(stage: Stage, places: Places) -> Running:
    folder = places.of(stage)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    folder.mkdir(parents=True)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
    with (folder / "log.txt").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command_of(stage, places.workdir, folder),
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environ,
            start_new_session=True,
            preexec_fn=_end_with_us,  # noqa: PLW1509 - this process has one thread
        )  # fmt: skip
    return Running(stage, process, folder, time.monotonic())


def _end_with_us() -> None:
    """Let a stage end, and with it what it started, when this process is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
