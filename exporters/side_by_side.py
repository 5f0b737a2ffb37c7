"""Several exports at once, each in a process forked from the one that loaded the checkpoint.

Lowering is Python from end to end and keeps one core busy; forked processes share the memory of the
model and of the imported packages.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from exporters.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

MOST_JOBS = 4
"""An export takes up to 1.5 GB; more at once only if asked for."""


class ExportDiedError(ExportGateError, RuntimeError):
    """A process that exported a file died."""


def usable_cores() -> int:
    """Return how many exports to run at once: the cores that this process may use, or fewer."""
    return min(len(os.sched_getaffinity(0)), MOST_JOBS)


def run_forked(
    function: Callable[[str], T], names: Sequence[str], jobs: int
) -> Iterator[tuple[str, T]]:
    """Call the function for each name, and yield name and result as they come.

    Args:
        function: Need not be picklable: the processes inherit it. Its results must be.
        names: In this order.
        jobs: How many at once.

    Raises:
        ExportDiedError: A process died.
        Exception: Whatever the function raised; names that wait are not begun.
    """
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("fork"), initializer=_inherit, initargs=(function,)
    ) as pool:
        call: Callable[[str], T] = _call
        futures = {pool.submit(call, name): name for name in names}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            msg = (
                "a process that exported died (out of memory?); export fewer files at once with "
                "--jobs 1"
            )
            raise ExportDiedError(msg) from error
        finally:
            pool.shutdown(cancel_futures=True)


_inherited: list[Callable[[str], Any]] = []


def _inherit(function: Callable[[str], object]) -> None:
    _inherited.append(function)


def _call(name: str) -> Any:  # noqa: ANN401 - whatever the inherited function returns
    return _inherited[-1](name)
