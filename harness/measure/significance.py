"""Whether a file loses against NeMo on the same swipes, or only happens to differ.

Both decode the same swipes, so that only the swipes on which they differ say anything. Of those, a
file that is as good as NeMo wins half by chance: the probability of losing as many or more is the
binomial's tail, exactly (McNemar 1947 for right and wrong words; the sign test for counts such as
edits). Nothing is assumed of the model: one that reads three words of ten is judged like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError
from exportgate.levels import level

if TYPE_CHECKING:
    from collections.abc import Sequence

_POWER = 0.95
"""Share of files with a loss of the stated size that a test would have seen."""


class SignificanceError(ExportGateError, ValueError):
    """Two lists that are not of the same swipes."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """A file beside NeMo, swipe by swipe.

    Attributes:
        swipes: How many were compared.
        worse: Swipes on which the file is worse.
        better: Swipes on which it is better.
    """

    swipes: int
    worse: int
    better: int

    @property
    def p_value(self) -> float:
        """Probability that a file as good as NeMo is worse on so many swipes, or on more."""
        return binomial_tail(self.worse, self.worse + self.better)

    def detectable_share(self, level: float) -> float:
        """Return the smallest share of swipes whose loss a test would see in 95 of 100 files.

        Args:
            level: At which p-value the test fails.
        """
        needed = next(k for k in range(1, 10_000) if binomial_tail(k, k) < level)
        if needed > self.swipes:
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            seen = 1.0 - _binomial_below(needed, self.swipes, middle)
            low, high = (low, middle) if seen >= _POWER else (middle, high)
        return high

    def sentence(self, what: str, level: float) -> str:
        """Say what was lost and what would have been seen, for a reader of the report."""
        found = (
            f"{self.worse} of {self.swipes} swipes with {what} than NeMo, {self.better} the other "
            "way round"
        )
        if not 0 < level < 1:  # nothing gates it
            return found
        share = self.detectable_share(level)
        return f"{found}; a loss on {share:.1%} of the swipes would have been seen in 95 of 100"


def lost_words(ours: Sequence[bool], nemo: Sequence[bool]) -> PairedTest:
    """Compare right and wrong words, in the order of the swipes (McNemar's exact test)."""
    return fewer([float(not right) for right in ours], [float(not right) for right in nemo])


def fewer(ours: Sequence[float], nemo: Sequence[float]) -> PairedTest:
    """Compare counts of which fewer are better, such as edits (sign test; ties say nothing).

    Raises:
        SignificanceError: Not as many on both sides, or none.
    """
    if len(ours) != len(nemo) or not ours:
        msg = f"{len(ours)} swipes beside {len(nemo)} of NeMo, but should be as many, and some"
        raise SignificanceError(msg)
    pairs = list(zip(ours, nemo, strict=True))
    return PairedTest(len(pairs), sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))


def binomial_tail(count: int, trials: int) -> float:
    """Return P(X >= count) of a fair coin thrown so many times, exactly."""
    if count <= 0:
        return 1.0
    # Whole numbers of any size, then one division: no rounding however many swipes there are.
    ways = term = math.comb(trials, count)
    for k in range(count, trials):
        term = term * (trials - k) // (k + 1)
        ways += term
    return ways / (1 << trials)


def share_at_least(count: int, trials: int, share: float) -> float:
    """Return P(X >= count) of ``trials`` draws that hit with probability ``share``."""
    return 1.0 - _binomial_below(count, trials, share)


def _binomial_below(count: int, trials: int, share: float) -> float:
    """Return P(X < count) of ``trials`` draws that hit with probability ``share``."""
    if share >= 1.0:
        return 0.0
    log_rest, log_share = math.log1p(-share), math.log(max(share, 1e-300))
    return sum(
        math.exp(
            math.lgamma(trials + 1)
            - math.lgamma(k + 1)
            - math.lgamma(trials - k + 1)
            + k * log_share
            + (trials - k) * log_rest
        )
        for k in range(count)
    )


def share_above(hits: int, trials: int, chance: float) -> float:
    """Return how far a share is above chance, at its lower bound (Clopper and Pearson 1934).

    Args:
        hits: How many of the trials.
        trials: At least 1.
        chance: What would be reached without knowing anything.
    """
    low, high = 0.0, hits / trials
    tail = level("accuracy_bound_tail")
    for _ in range(50):
        middle = (low + high) / 2
        # The bound is where so many hits or more have the probability of the tail.
        too_low = 1.0 - _binomial_below(hits, trials, middle) < tail
        low, high = (middle, high) if too_low else (low, middle)
    return low - chance
