"""Statistics of paired timings: a ratio with its confidence interval, and whether it is chance.

Written on numpy alone, because importing SciPy takes longer than a whole comparison;
``tests/test_statistics.py`` holds each function to SciPy's answers on known samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000


class StatisticsError(ExportGateError, ValueError):
    """Samples from which nothing can be concluded."""


class Decision(StrEnum):
    """What a comparison of two files concludes."""

    FASTER = "faster"
    SLOWER = "slower"
    NO_DIFFERENCE = "no difference"


@dataclass(frozen=True, slots=True)
class RatioEstimate:
    """Candidate ÷ baseline: median over blocks, and its confidence interval."""

    ratio: float
    low: float
    high: float


def bootstrap_ratio(
    candidate: Sequence[float] | NDArray[np.float64],
    baseline: Sequence[float] | NDArray[np.float64],
    *,
    confidence: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RatioEstimate:
    """Estimate the ratio of two paired samples by the percentile bootstrap.

    Args:
        candidate: Positive, one value for each block.
        baseline: Positive, taken in the same blocks.
        confidence: Coverage of the two-sided interval.
        resamples: Bootstrap samples drawn.
        seed: Of the resampling: the same samples give the same interval.

    Returns:
        The median of the blocks' ratios. Pairs are resampled, never single values: what a block
        has in common (the machine's speed at that moment) cancels in its ratio. Efron and
        Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Raises:
        StatisticsError: Fewer than 8 pairs, unequal numbers, or values that are not positive.
    """
    ratios = _positive(candidate, "candidate") / _matching(candidate, baseline)
    draws = np.random.default_rng(seed).integers(0, len(ratios), (resamples, len(ratios)))
    medians = np.median(ratios[draws], axis=1)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(medians, [tail, 1.0 - tail])
    return RatioEstimate(float(np.median(ratios)), float(low), float(high))


def mann_whitney(
    first: Sequence[float] | NDArray[np.float64], second: Sequence[float] | NDArray[np.float64]
) -> float:
    """Return the two-sided p-value of Mann and Whitney's rank test.

    Normal approximation with tie and continuity correction, which is what SciPy takes for samples
    of more than 8. Mann and Whitney, Ann. Math. Statist. 18 (1947), 50-60.

    Raises:
        StatisticsError: Fewer than 8 values on a side: the approximation does not hold.
    """
    a, b = _positive(first, "first"), _positive(second, "second")
    n, m = len(a), len(b)
    both = np.concatenate([a, b])
    _, group, counts = np.unique(both, return_inverse=True, return_counts=True)
    # Ties share the mean of the ranks that they occupy.
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[group]
    u = float(ranks[:n].sum() - n * (n + 1) / 2.0)
    total = n + m
    ties = float((counts.astype(float) ** 3 - counts).sum())
    variance = n * m / 12.0 * ((total + 1) - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = (abs(u - n * m / 2.0) - 0.5) / math.sqrt(variance)
    return min(1.0, math.erfc(z / math.sqrt(2.0)))


def decide(
    estimate: RatioEstimate,
    p_value: float,
    *,
    minimal_effect: float,
    level: float,
) -> Decision:
    """Decide whether the candidate differs from the baseline.

    A difference is at least ``minimal_effect``, its confidence interval leaves out 1, and the rank
    test does not put it down to chance either.

    Args:
        estimate: The ratio candidate ÷ baseline of a cost: above 1 is slower.
        p_value: Of the rank test.
        minimal_effect: Smallest difference that matters, e.g. 0.05 for 5 %.
        level: Of the rank test.
    """
    if p_value >= level:
        return Decision.NO_DIFFERENCE
    if estimate.ratio >= 1.0 + minimal_effect and estimate.low > 1.0:
        return Decision.SLOWER
    if estimate.ratio <= 1.0 / (1.0 + minimal_effect) and estimate.high < 1.0:
        return Decision.FASTER
    return Decision.NO_DIFFERENCE


def _positive(
    values: Sequence[float] | NDArray[np.float64], name: str, least: int = 8
) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < least:
        msg = f"{name}: shape {array.shape}, but should be a list of at least {least} samples"
        raise StatisticsError(msg)
    if not (np.isfinite(array) & (array > 0)).all():
        msg = (
            f"{name}: samples should be finite and above 0, and are not: a clock too coarse for "
            "these runs measures 0; time more runs at once"
        )
        raise StatisticsError(msg)
    return array


def _matching(
    candidate: Sequence[float] | NDArray[np.float64],
    baseline: Sequence[float] | NDArray[np.float64],
) -> NDArray[np.float64]:
    if len(candidate) != len(baseline):
        msg = f"{len(candidate)} samples of the candidate, {len(baseline)} of the baseline"
        raise StatisticsError(msg)
    return _positive(baseline, "baseline")
