"""Instructions from swipe to word, beside the baseline's on the same swipes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.end_to_end import arm64

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.data.manifest import Swipe
    from harness.end_to_end.unit import Pair


@dataclass(frozen=True, slots=True)
class Executed:
    """What the client executes.

    Attributes:
        place: With the core.
        encoder: File name.
        step: File name.
        instructions: Of each swipe.
        baseline: The same of the baseline's files; empty without one.
        words: The first word of each swipe.
    """

    place: str
    encoder: str
    step: str
    instructions: tuple[int, ...]
    baseline: tuple[int, ...]
    words: tuple[str, ...]

    @property
    def ratio(self) -> float | None:
        """All of them ÷ the baseline's; None without one."""
        return sum(self.instructions) / sum(self.baseline) if self.baseline else None


def execute(pair: Pair, baseline: Pair | None, swipes: Sequence[Swipe]) -> Executed:
    """Count on an emulated core.

    Raises:
        UnitError: The client cannot be built or run there.
    """
    found = arm64.count(pair, swipes)
    other = arm64.count(baseline, swipes).instructions if baseline else ()
    words = tuple(item[0] if item else "" for item in found.words)
    place = f"arm64:{arm64.CORE}"
    return Executed(place, pair.encoder, pair.step, found.instructions, other, words)
