"""Swipes that an INT8 export observes: a manifest's, or gesture-like ones; the sidecar says which.

Noise is never used for a swipe model: activations of a randomly fed encoder have other ranges than
those of swipes, whose accelerations reach 1e6 while positions stay within [0, 1]. All swipes of a
manifest are used: what unbounded activations reach on real swipes is in the tails, and a range that
64 of them reached clips the rest.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from exportgate.artifacts.sidecar import sha256_of
from exportgate.data.features import FEATURE_DIM, feature_spec, featurize
from exportgate.data.manifest import iterate_manifest
from exportgate.data.synthetic import gestures
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SYNTHETIC_SWIPES = 256
"""Without a manifest; their number costs seconds only, and their extremes set the ranges."""


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
        file: Name of the manifest; None for synthetic swipes.
        too_long: Swipes of the manifest that were left out.
    """

    features: Sequence[NDArray[np.float32]]
    source: str
    sha256: str
    max_trace_len: int
    file: str | None = None
    too_long: int = 0

    def describe(self) -> dict[str, Any]:
        """Return what a sidecar says of it."""
        return {
            "source": self.source,
            "file": self.file,
            "sha256": self.sha256,
            "swipes": len(self.features),
            "max_trace_len": self.max_trace_len,
            "feature_spec": feature_spec(),
        }

    def __str__(self) -> str:
        """Return it as a phrase: ``200 swipes of calib.jsonl``."""
        if self.file is None:
            return f"{len(self.features)} synthetic swipes (no --calibration was given)"
        left_out = (
            f"; {self.too_long} longer than {self.max_trace_len} points are left out"
            if self.too_long
            else ""
        )
        return f"{len(self.features)} swipes of {self.file}{left_out}"


class StoredTraces(Sequence["NDArray[np.float32]"]):
    """Features (F, T) of many traces, calculated when they are asked for.

    The traces lie in a mapped file without a name, so that memory does not grow with their number;
    processes that are forked read the same one.
    """

    def __init__(self, traces: Iterable[NDArray[np.float64]]) -> None:
        """Store traces (N, 3) as ``exportgate.data.manifest.Swipe`` has them."""
        lengths = [0]
        with tempfile.TemporaryFile() as file:
            for points in traces:
                file.write(points.astype(np.float64).tobytes())
                lengths.append(len(points))
            file.flush()
            empty = len(lengths) == 1  # which cannot be mapped
            stored = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._points = np.frombuffer(stored, np.float64).reshape(-1, 3)
        ends = np.cumsum(lengths)
        self._spans = np.stack([ends[:-1], ends[1:]], axis=1)

    def spread(self, count: int) -> StoredTraces:
        """Return ``count`` of the traces, spread evenly; they are not copied."""
        found = object.__new__(StoredTraces)
        found._points = self._points
        found._spans = self._spans[np.arange(count) * len(self) // count]
        return found

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[NDArray[np.float32], ...]: ...

    def __getitem__(
        self, index: int | slice
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], ...]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        first, last = map(int, self._spans[range(len(self))[index]])
        return _features(self._points[first:last])

    def __reduce__(self) -> tuple[object, ...]:
        return tuple, (tuple(self),)  # the file has no name to be opened by


def _features(points: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.ascontiguousarray(featurize(points).T)


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


def calibration_of(
    manifest: Path | None, *, swipes: int | None, max_trace_len: int, feature_dim: int
) -> Calibration:
    """Return the swipes to calibrate and check an export with: the user's, or synthetic ones.

    Args:
        manifest: The user's; None for synthetic ones.
        swipes: How many; None for all of the manifest's, or ``SYNTHETIC_SWIPES``.
        max_trace_len: Longest trace that the exported encoder takes.
        feature_dim: Channels that the model expects.

    Raises:
        CalibrationError: See ``calibration_from_manifest``.
        ManifestError: The manifest is malformed.
    """
    if manifest is None:
        return synthetic_calibration(
            swipes=swipes or SYNTHETIC_SWIPES, max_trace_len=max_trace_len, feature_dim=feature_dim
        )
    return calibration_from_manifest(
        manifest, swipes=swipes, max_trace_len=max_trace_len, feature_dim=feature_dim
    )


def synthetic_calibration(*, swipes: int, max_trace_len: int, feature_dim: int) -> Calibration:
    """Make gesture-like swipes over random keys.

    A model of other features than swipes (speech) gets features of their moments instead: smooth
    in time, unit variance, as NeMo's normalised log-mel features are.
    """
    if feature_dim == FEATURE_DIM:
        features = tuple(_features(points[:max_trace_len]) for points in gestures(swipes, seed=0))
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
    path: Path, *, swipes: int | None = None, max_trace_len: int, feature_dim: int
) -> Calibration:
    """Read a manifest's swipes, or ``swipes`` of them, spread evenly over it.

    Args:
        path: Manifest, see ``exportgate.data.manifest``.
        swipes: How many to take; None for all.
        max_trace_len: Longest trace that the exported encoder takes; longer ones are left out.
        feature_dim: Channels that the model expects.

    Raises:
        CalibrationError: Too few swipes fit, or the model does not take this project's features.
        ManifestError: The manifest is malformed.
    """
    if feature_dim != FEATURE_DIM:
        msg = (
            f"{path}: a manifest gives {FEATURE_DIM} feature channels, but the model takes "
            f"{feature_dim}; leave it out, and synthetic features of that many channels are used"
        )
        raise CalibrationError(msg)
    too_long = 0

    def fitting() -> Iterator[NDArray[np.float64]]:
        nonlocal too_long
        for swipe in iterate_manifest(path):
            if len(swipe.points) <= max_trace_len:
                yield swipe.points
            else:
                too_long += 1

    traces = StoredTraces(fitting())
    wanted = len(traces) if swipes is None else swipes
    if wanted < 1 or len(traces) < wanted:
        msg = (
            f"{path}: calibration asks for {max(wanted, 1)} swipes of at most {max_trace_len} "
            f"points, the manifest has {len(traces)}; name fewer, or raise --max_trace_len"
        )
        raise CalibrationError(msg)
    return Calibration(
        traces.spread(wanted), "manifest", sha256_of(path), max_trace_len, path.name, too_long
    )
