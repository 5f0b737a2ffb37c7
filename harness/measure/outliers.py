"""Whether one of many is farther from NeMo than chance puts it: a channel, a symbol, a length.

How much the noise of rounding differs between channels depends on the checkpoint. So that is no
limit, it is measured on the file itself: on the other channels, or on the swipes, which a fault of
one channel or of one length leaves as they are. What is stated is how probable the farthest one is
by chance, and benchmarks/results/false_alarms.md counts whether that is true:

* A channel of an encoder sums up the noise of all layers. In decibels such sums spread about as a
  normal distribution does.
* Symbols differ: a logit is one row of one matrix, and rows of rare symbols are unlike the others.
  Powers of their noise may have the tail of a power law, which in decibels is exponential, and so
  may those of single swipes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from exportgate.levels import level

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OF_A_NORMAL = 1.4826
"""Standard deviation of a normal distribution ÷ its median absolute deviation."""
_NORMAL_EFFICIENCY, _EXPONENTIAL_EFFICIENCY = 0.37, 0.48
"""Of N values, the median deviation tells the width as surely as all deviations of so many times N
do; 0.48 is the square of ln 2."""
_NO_SPREAD_DB = 1e-6
"""Where all are equal."""
_TAIL = 10
"""One of so many swipes, the farthest, show how the others could go on."""
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


def farthest(noise_db: NDArray[np.float64], independent: int, *, normal: bool) -> Farthest:
    """Find the farthest of some that are alike, and how probable it is by chance.

    Two things may explain it, how the others spread, and that so few inputs were taken: it is as
    probable as the better explanation says, times the number of those it is the farthest of. What
    is within float32's own rounding is not suspected.

    Args:
        noise_db: (N,) noise ÷ signal of each, in dB; NaN for one that has no signal.
        independent: Inputs that each power is the mean of. All of an input's values may move
            together, so that it is one square, and the mean of n has a chi-square distribution.
        normal: Whether the others spread normally; if not, the tail is exponential.
    """
    given = np.where(np.isposinf(noise_db), _NO_NUMBER_DB, noise_db)
    judged = given[~np.isnan(given)]
    if len(judged) < 2:
        return Farthest(0, 0.0, 0.0, 1.0)
    index = int(np.nanargmax(given))
    middle = float(np.median(judged))
    deviation = float(np.median(np.abs(judged - middle)))
    if not normal:
        # Half of what is above the median; of a tail on this side only, the other half says less.
        deviation = max(deviation, float(np.quantile(judged, 0.75)) - middle)
    excess = float(given[index]) - middle
    found = Farthest(index, excess, _OF_A_NORMAL * deviation, 1.0)
    if excess <= 0 or given[index] <= 20 * math.log10(level("float32_noise")):
        return found
    spread = _normal_tail if normal else _exponential_tail
    explained = max(
        spread(excess / max(deviation, _NO_SPREAD_DB), len(judged)),
        _mean_of_squares_tail(10 ** (excess / 10), independent),
    )
    return replace(found, p_value=min(1.0, len(judged) * explained))


@dataclass(frozen=True, slots=True)
class Shifted:
    """The one of many whose error has a mean that is least like the others'.

    Attributes:
        index: Which.
        shift: Its mean error, beside the median one's.
        usual: By how much they differ as a rule: one standard deviation.
        p_value: Probability that the one most shifted of so many is so far by chance.
    """

    index: int
    shift: float
    usual: float
    p_value: float

    def sentence(self, name: str, unit: str) -> str:
        """Return what is said of it under its name."""
        return f"{name}: {self.shift:+.2g} {unit} on average, ±{self.usual:.2g} is usual"


def most_shifted(errors: NDArray[np.float64], least: float) -> Shifted:
    """Find the one whose errors are shifted, as by a wrong bias, and how probable that is.

    Rounding of weights shifts too, by more where an error scatters more: each mean is divided by
    its own scatter. Of what remains the tail is taken to be exponential.

    Args:
        errors: (N, S) of each input, for each of some that are alike.
        least: Shifts below it are not suspected.
    """
    means = errors.mean(axis=0)
    if errors.shape[1] < 2 or not np.isfinite(means).all():
        return Shifted(0, 0.0, 0.0, 1.0)  # no number at all is another gate's
    shifts = means - np.median(means)
    relative = shifts / np.maximum(errors.std(axis=0), least)
    sizes = np.abs(relative - np.median(relative))
    index = int(sizes.argmax())
    usual = _OF_A_NORMAL * float(np.median(np.abs(shifts)))
    found = Shifted(index, float(shifts[index]), usual, 1.0)
    if abs(found.shift) <= least:
        return found
    # Either side may be far: twice the tail.
    deviations = float(sizes[index]) / max(float(np.median(sizes)), _NO_SPREAD_DB)
    p_value = 2 * _exponential_tail(deviations, len(sizes))
    return replace(found, p_value=min(1.0, len(sizes) * p_value))


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


def _normal_tail(deviations: float, count: int) -> float:
    """Return how probable an excess is, in median deviations of ``count`` normal values.

    The width was measured on them: Student's distribution.
    """
    from scipy.special import stdtr  # noqa: PLC0415 - half a second

    freedom = _NORMAL_EFFICIENCY * (count - 1)
    return float(stdtr(freedom, -deviations / _OF_A_NORMAL))


def _exponential_tail(deviations: float, count: int) -> float:
    """Return how probable an excess is, in median deviations of ``count`` values.

    Half of an exponential's values deviate by less than ln 2 of its mean. That mean was measured,
    which makes the tail a little heavier than an exponential one.
    """
    known = _EXPONENTIAL_EFFICIENCY * count
    return float((1 + deviations * math.log(2) / known) ** -known / 2)


def _mean_of_squares_tail(ratio: float, count: int) -> float:
    """Return how probable it is that a mean of squares is so many times its own median."""
    from scipy.special import chdtrc  # noqa: PLC0415 - as above

    number = max(count, 1)
    median = number * (1 - 2 / (9 * number)) ** 3
    return float(chdtrc(number, ratio * median))


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
