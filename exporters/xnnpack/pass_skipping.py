"""Whether the lowering leaves out passes that change nothing: it halves its time, not its result.

``idle_passes`` does it, by taking the place of methods of torch and ExecuTorch while a program is
lowered. That it changes no byte is proven for the versions named here; with others every pass runs,
which is slower and needs no proof. ``EXPORTGATE_PASS_SKIPPING=0`` switches it off.
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROVEN_FOR = {"torch": "2.13.0", "executorch": "1.4.1"}
"""Versions for which ``tests/test_pass_skipping.py`` shows equal bytes, without local parts."""
SWITCH = "EXPORTGATE_PASS_SKIPPING"


class SwitchError(ExportGateError, ValueError):
    """The environment variable is neither 0 nor 1."""


@contextlib.contextmanager
def pass_skipping(*, wanted: bool = True) -> Iterator[bool]:
    """Lower with fewer passes inside, or with all: yields whether passes are left out.

    Args:
        wanted: Leave them out if nothing speaks against it.

    Raises:
        SwitchError: The environment variable is neither 0 nor 1.
    """
    if not wanted or not _switched_on() or not _is_proven():
        yield False
        return
    # Imported here: it takes seconds, and may not exist in other versions of ExecuTorch.
    from exporters.xnnpack.idle_passes import idle_passes_skipped  # noqa: PLC0415

    with idle_passes_skipped():
        yield True


def _switched_on() -> bool:
    value = os.environ.get(SWITCH, "1")
    if value not in ("0", "1"):
        msg = f"{SWITCH} is {value!r}, but should be 0 (run every pass of the lowering) or 1"
        raise SwitchError(msg)
    return value == "1"


def _is_proven() -> bool:
    other = {
        name: found
        for name, proven in PROVEN_FOR.items()
        if (found := version(name).partition("+")[0]) != proven
    }
    if other:
        _say_unproven(tuple(other.items()))
    return not other


@cache  # once in a process
def _say_unproven(other: tuple[tuple[str, str], ...]) -> None:
    found = ", ".join(f"{name} {number} instead of {PROVEN_FOR[name]}" for name, number in other)
    print(
        f"  note: {found}: every pass of the lowering runs, which takes twice as long; leaving out "
        "those that change nothing is not proven for it",
        file=sys.stderr,
        flush=True,
    )
