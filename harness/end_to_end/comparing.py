"""Beside the baseline: clients of two bundles in turns, in processor time; instructions exactly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from exportgate.levels import level
from harness.measure.paired import Plan, compare_samples, measure_openings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from exportgate.data.manifest import Swipe
    from exportgate.runtime.session import Elapsed
    from harness.end_to_end.unit import Pair, Place
    from harness.measure.paired import PairedComparison, PairedSamples

PLAN = Plan(blocks=24, warmup=3, openings=4)


@dataclass(frozen=True, slots=True)
class Beside:
    """A candidate beside a baseline.

    Attributes:
        place: Where.
        encoder: The candidate's.
        comparison: Its cost ÷ the baseline's, and whether that is a difference.
        samples: What each leg took.
    """

    place: str
    encoder: str
    comparison: PairedComparison
    samples: PairedSamples


def typical_and_long(swipes: Sequence[Swipe]) -> list[Swipe]:
    """Return the swipe of median length, and one that is longer than 19 of 20."""
    ordered = sorted(swipes, key=lambda swipe: len(swipe.points))
    return [ordered[len(ordered) // 2], ordered[len(ordered) * 19 // 20]]


def compare(
    places: tuple[Place, Place],
    pairs: tuple[Pair, Pair],
    swipes: Sequence[Swipe],
    plan: Plan = PLAN,
) -> Beside:
    """Time the client of a candidate and of a baseline in turns, from swipe to word.

    Args:
        places: Where each runs: the same place, but for those who try what the comparison sees.
        pairs: Files of candidate and baseline.
        swipes: What each leg runs on, once.
        plan: How long to measure.

    Raises:
        UnitError: A client does not start, refuses the files or fails.
    """
    numbers = range(len(swipes))

    def opened() -> Iterator[tuple[Callable[[], Elapsed], Callable[[], Elapsed]]]:
        for number in range(plan.openings):
            # In turns: who is started first gets other memory.
            order = (0, 1) if number % 2 else (1, 0)
            units = {side: places[side].start(pairs[side]) for side in order}
            try:
                for unit in units.values():
                    unit.add(swipes)
                legs = (partial(units[side].elapsed, numbers, plan.runs) for side in (0, 1))
                yield (next(legs), next(legs))
            finally:
                for unit in units.values():
                    unit.close()

    samples = measure_openings(opened(), plan)
    found = compare_samples(samples, minimal_effect=level("end_to_end_effect"))
    return Beside(places[0].name, pairs[0].encoder, found, samples)
