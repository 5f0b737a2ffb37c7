"""Only swipes that fit the model calibrate an export."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from exporters.quantize.calibration import CalibrationError, checked_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOOD = np.zeros((37, 9), np.float32)


@pytest.mark.parametrize("missing", [None, ()])
def test_no_calibration_is_refused(missing: tuple[()] | None) -> None:
    with pytest.raises(CalibrationError, match="needs calibration swipes"):
        checked_features(missing, 37)


@pytest.mark.parametrize(
    ("swipe", "message"),
    [
        (np.zeros((36, 9), np.float32), "has shape"),
        (np.zeros((37, 0), np.float32), "has shape"),
        (np.zeros((37,), np.float32), "has shape"),
        (np.zeros((37, 41), np.float32), "T from 1 to 40"),
        (np.zeros((37, 9), np.float64), "finite float32"),
        (np.full((37, 9), np.nan, np.float32), "finite float32"),
        (np.full((37, 9), np.inf, np.float32), "finite float32"),
    ],
)
def test_calibration_that_does_not_fit_is_refused(swipe: NDArray[np.float32], message: str) -> None:
    with pytest.raises(CalibrationError, match=f"swipe 1 .*{message}"):
        checked_features((GOOD, swipe), 37, longest=40)


def test_swipes_that_fit_are_returned() -> None:
    longer = np.zeros((37, 41), np.float32)
    assert checked_features((GOOD, longer), 37) == (GOOD, longer)
