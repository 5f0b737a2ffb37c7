"""What is measured as one: a client with a bundle's files, ready to turn swipes into words."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from exportgate import resources
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.data.manifest import Swipe
    from exportgate.runtime.session import Elapsed
    from harness.measure.environment import Environment


class UnitError(ExportGateError, RuntimeError):
    """A client could not be built, does not start, or failed."""


class NotThereError(UnitError):
    """What a place needs is not installed: nothing was measured there."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two files of a bundle that decode together.

    Attributes:
        bundle: Its folder, completed by ``exportgate bundle specify``.
        encoder: File name.
        step: File name.
    """

    bundle: Path
    encoder: str
    step: str


@dataclass(frozen=True, slots=True)
class Times:
    """What runs took, one after the other.

    Attributes:
        wall_ms: By the clock on the wall.
        processor_ms: Of the client's process; of a page its thread.
    """

    wall_ms: tuple[float, ...]
    processor_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of a client's process.

    Attributes:
        held: What it holds now: resident, or of a page what its scripts and WebAssembly hold.
        peak: The most that was resident.
    """

    held: int
    peak: int


class Unit(Protocol):
    """A client that is ready."""

    @property
    def start_ms(self) -> float:
        """From nothing to ready: files read and opened, words read, self-test done."""

    def add(self, swipes: Sequence[Swipe]) -> None:
        """Give it swipes; they are called by their number from then on, 0 first."""

    def words(self, swipe: int) -> tuple[str, ...]:
        """Return the words of a swipe, best first."""

    def times(self, swipes: Sequence[int], runs: int = 1) -> Times:
        """Run each swipe so often, and say what each run took."""

    def elapsed(self, swipes: Sequence[int], runs: int = 1) -> Elapsed:
        """Do the same, and say what all of it took."""

    def memory(self) -> Memory:
        """Say what its process holds."""

    def close(self) -> None:
        """End it."""


class Place(Protocol):
    """Where a client runs."""

    @property
    def name(self) -> str:
        """As ``--on`` names it."""

    @property
    def format(self) -> str:
        """The suffix of the files that it takes, without the dot; empty for any."""

    def environment(self) -> Environment:
        """Describe machine and versions."""

    def start(self, pair: Pair) -> Unit:
        """Start a client in a process of its own.

        Raises:
            NotThereError: Something is not installed.
            UnitError: It does not start, or refuses the files.
        """


def source_folder(name: str) -> Path:
    """Return the folder of a client's sources: they come with a checkout only.

    Raises:
        NotThereError: It is not there.
    """
    found = resources.CHECKOUT / "clients" / name
    if not found.is_dir():
        msg = f"{found}: not there; the clients are part of a checkout, not of the wheel"
        raise NotThereError(msg)
    return found


def keep_on_one_core(process: int) -> None:
    """Keep a process on the last core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(process, {max(os.sched_getaffinity(0))})


def memory_of(process: int) -> Memory:
    """Return what a process of this machine holds.

    Raises:
        UnitError: It is gone, or the system does not say.
    """
    try:
        lines = (Path("/proc") / str(process) / "status").read_text(encoding="utf-8").splitlines()
        rows = dict(line.split(":", 1) for line in lines)
        held, peak = (1024 * int(rows[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    except (OSError, KeyError, ValueError) as error:
        msg = f"the memory of process {process} cannot be read ({error!r})"
        raise UnitError(msg) from error
    return Memory(held, peak)
