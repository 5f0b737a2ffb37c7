"""All swipes that fit the model calibrate an export, and no others."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exporters.quantize.calibration import (
    SYNTHETIC_SWIPES,
    CalibrationError,
    StoredTraces,
    calibration_of,
    checked_features,
)
from exportgate.artifacts.sidecar import sha256_of
from exportgate.data.features import featurize
from exportgate.data.manifest import Swipe, read_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

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


TRACES = [np.stack([np.linspace(0, 1, n)] * 2 + [np.arange(n) * 8.0], axis=1) for n in (5, 9, 3, 7)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "calib.jsonl"
    write_manifest(path, [Swipe("hi", trace) for trace in TRACES])
    return path


def test_all_swipes_of_a_manifest_are_used(manifest: Path) -> None:
    found = calibration_of(manifest, swipes=None, max_trace_len=9, feature_dim=37)
    assert [item.shape for item in found.features] == [(37, n) for n in (5, 9, 3, 7)]
    for item, swipe in zip(found.features, read_manifest(manifest), strict=True):
        assert np.array_equal(item, featurize(swipe.points).T)
    assert str(found) == "4 swipes of calib.jsonl"
    described = found.describe()
    assert (described["source"], described["file"], described["swipes"]) == (
        "manifest",
        "calib.jsonl",
        4,
    )
    assert described["sha256"] == sha256_of(manifest)


def test_swipes_that_are_too_long_are_left_out_and_counted(manifest: Path) -> None:
    found = calibration_of(manifest, swipes=None, max_trace_len=8, feature_dim=37)
    assert [item.shape[1] for item in found.features] == [5, 3, 7]
    assert str(found) == "3 swipes of calib.jsonl; 1 longer than 8 points are left out"


def test_fewer_swipes_are_spread_over_the_manifest(manifest: Path) -> None:
    found = calibration_of(manifest, swipes=2, max_trace_len=9, feature_dim=37)
    assert [item.shape[1] for item in found.features] == [5, 3]


@pytest.mark.parametrize(
    ("swipes", "longest", "message"),
    [(5, 9, "asks for 5 swipes .* has 4"), (None, 2, "asks for 1 swipes of at most 2 .* has 0")],
)
def test_too_few_swipes_are_refused(
    manifest: Path, swipes: int | None, longest: int, message: str
) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibration_of(manifest, swipes=swipes, max_trace_len=longest, feature_dim=37)


def test_without_a_manifest_swipes_are_synthetic_and_say_so() -> None:
    found = calibration_of(None, swipes=None, max_trace_len=50, feature_dim=37)
    assert len(found.features) == SYNTHETIC_SWIPES
    assert max(item.shape[1] for item in found.features) == 50
    described = found.describe()
    assert (described["source"], described["file"]) == ("synthetic", None)
    assert str(found) == "256 synthetic swipes (no --calibration was given)"
    again = calibration_of(None, swipes=None, max_trace_len=50, feature_dim=37)
    assert again.sha256 == found.sha256


def test_stored_traces_are_a_sequence_that_other_processes_can_have() -> None:
    stored = StoredTraces(TRACES)
    assert [item.shape[1] for item in stored[1:]] == [9, 3, 7]
    assert stored[-1].shape == (37, 7)
    with pytest.raises(IndexError):
        stored[4]
    sent = pickle.loads(pickle.dumps(stored))  # noqa: S301 - our own
    assert isinstance(sent, tuple)
    assert all(np.array_equal(a, b) for a, b in zip(sent, stored, strict=True))


def test_memory_does_not_grow_with_the_number_of_swipes() -> None:
    def observed(count: int) -> int:
        tracemalloc.start()
        for item in StoredTraces(TRACES[1] for _ in range(count)):
            assert item.shape == (37, 9)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    few, many = observed(50), observed(2000)
    assert many - few < 0.2 * 1950 * TRACES[1].nbytes  # two numbers for each
