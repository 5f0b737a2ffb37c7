"""What a place takes from swipe to word: every run, the first use, memory, and after thousands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exportgate.data.manifest import Swipe
    from harness.end_to_end.unit import Memory, Pair, Place, Times, Unit

STARTS = 3
"""Clients whose start and first swipe are timed."""
_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Soak:
    """A client that went on for long.

    Attributes:
        swipes: That it was given.
        growth_bytes: What it held at the end more than after it had seen every swipe once.
        changed: Swipes that became other words at the end than at the beginning.
    """

    swipes: int
    growth_bytes: int
    changed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a pair of files took at a place.

    Attributes:
        place: Its name.
        encoder: File name.
        step: File name.
        times: Of each run of each swipe, run after run, swipe after swipe, warm.
        runs: Of each swipe.
        start_ms: Of each start: files read and opened, words read, self-test done.
        first_ms: The first swipe after each start, on the wall.
        memory: After all of it.
        words: The first word of each swipe.
        soak: None if none was asked for.
    """

    place: str
    encoder: str
    step: str
    times: Times
    runs: int
    start_ms: tuple[float, ...]
    first_ms: tuple[float, ...]
    memory: Memory
    words: tuple[str, ...]
    soak: Soak | None = None

    def percentile_ms(self, percent: float, *, processor: bool = False) -> float:
        """Return a percentile over all runs of all swipes."""
        values = self.times.processor_ms if processor else self.times.wall_ms
        return float(np.percentile(values, percent)) if values else float("nan")

    def quickest_ms(self, percent: float) -> float:
        """Return a percentile over the swipes, each by its quickest run on the wall."""
        runs = np.reshape(self.times.wall_ms, (-1, self.runs))
        return float(np.percentile(runs.min(axis=1), percent))


def measure(
    place: Place,
    pair: Pair,
    swipes: Sequence[Swipe],
    *,
    runs: int,
    soak: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Measure a pair of files at a place.

    Args:
        place: Where.
        pair: The files.
        swipes: Each is run ``runs`` times, after a pass that does not count.
        runs: See above.
        soak: Swipes that one client is given at the end, round and round; 0 for none.
        say: Called with a line for whoever watches.

    Raises:
        UnitError: The client does not start, refuses the files or fails.
    """
    starts: list[float] = []
    firsts: list[float] = []
    middle = sorted(range(len(swipes)), key=lambda n: len(swipes[n].points))[len(swipes) // 2]
    for number in range(STARTS):
        unit = place.start(pair)
        try:
            starts.append(unit.start_ms)
            unit.add(swipes)
            firsts += unit.times([middle]).wall_ms
            if number < STARTS - 1:
                continue
            say(f"{pair.encoder} on {place.name}: {len(swipes)} swipes, {runs} times each")
            everything = range(len(swipes))
            words = [unit.words(swipe) for swipe in everything]
            times = unit.times(everything, runs)
            memory = unit.memory()
            found = _soaked(unit, words, soak, say) if soak else None
        finally:
            unit.close()
    return Measured(
        place.name,
        pair.encoder,
        pair.step,
        times,
        runs,
        tuple(starts),
        tuple(firsts),
        memory,
        tuple(item[0] if item else "" for item in words),
        found,
    )


def _soaked(
    unit: Unit, words: Sequence[tuple[str, ...]], swipes: int, say: Callable[[str], None]
) -> Soak:
    """Give a client swipes round and round; all of them have been seen by it before."""
    say(f"  soak: {swipes} swipes")
    before = unit.memory().held
    for first in range(0, swipes, _CHUNK):
        last = min(first + _CHUNK, swipes)
        unit.elapsed([number % len(words) for number in range(first, last)])
    growth = unit.memory().held - before
    changed = tuple(n for n, known in enumerate(words) if unit.words(n) != known)
    return Soak(swipes, growth, changed)
