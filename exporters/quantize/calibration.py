"""Swipes that an INT8 export observes: a manifest's, or gesture-like ones; the sidecar says which.

Noise is never used for a swipe model: activations of a randomly fed encoder have other ranges than
those of swipes, whose accelerations reach 1e6 while positions stay within [0, 1].
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import sha256_of
from exportgate.data.features import FEATURE_DIM, feature_spec, featurize
from exportgate.data.manifest import read_manifest
from exportgate.data.synthetic import gestures
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.pipeline.options import ExportOptions
    from exportgate.contract import ModelSpec


class CalibrationError(ExportGateError, ValueError):
    """The calibration set is missing, too small or does not fit the model."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Features of the swipes that an export observes.

    Attributes:
        features: One (F, T) float32 array for each swipe.
        source: ``manifest`` or ``synthetic``.
        sha256: Of the manifest, or of the synthetic features.
        max_trace_len: Longer swipes were left out, or cut.
    """

    features: tuple[NDArray[np.float32], ...]
    source: str
    sha256: str
    max_trace_len: int

    def describe(self) -> dict[str, Any]:
        """Return what a sidecar says of it."""
        return {
            "source": self.source,
            "sha256": self.sha256,
            "swipes": len(self.features),
            "max_trace_len": self.max_trace_len,
            "feature_spec": feature_spec(),
        }


def checked_features(
    swipes: Sequence[NDArray[np.float32]] | None, feature_dim: int, longest: int | None = None
) -> Sequence[NDArray[np.float32]]:
    """Return the swipes if an export can be calibrated with them.

    Args:
        swipes: Features.
        feature_dim: Channels that the model expects.
        longest: Largest T that the exported encoder takes; None if it is not asked to take them.

    Raises:
        CalibrationError: There are none, or one is of another shape or type, or not finite.
    """
    if not swipes:
        msg = (
            "quantization needs calibration swipes and there are none; give a manifest of real ones"
        )
        raise CalibrationError(msg)
    for index, swipe in enumerate(swipes):
        fits = swipe.ndim == 2 and swipe.shape[0] == feature_dim and swipe.shape[1] >= 1
        if not fits or (longest is not None and swipe.shape[1] > longest):
            bound = "T >= 1" if longest is None else f"T from 1 to {longest}"
            msg = (
                f"calibration swipe {index} has shape {swipe.shape}, but should have "
                f"({feature_dim}, T) with {bound}"
            )
            raise CalibrationError(msg)
        if swipe.dtype != "float32" or not bool(np.isfinite(swipe).all()):
            msg = f"calibration swipe {index} ({swipe.dtype}) should be finite float32"
            raise CalibrationError(msg)
    return swipes


def calibration_of(options: ExportOptions, spec: ModelSpec) -> Calibration:
    """Return the swipes to calibrate and check an export with: the user's, or synthetic ones."""
    if options.manifest is None:
        return synthetic_calibration(
            swipes=options.calibration_swipes,
            max_trace_len=options.max_trace_len,
            feature_dim=spec.feature_dim,
        )
    return calibration_from_manifest(
        options.manifest,
        swipes=options.calibration_swipes,
        max_trace_len=options.max_trace_len,
        feature_dim=spec.feature_dim,
    )


def synthetic_calibration(*, swipes: int, max_trace_len: int, feature_dim: int) -> Calibration:
    """Make gesture-like swipes over random keys.

    A model of other features than swipes (speech) gets features of their moments instead: smooth
    in time, unit variance, as NeMo's normalised log-mel features are.
    """
    if feature_dim == FEATURE_DIM:
        traces = [points[:max_trace_len] for points in gestures(swipes, seed=0)]
        features = tuple(np.ascontiguousarray(featurize(points).T) for points in traces)
    else:
        features = _smooth_features(swipes, max_trace_len, feature_dim)
    digest = hashlib.sha256(b"".join(item.tobytes() for item in features)).hexdigest()
    return Calibration(features, "synthetic", digest, max_trace_len)


def _smooth_features(
    count: int, max_trace_len: int, feature_dim: int
) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        frames = int(rng.integers(max(1, max_trace_len // 4), max_trace_len + 1))
        noise = rng.normal(size=(feature_dim, frames + 4))
        windows = np.lib.stride_tricks.sliding_window_view(noise, 5, axis=1)
        found.append((windows.mean(axis=2) * np.sqrt(5)).astype(np.float32))
    return tuple(found)


def calibration_from_manifest(
    path: Path, *, swipes: int, max_trace_len: int, feature_dim: int
) -> Calibration:
    """Read ``swipes`` swipes, spread evenly over the manifest.

    Args:
        path: Manifest, see ``exportgate.data.manifest``.
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
    return Calibration(features, "manifest", sha256_of(path), max_trace_len)
