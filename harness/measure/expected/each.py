"""A function of each of many items, in as many processes as there are cores.

Each item is computed alone, as in a loop: the same bits, whatever the number of cores.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    T = TypeVar("T")
    R = TypeVar("R")

LEAST_ITEMS = 16
"""For each process: forking one takes as long as some of them."""
_SHARES = 8
"""Of each process: whoever is done takes the next share."""


class EachError(ExportGateError, RuntimeError):
    """A process died on the way."""


def each(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return ``function(item)`` of each, in order.

    Args:
        function: It need not be picklable, the processes inherit it; its results must be.
        items: Inherited too.

    Raises:
        EachError: A process was killed.
    """
    cores = len(os.sched_getaffinity(0))
    jobs = min(cores, len(items) // LEAST_ITEMS)
    if jobs < 2:
        return [function(item) for item in items]
    shares = [range(first, len(items), jobs * _SHARES) for first in range(jobs * _SHARES)]
    found: dict[int, R] = {}
    # Forked, not spawned: a loaded model is inherited.
    with ProcessPoolExecutor(jobs, get_context("fork"), _inherit, (function, items)) as pool:
        try:
            for share, results in zip(shares, pool.map(_run, shares), strict=True):
                found.update(zip(share, results, strict=True))
        except BrokenProcessPool as error:
            msg = f"a process of {jobs} was killed; out of memory? Give it less work, or one core"
            raise EachError(msg) from error
    return [found[index] for index in range(len(items))]


_inherited: tuple[Callable[[Any], Any], Sequence[Any]]


def _inherit(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    global _inherited  # noqa: PLW0603 - of the forked process, set once
    _inherited = function, items


def _run(share: Sequence[int]) -> list[Any]:
    function, items = _inherited
    return [function(items[index]) for index in share]
