"""Statistics of words and letters, held against slow and plain definitions."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.decode.accuracy import (
    AccuracyError,
    Outcome,
    by_group,
    describe_groups,
    edits,
    length_group,
    paired_difference,
    rarity_group,
    speed_groups,
    summarise,
)

texts = st.text("ab", max_size=6)


@cache
def distance(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        distance(a[1:], b[1:]) + (a[0] != b[0]), distance(a[1:], b) + 1, distance(a, b[1:]) + 1
    )


@given(texts, texts)
def test_edits_are_the_levenshtein_distance(wanted: str, found: str) -> None:
    changed = edits(wanted, found)
    assert changed.total == distance(wanted, found)
    assert min(changed.substitutions, changed.deletions, changed.insertions) >= 0
    assert len(wanted) - changed.deletions + changed.insertions == len(found)


def test_a_summary() -> None:
    outcomes = [
        Outcome("hello", ("hello", "hell")),
        Outcome("cat", ("cart", "cat")),
        Outcome("ab", ()),
    ]
    found = summarise(outcomes)
    assert (found.swipes, found.top1, found.top5) == (3, pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert found.character_error_rate == pytest.approx(3 / 10)
    assert found.deletion_rate == pytest.approx(2 / 10)
    assert found.mean_emitted_length == pytest.approx(3)
    assert not Outcome("f", tuple("abcdef")).right_of_top
    with pytest.raises(AccuracyError, match="no outcomes"):
        summarise([])


def test_groups() -> None:
    outcomes = [Outcome("hello", ("hello",)), Outcome("accessibility", ("is",))]
    groups = by_group(outcomes, [length_group(outcome.word) for outcome in outcomes])
    assert describe_groups(groups) == "4-5 letters 1.000 of 1, long (≥ 9 letters) 0.000 of 1"
    assert [length_group("x" * n) for n in (1, 3, 4, 6, 8)] == [
        "1-3 letters", "1-3 letters", "4-5 letters", "6-8 letters", "6-8 letters",
    ]  # fmt: skip
    assert rarity_group(math.log(1e-4)) == "common"
    assert rarity_group(-math.inf) == "rare (< 1e-5)"
    line = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
    traces = [line * [1, 1, ms] for ms in (300.0, 100.0, 200.0)]
    assert speed_groups(traces) == ["slow", "fast", "medium"]


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 99))
def test_an_interval_holds_its_estimate_and_is_zero_for_equals(
    right: list[bool], seed: int
) -> None:
    values = [float(item) for item in right]
    same = paired_difference(values, values)
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    other = np.random.default_rng(seed).permutation(values)
    found = paired_difference(values, list(other))
    assert found.low <= found.estimate + 1e-12
    assert found.estimate <= found.high + 1e-12
    assert found.estimate == pytest.approx(other.mean() - np.mean(values))
    assert found == paired_difference(values, list(other))


def test_the_interval_is_the_normal_one_for_many_swipes() -> None:
    rng = np.random.default_rng(0)
    baseline, candidate = (rng.random(2000) < 0.95).astype(float), np.zeros(2000)
    candidate[:] = baseline
    candidate[rng.random(2000) < 0.1] = 0.0
    lost = baseline - candidate
    found = paired_difference(list(candidate), list(baseline))
    half = 1.96 * lost.std() / math.sqrt(2000)
    assert found.low == pytest.approx(lost.mean() - half, abs=1e-3)
    assert found.high == pytest.approx(lost.mean() + half, abs=1e-3)
    # Paired: unpaired intervals would be wider, for most swipes are right on both sides.
    unpaired = 1.96 * math.sqrt((baseline.var() + candidate.var()) / 2000)
    assert found.high - found.low < 1.9 * unpaired


def test_unequal_numbers_of_swipes_are_an_error() -> None:
    with pytest.raises(AccuracyError, match="2 swipes against 1"):
        paired_difference([1.0, 0.0], [1.0])
    with pytest.raises(AccuracyError, match="0 swipes"):
        paired_difference([], [])
