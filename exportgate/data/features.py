"""A swipe's trace to the 37 channels that the encoder reads, vectorised over points and swipes.

Training, calibration and the keyboard must compute the same numbers: a model fed by another
featurizer loses its accuracy while every file in the release is correct. ``feature_spec`` names
this computation, and each artifact carries that name.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

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

_CENTRES_X = np.array([[(column + 0.5) / 10] for column in range(len(KEY_ROWS[0]))])
_CENTRES_Y = np.array([[(row + 0.5) / 3] for row in range(len(KEY_ROWS))])

NEAREST_KEYS = 5
WINDOW_POINTS = 5
_SWIPES_AT_ONCE = 64
"""What is computed of so many stays in a processor's cache."""
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
    if len(points) < 2 or not np.isfinite(points).all():
        alone = points if len(points) else np.zeros((1, 3))
        found: NDArray[np.float32] = featurize_batch(alone[np.newaxis], np.array([len(alone)]))[0]
        return found
    return np.ascontiguousarray(_featurize_flat(points, np.array([len(points)])).T)


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
    moving = np.flatnonzero(lengths >= 2)
    for first in range(0, len(moving), _SWIPES_AT_ONCE):
        rows = moving[first : first + _SWIPES_AT_ONCE]
        some = np.arange(points.shape[1]) < lengths[rows, np.newaxis]
        found = _featurize_flat(points[rows][some], lengths[rows])
        features[rows[np.nonzero(some)[0]], np.nonzero(some)[1]] = np.ascontiguousarray(found.T)
    return features


def _featurize_flat(points: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Featurize traces laid end to end: every channel is one contiguous array.

    Args:
        points: (P, 3) the points of all traces.
        lengths: Points of each trace, at least 2; they sum to P.

    Returns:
        (37, P).
    """
    columns = np.ascontiguousarray(points.T)
    traces = _Traces.of(lengths)
    channels = np.zeros((FEATURE_DIM, len(points)), dtype=np.float32)
    channels[0:2] = columns[:2]
    channels[2] = columns[2] / 1000.0
    _motion(columns, traces, channels[3:13])
    _nearest_key_distances(columns[0], columns[1], channels[13:18])
    channels[18] = traces.places / traces.last
    channels[19, traces.firsts] = 1.0
    channels[20, traces.ends] = 1.0
    _window_statistics(columns[:2], traces, channels[21:27])
    return channels  # the last ten remain zero


class _Traces(NamedTuple):
    """Where traces that are laid end to end begin and end.

    Attributes:
        firsts: Each one's first point.
        seconds: Each one's second point.
        ends: Each one's last point.
        places: (P,) each point's place in its trace, from 0.
        last: The last point's place in each point's trace, (P,); of a single trace one number.
        roomy: Where each point lies if every trace has room for half a window before and behind it.
        windows: Where its window begins then.
        room: Places with that room.
    """

    firsts: Any
    seconds: Any
    ends: Any
    places: NDArray[np.int64]
    last: Any
    roomy: Any
    windows: Any
    room: int

    @classmethod
    def of(cls, lengths: NDArray[np.int64]) -> _Traces:
        reach, count = WINDOW_POINTS // 2, int(lengths.sum())
        places, room = np.arange(count), count + 2 * reach * len(lengths)
        if len(lengths) == 1:  # slices: four times as fast as arrays of one index
            return cls(
                firsts=slice(1),
                seconds=slice(1, 2),
                ends=slice(count - 1, count),
                places=places,
                last=count - 1,
                roomy=slice(reach, -reach),
                windows=slice(None),
                room=room,
            )
        ends = np.cumsum(lengths)
        firsts = ends - lengths
        windows = places + np.repeat(2 * reach * np.arange(len(lengths)), lengths)
        return cls(
            firsts=firsts,
            seconds=firsts + 1,
            ends=ends - 1,
            places=places - np.repeat(firsts, lengths),
            last=np.repeat(lengths - 1, lengths),
            roomy=windows + reach,
            windows=windows,
            room=room,
        )


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


def _motion(columns: NDArray[np.float64], traces: _Traces, out: NDArray[np.float32]) -> None:
    """Fill the channels from velocity_x to curvature, (10, P), from x, y and t_ms, (3, P)."""
    change = _since_previous(columns, traces)
    dt = np.maximum(change[2] / 1000.0, MIN_DT_S)
    # Velocities, then accelerations: (2, 2, P).
    motion = np.empty((2, *change[:2].shape))
    np.divide(change[:2], dt, out=motion[0])
    np.divide(_since_previous(motion[0], traces), dt, out=motion[1])
    motion[1][:, traces.seconds] = 0.0
    out[0:2], out[3:5] = motion[0], motion[1]
    out[2:6:3] = np.sqrt(motion[:, 0] ** 2 + motion[:, 1] ** 2)

    angle = np.arctan2(motion[0, 1], motion[0, 0])
    out[6], out[7], out[8] = angle, np.sin(angle), np.cos(angle)
    out[8, traces.firsts] = 0.0  # no direction before the first movement: not even cos(0)

    turn = np.zeros_like(angle)
    np.subtract(angle[1:], np.arctan2(change[1, :-1], change[0, :-1]), out=turn[1:])
    turn[traces.firsts] = turn[traces.seconds] = 0.0
    np.subtract(turn, 2 * np.pi, out=turn, where=turn > np.pi)
    np.add(turn, 2 * np.pi, out=turn, where=turn < -np.pi)
    out[9] = turn


def _since_previous(values: NDArray[np.float64], traces: _Traces) -> NDArray[np.float64]:
    """Return each value of (K, P) less the one before; 0 where a trace begins."""
    change = np.empty_like(values)
    np.subtract(values[:, 1:], values[:, :-1], out=change[:, 1:])
    change[:, traces.firsts] = 0.0
    return change


def _nearest_key_distances(
    x: NDArray[np.float64], y: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """Fill (5, P) with the distances to the 5 nearest key centres, ascending."""
    across = (x - _CENTRES_X) ** 2
    along = (y - _CENTRES_Y) ** 2
    squared = np.empty((sum(map(len, KEY_ROWS)), len(x)))
    first = 0
    for keys, row in zip(KEY_ROWS, along, strict=True):
        np.add(across[: len(keys)], row, out=squared[first : first + len(keys)])
        first += len(keys)
    # Point by point in memory: numpy sorts such short rows fastest.
    by_point = squared.T.copy()
    by_point.sort(axis=1)
    np.sqrt(by_point.T[:NEAREST_KEYS], out=out, casting="same_kind")


def _window_statistics(xy: NDArray[np.float64], traces: _Traces, out: NDArray[np.float32]) -> None:
    """Fill the channels from window_mean_x to window_range_y, (6, P), from x and y, (2, P).

    Traces are laid out with room between them for what a window has beyond their ends.
    Neighbours are added one after the other, as a loop over the window adds them: the same bits.
    """
    # x, y and whether there is a point: the last row's sum counts them.
    values = np.zeros((3, traces.room))
    values[:2, traces.roomy] = xy
    values[2, traces.roomy] = 1.0
    # x, y, -x and -y: what is not there is no extreme.
    either = np.full((4, traces.room), -np.inf)
    either[:2, traces.roomy] = xy
    either[2:, traces.roomy] = -xy

    window = _windows(values)
    sums = _in_turn(np.add, window)
    count = np.maximum(sums[2], 1.0)  # between traces there may be no point at all
    mean = sums[:2]
    mean /= count
    squares = window[:, :2] - mean
    squares *= window[:, 2:]
    squares *= squares
    variance = _in_turn(np.add, squares)
    variance /= count
    most = _largest(either)
    span = most[:2] + most[2:]
    out[0:3:2] = mean[:, traces.windows]
    out[1:4:2] = np.sqrt(variance[:, traces.windows])
    out[4:6] = span[:, traces.windows]


def _largest(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest value of each window of five of (K, N): (K, N - 4)."""
    two = np.maximum(values[:, :-1], values[:, 1:])
    four = np.maximum(two[:, :-2], two[:, 2:])
    return np.maximum(four[:, :-1], values[:, 4:])


def _windows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (5, K, N - 4) of (K, N): the values as each place of a window sees them."""
    rows, room = values.shape
    shape = (WINDOW_POINTS, rows, room - WINDOW_POINTS + 1)
    return np.lib.stride_tricks.as_strided(values, shape, (values.itemsize, *values.strides))


def _in_turn(function: np.ufunc, parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fold over the first axis, one after the other: numpy's own ``reduce`` may fold otherwise."""
    result: NDArray[np.float64] = function(parts[0], parts[1])
    for part in parts[2:]:
        function(result, part, out=result)
    return result
