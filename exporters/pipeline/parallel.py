"""Several exports at once, each in a process forked from the one that loaded the checkpoint.

Lowering is Python from end to end and keeps one core busy; forked processes share the memory of the
model and of the imported packages. A task that fails, or whose process dies of it, is one failed
task: the others are done.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Work = Callable[[str, Any], Any]

MOST_JOBS = 4
"""An export of 16 million parameters takes up to 2.4 GB; more at once only if asked for."""
_LONGEST_REASON = 600
_SECONDS_TO_LEAVE = 10.0


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work.

    Attributes:
        name: Its own.
        needs: Name of the one whose result it takes.
    """

    name: str
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a task has no result.

    Attributes:
        reason: In a line.
        traceback: Where in the code, if nobody but a programmer can mend it; else empty.
    """

    reason: str
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A task was begun."""

    name: str


@dataclass(frozen=True, slots=True)
class Done:
    """A task is done, or failed.

    Attributes:
        name: The task's.
        result: What the function returned, or a ``Failure``.
    """

    name: str
    result: Any


def usable_cores() -> int:
    """Return how many exports to run at once: the cores that this process may use, or fewer."""
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


def run_forked(function: Work, tasks: Sequence[Task], jobs: int) -> Iterator[Begun | Done]:
    """Do each task, and yield what begins and what is done, as it happens.

    A task fails if the function raises, if its process dies, or if what it needs failed.

    Args:
        function: Takes a task's name, and the result of what it needs or None. It need not be
            picklable: the processes inherit it. Its results must be.
        tasks: Begun in this order, but for those that still wait for what they need.
        jobs: How many at once.

    Raises:
        ValueError: A task needs one that is not among them.
    """
    waiting, results = list(tasks), dict[str, Any]()
    pool = _Pool(function)
    try:
        while waiting or pool.running:
            for task in [t for t in waiting if t.needs is None or t.needs in results]:
                needed = results[task.needs] if task.needs else None
                if isinstance(needed, Failure):
                    waiting.remove(task)
                    results[task.name] = needed
                    yield Done(task.name, needed)
                elif len(pool.running) < jobs:
                    waiting.remove(task)
                    yield Begun(task.name)
                    pool.begin(task.name, needed)
            if not pool.running and waiting and not any(t.needs in results for t in waiting):
                msg = f"{waiting[0].name} needs {waiting[0].needs}, which is no task"
                raise ValueError(msg)
            for name, result in pool.finished():
                results[name] = result
                yield Done(name, result)
    finally:
        pool.end()


class _Pool:
    """Processes that are forked when they are needed, and again after one died."""

    def __init__(self, function: Work) -> None:
        self._function = function
        self._idle: list[_Worker] = []
        self.running: dict[Connection, tuple[str, _Worker]] = {}

    def begin(self, name: str, needed: object) -> None:
        busy = [worker for _, worker in self.running.values()]
        worker = self._idle.pop() if self._idle else _Worker(self._function, busy)
        worker.connection.send((name, needed))
        self.running[worker.connection] = name, worker

    def finished(self) -> list[tuple[str, Any]]:
        """Wait until a task is done, and return name and result of each that is."""
        found = []
        ready = wait(list(self.running)) if self.running else []
        for connection in [known for known in self.running if known in ready]:
            name, worker = self.running.pop(connection)
            try:
                found.append((name, worker.connection.recv()))
                self._idle.append(worker)
            except (EOFError, ConnectionResetError):
                found.append((name, worker.death()))
        return found

    def end(self) -> None:
        """End the processes; one that is writing removes its draft first."""
        workers = [*self._idle, *(worker for _, worker in self.running.values())]
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_SECONDS_TO_LEAVE)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


class _Worker:
    """A forked process that does one task after another."""

    def __init__(self, function: Work, others: Sequence[_Worker]) -> None:
        self.connection, theirs = Pipe()
        # Inherited ends of other pipes are closed: a process sees the end of its own only if no
        # other one holds it open.
        inherited = [self.connection, *(other.connection for other in others)]
        self.process = get_context("fork").Process(
            target=_serve, args=(function, theirs, inherited), daemon=True
        )
        self.process.start()
        theirs.close()

    def death(self) -> Failure:
        """Return how the process died."""
        self.process.join()
        self.connection.close()
        status = self.process.exitcode or 0
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Failure(
            f"the process that exported it died ({how}; out of memory?); export fewer files at "
            "once with --jobs 1"
        )


def _serve(function: Work, connection: Connection, inherited: Sequence[Connection]) -> None:
    """Do what comes until nothing can come any more."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds, so that drafts are removed
    for other in inherited:
        other.close()
    with contextlib.suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        while True:
            name, needed = connection.recv()
            try:
                connection.send(function(name, needed))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other files are made
                connection.send(failure_of(error))


def failure_of(error: Exception) -> Failure:
    """Return why an export failed, in a line, and where if the exporter is at fault."""
    if isinstance(error, ExportGateError):
        return Failure(_one_line(str(error)))
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return Failure(_one_line(f"{where}{error.strerror}"))
    all_frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in all_frames if frame.filename != __file__] or [*all_frames]
    frame = next((f for f in reversed(frames) if "/exporters/" in f.filename), frames[-1])
    reason = (
        f"{type(error).__name__}: {error} (in {frame.name}, {Path(frame.filename).name}:"
        f"{frame.lineno}); this is a fault of the exporter"
    )
    return Failure(_one_line(reason), "".join(traceback.format_exception(error)))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    if len(line) <= _LONGEST_REASON:
        return line
    half = _LONGEST_REASON // 2
    return f"{line[:half]} … {line[-half:]}"
