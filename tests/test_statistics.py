"""Our statistics give SciPy's answers, and the decision rule means what it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.measure.statistics import (
    Decision,
    RatioEstimate,
    StatisticsError,
    bootstrap_ratio,
    decide,
    mann_whitney,
)

times = st.lists(st.floats(min_value=1e-4, max_value=1.0, allow_nan=False), min_size=9, max_size=60)


@given(first=times, second=times)
@settings(max_examples=50, deadline=None)
def test_mann_whitney_is_scipys(first: list[float], second: list[float]) -> None:
    if len(set(first + second)) == 1:
        assert mann_whitney(first, second) == 1.0
        return
    expected = stats.mannwhitneyu(first, second, alternative="two-sided", method="asymptotic")
    assert mann_whitney(first, second) == pytest.approx(expected.pvalue, rel=1e-9)


def test_mann_whitney_counts_ties_like_scipy() -> None:
    first, second = [1, 1, 2, 2, 3, 3, 4, 4, 5, 5], [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7]
    expected = stats.mannwhitneyu(first, second, method="asymptotic").pvalue
    assert mann_whitney(first, second) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", [1.0, 1.1])
def test_the_interval_is_scipys_percentile_bootstrap(shift: float) -> None:
    rng = np.random.default_rng(3)
    common = rng.lognormal(0.0, 0.5, 60)
    baseline = common * rng.lognormal(0.0, 0.03, 60)
    candidate = shift * common * rng.lognormal(0.0, 0.03, 60)
    ours = bootstrap_ratio(candidate, baseline, confidence=0.99, resamples=4000)
    theirs = stats.bootstrap(
        (candidate / baseline,),
        np.median,
        confidence_level=0.99,
        n_resamples=4000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    assert ours.ratio == pytest.approx(np.median(candidate / baseline))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert ours.low < shift < ours.high


def test_what_a_block_has_in_common_cancels() -> None:
    """Twentyfold swings of the machine's speed leave a difference of 10 % exact."""
    speed = np.geomspace(1.0, 20.0, 30)
    estimate = bootstrap_ratio(1.1 * speed, speed, confidence=0.99)
    assert (estimate.ratio, estimate.low, estimate.high) == pytest.approx((1.1, 1.1, 1.1))


def test_the_same_samples_give_the_same_interval() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.lognormal(size=40), rng.lognormal(size=40)
    one, other = (bootstrap_ratio(a, b, confidence=0.99) for _ in range(2))
    assert one == other


@pytest.mark.parametrize(
    ("estimate", "p_value", "expected"),
    [
        (RatioEstimate(1.10, 1.07, 1.13), 1e-6, Decision.SLOWER),
        (RatioEstimate(0.90, 0.87, 0.93), 1e-6, Decision.FASTER),
        # Real, but smaller than what matters.
        (RatioEstimate(1.02, 1.01, 1.03), 1e-6, Decision.NO_DIFFERENCE),
        # Large, but its interval holds 1.
        (RatioEstimate(1.10, 0.98, 1.30), 1e-6, Decision.NO_DIFFERENCE),
        # The rank test sees chance.
        (RatioEstimate(1.10, 1.07, 1.13), 0.5, Decision.NO_DIFFERENCE),
    ],
)
def test_a_difference_has_to_be_large_and_certain(
    estimate: RatioEstimate, p_value: float, expected: Decision
) -> None:
    assert decide(estimate, p_value, minimal_effect=0.05, level=0.05) is expected


@pytest.mark.parametrize(
    ("candidate", "baseline", "message"),
    [
        ([1.0] * 7, [1.0] * 7, "at least 8"),
        ([1.0] * 9, [1.0] * 8, "9 samples of the candidate, 8 of the baseline"),
        ([0.0] * 8, [1.0] * 8, "finite and above 0"),
        ([1.0] * 8, [float("nan")] * 8, "finite and above 0"),
    ],
)
def test_poor_samples_are_an_error(
    candidate: list[float], baseline: list[float], message: str
) -> None:
    with pytest.raises(StatisticsError, match=message):
        bootstrap_ratio(candidate, baseline, confidence=0.99)
