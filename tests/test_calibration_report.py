"""Distances between sets of swipes, and what an INT8 export loses with few or synthetic ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exportgate.data.features import feature_spec, featurize
from exportgate.data.manifest import read_manifest
from harness.diagnose.calibration_report import (
    CalibrationReportError,
    ChannelDistance,
    CurvePoint,
    curve,
    distances,
    text_of,
)
from harness.inspect.audit import provenance_mismatches
from harness.measure.expected.reference import load
from harness.measure.parity import spread
from tests.test_artifact import artifact

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def features(name: str, count: int) -> list[np.ndarray]:
    swipes = spread(read_manifest(GOLDEN / name), count)
    return [np.ascontiguousarray(featurize(swipe.points).T) for swipe in swipes]


def test_a_set_has_no_distance_from_itself_and_a_shift_has_its_own() -> None:
    mine = features("calib.jsonl", 20)
    assert all(d.wasserstein == d.clipped == 0 for d in distances(mine, mine))
    shifted = [item.copy() for item in mine]
    for item in shifted:
        item[0] += 1.0
    first = distances(mine, shifted)[0]
    assert first.channel == "x"
    sigma = float(np.concatenate(mine, axis=1)[0].std())
    assert first.wasserstein == pytest.approx(1.0 / sigma, rel=1e-4)
    assert first.clipped > 0.5


def test_another_featurizer_is_far_away_and_real_sets_are_near() -> None:
    """Times in milliseconds: the fault that calibrates a model for gestures nobody draws."""
    near = distances(features("calib.jsonl", 100), features("val.jsonl", 100))
    assert near[0].wasserstein < 0.2
    swipes = spread(read_manifest(GOLDEN / "calib.jsonl"), 20)
    wrong = [np.ascontiguousarray(featurize(s.points * [1, 1, 1000]).T) for s in swipes]
    assert distances(wrong, features("val.jsonl", 20))[0].wasserstein > 100


def test_what_cannot_be_compared() -> None:
    with pytest.raises(CalibrationReportError, match="0 calibration and 1 evaluation"):
        distances([], [np.zeros((37, 2), np.float32)])


def test_the_tables() -> None:
    text = text_of([ChannelDistance("x", 0.1, 0.02)], [CurvePoint("manifest", 8, 40.0, 0.9)])
    assert "| x | 0.100 | 2.00% |" in text
    assert "| 8 swipes, manifest | 40.00 | 0.9000 |" in text


def test_a_calibration_set_featurized_otherwise_is_refused(tmp_path: Path) -> None:
    sidecar = artifact(tmp_path / "encoder_int8.onnx")
    spec, other = feature_spec(), {"version": "swipe37-0", "sha256": "0" * 64}
    for featurized, problems in ((spec, 0), (other, 1)):
        claimed = replace(sidecar, feature_spec=spec, calibration={"feature_spec": featurized})
        found = provenance_mismatches(
            sidecar.variant, claimed, sidecar.checkpoint_sha256, sidecar.model, spec
        )
        assert len(found) == problems
        assert all("calibration's features" in problem for problem in found)


@pytest.mark.slow
def test_synthetic_swipes_calibrate_within_3_db_of_real_ones() -> None:
    swipes = spread(read_manifest(GOLDEN / "val.jsonl"), 24)
    evaluation = [np.ascontiguousarray(featurize(swipe.points).T) for swipe in swipes]
    checkpoint = load(GOLDEN / "golden.nemo")
    words = [swipe.word for swipe in swipes]
    real, synthetic = curve(checkpoint, features("calib.jsonl", 64), evaluation, words, [64])
    assert (real.source, synthetic.source) == ("manifest", "synthetic")
    assert real.sqnr_db > 36
    assert synthetic.sqnr_db > real.sqnr_db - 3
    with pytest.raises(CalibrationReportError, match="should be 1 to 24"):
        curve(checkpoint, evaluation, evaluation, words, [25])
