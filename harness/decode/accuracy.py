"""Words and letters: how often the right word is found, where it fails, and how sure that is.

Statistics of outcomes only; decoding is elsewhere. Terms: top-1 and top-5 accuracy are shares of
swipes whose word is the first, or among the first five, of the results. The character error rate
is the Levenshtein distance of all first results from their words, divided by the letters of all
words (Morris, Maier and Green 2004 count words so). A deletion is a letter of the word that the
first result lacks in an alignment of least distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

TOP = 5
LONG_LETTERS = 9
"""Words of at least so many letters are reported apart: they break first."""
RARE_LOG_PRIOR = float(np.log(1e-5))
"""Words below ten in a million are rare."""
RESAMPLES = 10_000
_SEED = 20251122


class AccuracyError(ExportGateError, ValueError):
    """Outcomes that cannot be compared."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one swipe was decoded as.

    Attributes:
        word: What the user meant.
        results: What was found, best first; empty if nothing was.
    """

    word: str
    results: tuple[str, ...]

    @property
    def first(self) -> str:
        """The best result; empty if there is none."""
        return self.results[0] if self.results else ""

    @property
    def right(self) -> bool:
        """Whether the best result is the word."""
        return self.first == self.word

    @property
    def right_of_top(self) -> bool:
        """Whether the word is among the first five results."""
        return self.word in self.results[:TOP]


@dataclass(frozen=True, slots=True)
class Edits:
    """Letters to change to make one string of another, in an alignment of least distance."""

    substitutions: int
    deletions: int
    insertions: int

    @property
    def total(self) -> int:
        """The Levenshtein distance."""
        return self.substitutions + self.deletions + self.insertions


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval."""

    estimate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.estimate:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Outcomes of a set of swipes, summed up.

    Attributes:
        swipes: How many.
        top1: Share with the word as the first result.
        top5: Share with the word among the first five.
        character_error_rate: Edits ÷ letters of the words.
        mean_emitted_length: Letters of the first result, mean.
        deletion_rate: Deleted letters ÷ letters of the words.
    """

    swipes: int
    top1: float
    top5: float
    character_error_rate: float
    mean_emitted_length: float
    deletion_rate: float


def edits(wanted: str, found: str) -> Edits:
    """Return the edits from ``wanted`` to ``found``; of equal distances the fewest deletions."""
    # Each cell: (distance, deletions, insertions); min prefers few deletions, then insertions.
    row = [(column, 0, column) for column in range(len(found) + 1)]
    for index, letter in enumerate(wanted, 1):
        above, row = row, [(index, index, 0)]
        for column, other in enumerate(found, 1):
            diagonal, up, left = above[column - 1], above[column], row[-1]
            differs = int(letter != other)
            row.append(
                min(
                    (diagonal[0] + differs, diagonal[1], diagonal[2]),
                    (up[0] + 1, up[1] + 1, up[2]),
                    (left[0] + 1, left[1], left[2] + 1),
                )
            )
    total, deletions, insertions = row[-1]
    return Edits(total - deletions - insertions, deletions, insertions)


def summarise(outcomes: Sequence[Outcome]) -> Accuracy:
    """Sum up outcomes.

    Raises:
        AccuracyError: There are none.
    """
    if not outcomes:
        msg = "no outcomes to sum up; give at least one swipe"
        raise AccuracyError(msg)
    letters = sum(len(outcome.word) for outcome in outcomes)
    changed = [edits(outcome.word, outcome.first) for outcome in outcomes]
    return Accuracy(
        swipes=len(outcomes),
        top1=mean(outcome.right for outcome in outcomes),
        top5=mean(outcome.right_of_top for outcome in outcomes),
        character_error_rate=sum(change.total for change in changed) / letters,
        mean_emitted_length=mean(len(outcome.first) for outcome in outcomes),
        deletion_rate=sum(change.deletions for change in changed) / letters,
    )


def length_group(word: str) -> str:
    """Name a word's length group."""
    low, high = next(
        bounds for bounds in ((1, 3), (4, 5), (6, 8), (LONG_LETTERS, 999)) if len(word) <= bounds[1]
    )
    return f"{low}-{high} letters" if high < 999 else f"long (≥ {LONG_LETTERS} letters)"


def speed_groups(points: Sequence[NDArray[np.float64]]) -> list[str]:
    """Return each swipe's third by its mean speed: slow, medium or fast.

    Args:
        points: (N, 3) for each swipe: x, y in keyboard units, t in ms.
    """
    speeds = np.array([_mean_speed(item) for item in points])
    low, high = np.quantile(speeds, [1 / 3, 2 / 3])
    return ["slow" if s <= low else "medium" if s <= high else "fast" for s in speeds]


def rarity_group(log_prior: float) -> str:
    """Name a word's rarity by the natural log of its share of all words."""
    return "rare (< 1e-5)" if log_prior < RARE_LOG_PRIOR else "common"


def by_group(outcomes: Sequence[Outcome], groups: Sequence[str]) -> dict[str, Accuracy]:
    """Sum up the outcomes of each group, in order of the groups' names."""
    members: dict[str, list[Outcome]] = {}
    for outcome, group in zip(outcomes, groups, strict=True):
        members.setdefault(group, []).append(outcome)
    return {group: summarise(members[group]) for group in sorted(members)}


def describe_groups(groups: dict[str, Accuracy]) -> str:
    """Return one line: each group's top-1 accuracy and size."""
    return ", ".join(f"{name} {found.top1:.3f} of {found.swipes}" for name, found in groups.items())


def paired_difference(
    candidate: Sequence[float],
    baseline: Sequence[float],
    *,
    confidence: float = 0.95,
) -> Interval:
    """Return baseline less candidate with a paired percentile bootstrap over swipes.

    Both were decoded from the same swipes: swipes are drawn with replacement, each with both of
    its values, so that what makes a swipe hard cancels (Efron and Tibshirani 1993; Bisani and Ney
    2004 for word errors). The draws are seeded: the same values give the same interval.

    Args:
        candidate: A value for each swipe, e.g. 1.0 for a word found and 0.0 else.
        baseline: The same of the baseline.
        confidence: Coverage of the interval.

    Raises:
        AccuracyError: There are no swipes, or not as many on both sides.
    """
    if len(candidate) != len(baseline) or not len(candidate):
        msg = f"{len(candidate)} swipes against {len(baseline)}, but should be as many, and some"
        raise AccuracyError(msg)
    difference = np.asarray(baseline, np.float64) - np.asarray(candidate, np.float64)
    rng = np.random.default_rng(_SEED)
    rows = rng.integers(0, len(difference), (RESAMPLES, len(difference)), dtype=np.int32)
    means = difference[rows].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(difference.mean()), float(low), float(high))


def _mean_speed(points: NDArray[np.float64]) -> float:
    path = float(np.hypot(*np.diff(points[:, :2], axis=0).T).sum())
    return path / max(float(points[-1, 2] - points[0, 2]), 1.0)
