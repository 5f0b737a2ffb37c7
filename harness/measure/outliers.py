"""Whether one of many is farther from NeMo than chance puts it: a channel, a symbol, a length.

Noise of rounding comes from every layer, so that each channel's is a sum of very many parts. In
decibels such sums spread about as a normal distribution does, by as much as the checkpoint makes
them. So the spread is not a limit, it is measured on the file itself: on the other channels, or on
the swipes, which a fault of one channel or of one length leaves as they are. What is stated is how
probable the farthest one is by chance; benchmarks/results/false_alarms.md counts false alarms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.levels import level

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_A_NORMAL = 1.4826
"""Standard deviation of a normal distribution ÷ its median absolute deviation."""
_EFFICIENCY = 0.37
"""A median absolute deviation of N values is as sure as a standard deviation of 0.37 N."""
_TAIL = 10
"""One of so many swipes, the farthest, show how the others could go on."""
_OF_POWER_DB = 10 / math.log(10)
"""Decibels of a relative change of a power."""
_NO_NUMBER_DB = 200.0


@dataclass(frozen=True, slots=True)
class Farthest:
    """The one of many that is least like the others.

    Attributes:
        index: Which.
        excess_db: How much farther from NeMo it is than the median one.
        usual_db: By how much they differ as a rule: one standard deviation.
        p_value: Probability that the farthest of so many is so far by chance.
    """

    index: int
    excess_db: float
    usual_db: float
    p_value: float

    def sentence(self, name: str) -> str:
        """Return what is said of it under its name."""
        return (
            f"{name}: {self.excess_db:.1f} dB farther from NeMo than the median one, "
            f"±{self.usual_db:.1f} dB is usual"
        )


def farthest(noise_db: NDArray[np.float64], independent: int) -> Farthest:
    """Find the farthest of some that are alike: Student's test, times their number (Bonferroni).

    What is within float32's own rounding is not suspected.

    Args:
        noise_db: (N,) noise ÷ signal of each, in dB; NaN for one that has no signal.
        independent: Inputs that each mean was taken over. The power of a mean over n squares that
            move together has a relative standard deviation of √(2/n): a spread below that says
            nothing.
    """
    given = np.where(np.isposinf(noise_db), _NO_NUMBER_DB, noise_db)
    judged = np.flatnonzero(~np.isnan(given))
    if not len(judged):
        return Farthest(0, 0.0, 0.0, 1.0)
    index = int(judged[np.argmax(given[judged])])
    middle = float(np.median(given[judged]))
    deviation = float(np.median(np.abs(given[judged] - middle)))
    spread = max(_OF_A_NORMAL * deviation, _OF_POWER_DB * math.sqrt(2 / max(independent, 1)))
    excess = float(given[index]) - middle
    if given[index] <= 20 * math.log10(level("float32_noise")) or len(judged) < 2:
        return Farthest(index, excess, spread, 1.0)
    p_value = len(judged) * _student_tail(excess / spread, _EFFICIENCY * (len(judged) - 1))
    return Farthest(index, excess, spread, min(1.0, p_value))


def farthest_length(
    noise_db: NDArray[np.float64],
    frames: NDArray[np.int64],
    swipes_db: NDArray[np.float64],
    swipes_frames: NDArray[np.int64],
) -> Farthest:
    """Find the trace length whose noise real swipes explain least.

    Long lengths are held beside the shorter half of the swipes and short ones beside the longer
    half, so that a fault of long traces does not widen what it is judged by. Noise powers may have
    the tail of a power law, in decibels an exponential one: beyond what one swipe of ten reaches,
    the probability of t dB more, where k swipes go beyond it by s dB together, is (1 + t/s)^-k
    (the predictive distribution of an exponential with an unknown mean), times the number of
    lengths. A mean over fewer frames than the median swipe has scatters more, by the root of their
    ratio.

    Args:
        noise_db: (N,) noise ÷ signal of each length, in dB.
        frames: (N,) how many frames each gives.
        swipes_db: (M,) the same of the swipes.
        swipes_frames: (M,) likewise.
    """
    usual_frames = float(np.median(swipes_frames))
    middle = float(np.median(swipes_db))

    wider = np.maximum(1.0, np.sqrt(usual_frames / np.maximum(frames, 1)))
    excess = (np.nan_to_num(noise_db, nan=_NO_NUMBER_DB) - middle) / wider
    swipes = swipes_db - middle
    long = frames > usual_frames
    halves = swipes[swipes_frames <= usual_frames], swipes[swipes_frames >= usual_frames]
    tails = [_power_law_tail(half, excess) for half in halves]
    p_values = np.where(long, *tails)
    p_values[noise_db <= 20 * math.log10(level("float32_noise"))] = 1.0
    index = int(np.lexsort((-excess, p_values))[0])
    usual = _OF_A_NORMAL * float(np.median(np.abs(swipes)))
    p_value = min(1.0, len(p_values) * float(p_values[index]))
    return Farthest(index, float(noise_db[index]) - middle, usual, p_value)


def _student_tail(value: float, freedom: float) -> float:
    """Return the probability that Student's t is above a value."""
    from scipy.special import stdtr  # type: ignore[import-untyped]  # noqa: PLC0415 - half a second

    return float(stdtr(freedom, -value))


def _power_law_tail(
    sample: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probability of each value, or of a larger one, beside a sample; both in dB."""
    beyond = max(1, len(sample) // _TAIL)
    ordered = np.sort(sample)[::-1]
    if len(sample) <= beyond:
        return np.ones_like(values)
    start = ordered[beyond]
    together = max(float((ordered[:beyond] - start).sum()), 1e-6)
    more = np.maximum(values - start, 0.0)
    start_p = (beyond + 1) / (len(sample) + 1)
    found: NDArray[np.float64] = start_p * (1 + more / together) ** -float(beyond)
    return np.where(more > 0, found, 1.0)
