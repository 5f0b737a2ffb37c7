"""What a command and every process that it starts cost: seconds, processor time, memory."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

_EVERY_S = 0.2
_TAIL_LINES = 3


class CommandError(ExportGateError, RuntimeError):
    """A command that was to be measured ended in another way than it should have."""


@dataclass(frozen=True, slots=True)
class ProcessCost:
    """Of a command and its descendants.

    Attributes:
        wall_s: From its start to its end; on a shared machine, mostly what the others do.
        cpu_s: Processor time, of all of them.
        peak_mb: Largest resident set of one of them, in 1e6 bytes.
        together_mb: Largest sum of their proportional sets at one moment, sampled.
        status: Exit status.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    together_mb: float
    status: int


def cost_of(command: Sequence[str], log: Path, allowed: Collection[int] = (0,)) -> ProcessCost:
    """Run a command to its end and return what it cost.

    Args:
        command: Program and arguments.
        log: Gets its output.
        allowed: Exit statuses that are none of its failures.

    Raises:
        CommandError: It ended with another status.
    """
    before, began = _children(), time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ}
        )
        watch = _Watch(process.pid)
        watch.start()
        status = process.wait()
        watch.done.set()
    wall, after = time.monotonic() - began, _children()
    watch.join()
    if status not in allowed:
        tail = " / ".join(log.read_text(encoding="utf-8").splitlines()[-_TAIL_LINES:])
        msg = f"{' '.join(command[:6])} … ended with {status}: {tail}; all of it is in {log}"
        raise CommandError(msg)
    return ProcessCost(wall, after - before, watch.one / 1e6, watch.all / 1e6, status)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Watch(threading.Thread):
    """Samples the memory of a process and its descendants."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.done, self.one, self.all = threading.Event(), 0, 0
        self._root = psutil.Process(pid)

    def run(self) -> None:
        while not self.done.wait(_EVERY_S):
            sizes = [_memory(process) for process in self._tree()]
            self.one = max([self.one, *(size for size, _ in sizes)])
            self.all = max(self.all, sum(share for _, share in sizes))

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


def _memory(process: psutil.Process) -> tuple[int, int]:
    """Return the largest resident set so far, and the proportional set now, in bytes."""
    try:
        with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:  # noqa: PTH123
            peak = next((int(s.split()[1]) for s in file if s.startswith("VmHWM")), 0)
        return peak * 1024, process.memory_full_info().pss
    except (OSError, psutil.Error):  # it has ended
        return 0, 0
