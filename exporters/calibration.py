"""Swipes that an INT8 export observes: read from a manifest, recorded in the sidecar.

Noise is never used: activations of a randomly fed encoder have other ranges than those of swipes,
whose accelerations reach 1e6 while positions stay within [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.artifact import sha256_of
from exporters.errors import ExportGateError
from exporters.features import FEATURE_DIM, feature_spec, featurize
from exporters.manifest import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class CalibrationError(ExportGateError, ValueError):
    """The calibration set is missing, too small or does not fit the model."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Features of the swipes that an export observes.

    Attributes:
        features: One (F, T) float32 array for each swipe.
        source: ``manifest``.
        sha256: Of the manifest.
    """

    features: tuple[NDArray[np.float32], ...]
    source: str
    sha256: str

    def describe(self) -> dict[str, Any]:
        """Return what a sidecar says of it."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "swipes": len(self.features),
            "feature_spec": feature_spec(),
        }


def calibration_from_manifest(
    path: Path, *, swipes: int, max_trace_len: int, feature_dim: int
) -> Calibration:
    """Read ``swipes`` swipes, spread evenly over the manifest.

    Args:
        path: Manifest, see ``exporters.manifest``.
        swipes: How many to take.
        max_trace_len: Longest trace that the exported encoder takes; longer ones are left out.
        feature_dim: Channels that the model expects.

    Raises:
        CalibrationError: Too few swipes fit, or the model does not take this project's features.
        ManifestError: The manifest is malformed.
    """
    if feature_dim != FEATURE_DIM:
        msg = (
            f"{path}: a manifest gives {FEATURE_DIM} feature channels, but the model takes "
            f"{feature_dim}; it cannot be calibrated with swipes"
        )
        raise CalibrationError(msg)
    fitting = [swipe for swipe in read_manifest(path) if len(swipe.points) <= max_trace_len]
    if swipes < 1 or len(fitting) < swipes:
        msg = (
            f"{path}: calibration asks for {swipes} swipes of at most {max_trace_len} points, "
            f"the manifest has {len(fitting)}; lower --calib_batches or --calib_bs"
        )
        raise CalibrationError(msg)
    chosen = [fitting[index * len(fitting) // swipes] for index in range(swipes)]
    features = tuple(np.ascontiguousarray(featurize(swipe.points).T) for swipe in chosen)
    return Calibration(features, "manifest", sha256_of(path))
