"""Statistics of two lists of arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measure.compare import SQNR_OF_EQUAL_DB, CompareError, compare


@given(st.floats(1e-6, 1e-1), st.integers(0, 2**32 - 1))
def test_sqnr_of_scaled_output_is_the_formula(error: float, seed: int) -> None:
    reference = np.random.default_rng(seed).normal(size=(4, 7))
    found = compare([reference], [reference * (1 + error)])
    assert found.sqnr_db == pytest.approx(-20 * math.log10(error), abs=1e-4)
    assert found.low_cosine == pytest.approx(1.0)
    assert found.max_abs_error == pytest.approx(np.abs(reference).max() * error)


def test_equal_arrays_have_the_highest_finite_sqnr() -> None:
    found = compare([np.ones((2, 3))], [np.ones((2, 3))])
    assert (found.sqnr_db, found.max_abs_error, found.nonfinite) == (SQNR_OF_EQUAL_DB, 0.0, 0)


def test_the_worst_array_is_named() -> None:
    reference = [np.ones((2, 3))] * 3
    outputs = [np.ones((2, 3)), np.full((2, 3), 2.0), np.full((2, 3), 1.01)]
    found = compare(reference, outputs)
    assert found.worst_index == 1
    assert found.worst_sqnr_db == pytest.approx(0.0)
    assert found.sqnr_db < found.sqnr_each_db[2]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_nonfinite_output_cannot_look_good(bad: float) -> None:
    output = np.ones((2, 3))
    output[1, 1] = bad
    found = compare([np.ones((2, 3))] * 2, [np.ones((2, 3)), output])
    assert found.nonfinite == 1
    assert found.sqnr_db == -SQNR_OF_EQUAL_DB
    assert found.max_abs_error == math.inf
    assert found.low_cosine == -1.0


def test_a_zero_reference_with_noise_is_no_signal() -> None:
    assert compare([np.zeros((2, 2))], [np.ones((2, 2))]).sqnr_db == -SQNR_OF_EQUAL_DB


def test_one_turned_frame_is_seen_by_the_cosine() -> None:
    reference = np.ones((4, 100))
    output = reference.copy()
    output[:, 50] *= -1
    assert compare([reference], [output]).low_cosine == pytest.approx(-1.0)


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(CompareError, match="at least 1"):
        compare([], [])


def test_shapes_must_agree() -> None:
    with pytest.raises(
        CompareError, match=r"output 0 has shape \(3, 2\), but should have \(2, 3\)"
    ):
        compare([np.ones((2, 3))], [np.ones((3, 2))])
