"""Several exports at once, each in a process forked from the one that loaded the checkpoint.

Lowering is Python from end to end and keeps one core busy; forked processes share the memory of the
model and of the imported packages.
"""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MOST_JOBS = 4
"""An export of 16 million parameters takes up to 2.4 GB; more at once only if asked for."""


class ExportDiedError(ExportGateError, RuntimeError):
    """A process that exported a file died."""


@dataclass(frozen=True, slots=True)
class Task:
    """A piece of work.

    Attributes:
        name: Its own.
        needs: Name of the one whose result it takes.
    """

    name: str
    needs: str | None = None


def usable_cores() -> int:
    """Return how many exports to run at once: the cores that this process may use, or fewer."""
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


def run_forked(
    function: Callable[[str, Any], Any], tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[str, Any]]:
    """Do each task, and yield its name and result as they come.

    Args:
        function: Takes a task's name, and the result of what it needs or None. It need not be
            picklable: the processes inherit it. Its results must be.
        tasks: Begun in this order, but for those that still wait for what they need.
        jobs: How many at once.

    Raises:
        ExportDiedError: A process died.
        Exception: Whatever the function raised; tasks that wait are not begun.
    """
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("fork"), initializer=_inherit, initargs=(function,)
    ) as pool:
        waiting = list(tasks)
        running: dict[Future[Any], str] = {}
        results: dict[str, Any] = {}
        try:
            while waiting or running:
                for task in [t for t in waiting if t.needs is None or t.needs in results]:
                    if len(running) < jobs:
                        waiting.remove(task)
                        needed = results[task.needs] if task.needs else None
                        running[pool.submit(_call, task.name, needed)] = task.name
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    results[name] = future.result()
                    yield name, results[name]
        except BrokenProcessPool as error:
            msg = (
                "a process that exported died (out of memory?); export fewer files at once with "
                "--jobs 1"
            )
            raise ExportDiedError(msg) from error
        finally:
            pool.shutdown(cancel_futures=True)


_inherited: list[Callable[[str, Any], Any]] = []


def _inherit(function: Callable[[str, Any], Any]) -> None:
    _inherited.append(function)


def _call(name: str, needed: Any) -> Any:  # noqa: ANN401 - whatever the inherited function takes
    return _inherited[-1](name, needed)
