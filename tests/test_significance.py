"""The paired tests are SciPy's, and what they promise to see they see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from harness.measure.significance import (
    PairedTest,
    SignificanceError,
    binomial_tail,
    fewer,
    lost_words,
)


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_tail_is_scipys(worse: int, better: int) -> None:
    if worse + better:
        wanted = binomtest(worse, worse + better, 0.5, alternative="greater").pvalue
        assert binomial_tail(worse, worse + better) == pytest.approx(wanted, rel=1e-9)


def test_only_swipes_that_differ_count() -> None:
    ours, nemo = [True, False, False, True], [True, True, False, False]
    assert lost_words(ours, nemo) == PairedTest(4, worse=1, better=1)
    assert fewer([0, 3, 1], [0, 1, 2]) == PairedTest(3, worse=1, better=1)
    assert lost_words([True] * 9, [True] * 9).p_value == 1.0


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 2**32))
def test_a_file_that_equals_nemo_is_never_worse(words: list[bool], seed: int) -> None:
    assert lost_words(words, words).p_value == 1.0
    order = np.random.default_rng(seed).permutation(len(words))
    shuffled = lost_words([words[i] for i in order], words)
    assert shuffled.worse == shuffled.better  # as many right words: nothing was lost


def test_what_would_have_been_seen_is_seen() -> None:
    level, swipes = 1e-3, 320
    share = PairedTest(swipes, 0, 0).detectable_share(level)
    rng = np.random.default_rng(0)
    lost = rng.binomial(swipes, share, 4000)
    seen = np.mean([binomial_tail(int(n), int(n)) < level for n in lost])
    assert 0.94 < seen < 0.97
    assert 0.04 < share < 0.06


def test_few_swipes_can_show_nothing() -> None:
    assert PairedTest(5, 5, 0).detectable_share(1e-3) == 1.0


@pytest.mark.parametrize("truth", [0.01, 0.05, 0.3])
def test_false_alarms_are_as_rare_as_promised(truth: float) -> None:
    """Both sides are wrong as often, on other swipes: the worst case of an honest file."""
    rng, level = np.random.default_rng(1), 1e-2
    alarms = 0
    for _ in range(3000):
        ours, nemo = (rng.random(320) > truth for _ in range(2))
        alarms += lost_words(ours.tolist(), nemo.tolist()).p_value < level
    assert alarms / 3000 <= level * 1.5


def test_other_swipes_are_an_error() -> None:
    with pytest.raises(SignificanceError, match="3 swipes beside 2 of NeMo"):
        fewer([1, 2, 3], [1, 2])
