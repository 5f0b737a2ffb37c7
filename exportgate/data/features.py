"""A swipe's trace to the 37 channels that the encoder reads, vectorised over points and swipes.

Training, calibration and the keyboard must compute the same numbers: a model fed by another
featurizer loses its accuracy while every file in the release is correct. ``feature_spec`` names
this computation, and each artifact carries that name.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURE_SPEC_VERSION = "swipe37-1"

KEY_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
KEY_CENTRES: dict[str, tuple[float, float]] = {
    key: ((column + 0.5) / 10, (row + 0.5) / 3)
    for row, keys in enumerate(KEY_ROWS)
    for column, key in enumerate(keys)
}
"""Centre of each letter's key in keyboard units; the rows are not staggered."""

NEAREST_KEYS = 5
WINDOW_POINTS = 5
MIN_DT_S = 0.001
"""Shortest time step: touch screens report two points in the same millisecond."""

CHANNELS: tuple[str, ...] = (
    "x",
    "y",
    "t_s",
    "velocity_x",
    "velocity_y",
    "speed",
    "acceleration_x",
    "acceleration_y",
    "acceleration",
    "angle",
    "angle_sin",
    "angle_cos",
    "curvature",
    *(f"key_distance_{rank}" for rank in range(1, NEAREST_KEYS + 1)),
    "progress",
    "is_start",
    "is_end",
    "window_mean_x",
    "window_std_x",
    "window_mean_y",
    "window_std_y",
    "window_range_x",
    "window_range_y",
    *(f"zero_{channel}" for channel in range(27, 37)),
)
"""Channel names in the encoder's order; the last ten are zero, kept for the model's width."""

FEATURE_DIM = len(CHANNELS)

# The rules that the channel names alone leave open, part of the hashed specification.
_RULES = (
    "x, y in keyboard units; t_s = t_ms / 1000",
    "dt = max(t[i] - t[i-1], min_dt_s); velocity[0] = 0; acceleration[0] = acceleration[1] = 0",
    "acceleration[i] = (velocity[i] - velocity[i-1]) / dt[i]",
    "angle = atan2(velocity_y, velocity_x); angle, angle_sin and angle_cos are 0 at point 0",
    "curvature[i] = angle[i] - atan2(dy[i-1], dx[i-1]) wrapped once to [-pi, pi]; 0 at 0 and 1",
    "key_distance: Euclidean distances to the nearest key centres, ascending",
    "progress = i / (n - 1)",
    "window: the points i-2 .. i+2 that exist; population standard deviation; range = max - min",
    "a trace of fewer than 2 points is a row of zeros",
    "computed in float64, rounded to float32",
)


class FeatureError(ExportGateError, ValueError):
    """Points or lengths that cannot be featurized."""


def feature_spec() -> dict[str, str]:
    """Return the name of the computation: ``version`` and ``sha256`` of its specification.

    The hash covers channel names, key centres, window, shortest time step and the rules, so that a
    calibration set or an artifact made with another featurizer is told apart.
    """
    return {
        "version": FEATURE_SPEC_VERSION,
        "sha256": hashlib.sha256(_specification().encode("utf-8")).hexdigest(),
    }


def feature_document() -> dict[str, Any]:
    """Return version, hash and the whole specification, for ports to other languages.

    ``sha256`` is that of ``specification`` as compact JSON with sorted keys.
    """
    return {**feature_spec(), "specification": json.loads(_specification())}


def featurize(points: NDArray[np.float64]) -> NDArray[np.float32]:
    """Featurize one swipe.

    Args:
        points: (N, 3): x and y in keyboard units, t in milliseconds, sorted by t.

    Returns:
        (N, 37) float32; one row of zeros for a trace of fewer than two points.

    Raises:
        FeatureError: The shape is not (N, 3), or a coordinate is NaN or infinite.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        msg = f"points have shape {points.shape}, but should have (N, 3): x, y, t_ms"
        raise FeatureError(msg)
    if len(points) == 0:
        return np.zeros((1, FEATURE_DIM), dtype=np.float32)
    features: NDArray[np.float32] = featurize_batch(points[np.newaxis], np.array([len(points)]))[0]
    return features


def featurize_batch(points: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Featurize padded swipes, each to the same bits as alone.

    Args:
        points: (B, T, 3): x and y in keyboard units, t in milliseconds; padding holds anything.
        lengths: (B,) integers in [0, T]: points of each swipe.

    Returns:
        (B, T, 37) float32; zeros in the padding and for swipes of fewer than two points.

    Raises:
        FeatureError: Shapes do not fit, a length is out of range, or a point is NaN or infinite.
    """
    points, lengths = _checked(points, lengths)
    features = np.zeros((*points.shape[:2], FEATURE_DIM), dtype=np.float32)
    index = np.arange(points.shape[1])
    moves = (index < lengths[:, np.newaxis]) & (lengths >= 2)[:, np.newaxis]
    features[moves] = _featurize_flat(points[moves], np.nonzero(moves)[1], lengths[lengths >= 2])
    return features


def _featurize_flat(
    points: NDArray[np.float64], index: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Featurize traces laid end to end: no padding, and every channel is one contiguous array.

    Args:
        points: (P, 3) the points of all traces.
        index: (P,) each point's place in its trace, from 0.
        lengths: Points of each trace, at least 2; they sum to P.
    """
    x, y, t_ms = points.T.copy()
    last = np.repeat(lengths - 1, lengths)
    columns = [
        x,
        y,
        t_ms / 1000.0,
        *_motion(x, y, t_ms, index),
        *_nearest_key_distances(x, y),
        index / last,
        index == 0,
        index == last,
        *_window_statistics(x, y, index, last),
    ]
    channels = np.zeros((FEATURE_DIM, len(x)), dtype=np.float32)
    for channel, column in zip(channels, columns, strict=False):  # the last ten remain zero
        channel[:] = column
    return channels.T


def _specification() -> str:
    return json.dumps(
        {
            "version": FEATURE_SPEC_VERSION,
            "channels": CHANNELS,
            "key_centres": {key: [f"{x:.12f}", f"{y:.12f}"] for key, (x, y) in KEY_CENTRES.items()},
            "nearest_keys": NEAREST_KEYS,
            "window_points": WINDOW_POINTS,
            "min_dt_s": MIN_DT_S,
            "rules": _RULES,
        },
        sort_keys=True,
        separators=(",", ":"),
    )


def _checked(
    points: NDArray[np.float64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    points, lengths = np.asarray(points, dtype=np.float64), np.asarray(lengths)
    if points.ndim != 3 or points.shape[2] != 3 or lengths.shape != points.shape[:1]:
        msg = (
            f"points have shape {points.shape} and lengths {lengths.shape}, "
            "but should have (B, T, 3) and (B,)"
        )
        raise FeatureError(msg)
    frames = points.shape[1]
    if not np.issubdtype(lengths.dtype, np.integer) or np.any((lengths < 0) | (lengths > frames)):
        msg = f"lengths are {lengths.tolist()}, but should be integers in [0, {frames}]"
        raise FeatureError(msg)
    bad = ~np.isfinite(points).all(axis=2) & (np.arange(frames) < lengths[:, np.newaxis])
    if bad.any():
        swipe, point = np.argwhere(bad)[0]
        msg = (
            f"point {point} of swipe {swipe} is {points[swipe, point].tolist()}, "
            "but should be finite; remove the swipe or repair its recording"
        )
        raise FeatureError(msg)
    return points, lengths


def _motion(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    t_ms: NDArray[np.float64],
    index: NDArray[np.int64],
) -> tuple[NDArray[np.float64], ...]:
    """Return the channels from velocity_x to curvature, each (P,)."""
    dt = np.maximum(_since_previous(t_ms, index >= 1) / 1000.0, MIN_DT_S)
    dx, dy = _since_previous(x, index >= 1), _since_previous(y, index >= 1)
    vx, vy = dx / dt, dy / dt
    ax, ay = _since_previous(vx, index >= 2) / dt, _since_previous(vy, index >= 2) / dt

    angle = np.arctan2(vy, vx)
    sine, cosine = np.sin(angle), np.cos(angle)
    cosine[index == 0] = 0.0  # no direction before the first movement: not even cos(0)

    heading = np.arctan2(dy, dx)
    turn = np.zeros_like(angle)
    turn[1:] = angle[1:] - heading[:-1]
    turn[index < 2] = 0.0
    turn = np.where(turn > np.pi, turn - 2 * np.pi, turn)
    turn = np.where(turn < -np.pi, turn + 2 * np.pi, turn)

    speed, acceleration = np.sqrt(vx**2 + vy**2), np.sqrt(ax**2 + ay**2)
    return vx, vy, speed, ax, ay, acceleration, angle, sine, cosine, turn


def _since_previous(values: NDArray[np.float64], where: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each value less the one before; 0 where ``where`` is false."""
    change = np.zeros_like(values)
    change[1:] = values[1:] - values[:-1]
    change[~where] = 0.0
    return change


def _nearest_key_distances(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Return the distances to the 5 nearest key centres, ascending, each (P,).

    Every key is sorted into the five so far: elementwise over all points, this is several times
    faster than a partition of 26 distances for each point.
    """
    nearest = [np.full_like(x, np.inf) for _ in range(NEAREST_KEYS)]
    larger = np.empty_like(x)
    for key_x, key_y in KEY_CENTRES.values():
        candidate = (x - key_x) ** 2 + (y - key_y) ** 2
        for kept in nearest:
            np.maximum(kept, candidate, out=larger)
            np.minimum(kept, candidate, out=kept)
            candidate, larger = larger, candidate
    return [np.sqrt(squared) for squared in nearest]


def _window_statistics(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    index: NDArray[np.int64],
    last: NDArray[np.int64],
) -> tuple[NDArray[np.float64], ...]:
    """Return the channels from window_mean_x to window_range_y, each (P,)."""
    reach = WINDOW_POINTS // 2
    offsets = range(-reach, reach + 1)
    inside = [(index + offset >= 0) & (index + offset <= last) for offset in offsets]
    mean_x, std_x, range_x = _statistics(x, inside)
    mean_y, std_y, range_y = _statistics(y, inside)
    return mean_x, std_x, mean_y, std_y, range_x, range_y


def _statistics(
    values: NDArray[np.float64], inside: list[NDArray[np.bool_]]
) -> tuple[NDArray[np.float64], ...]:
    """Return mean, standard deviation and range, each (P,), of the neighbours that are inside.

    Neighbours are added one after the other, as a loop over the window adds them: the same bits.
    """
    padded = np.pad(values, len(inside) // 2)
    window = [(ok, padded[shift:][: len(values)]) for shift, ok in enumerate(inside)]
    count, total, squares = np.zeros_like(values), np.zeros_like(values), np.zeros_like(values)
    highest, lowest = np.full_like(values, -np.inf), np.full_like(values, np.inf)
    for ok, neighbour in window:
        count += ok
        total += np.where(ok, neighbour, 0.0)
        np.maximum(highest, np.where(ok, neighbour, -np.inf), out=highest)
        np.minimum(lowest, np.where(ok, neighbour, np.inf), out=lowest)
    mean = total / count
    for ok, neighbour in window:
        squares += np.where(ok, neighbour - mean, 0.0) ** 2
    return mean, np.sqrt(squares / count), highest - lowest
