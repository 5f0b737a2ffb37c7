"""Work without Python's garbage collector, which walks through all that torch and NeMo loaded."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let cycles of garbage lie meanwhile; the collector is on again afterwards, if it was."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def leave_all() -> None:
    """Have the interpreter not collect before it exits, which takes two seconds after NeMo."""
    gc.freeze()
