"""What ports of the featurizer get wrong: each mistake gives all channels as such a port would."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.features import (
    CHANNELS,
    FEATURE_DIM,
    KEY_CENTRES,
    WINDOW_POINTS,
    featurize,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Mistake = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _right(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _right_of(np.asarray(points, np.float64).tobytes()).copy()


@lru_cache(maxsize=256)
def _right_of(points: bytes) -> NDArray[np.float64]:
    """Featurize (N, 3) float64: most mistakes start from the same right features."""
    return featurize(np.frombuffer(points).reshape(-1, 3)).astype(np.float64)


def _column(name: str) -> int:
    return CHANNELS.index(name)


def _with(points: NDArray[np.float64], **columns: NDArray[np.float64]) -> NDArray[np.float64]:
    features = _right(points)
    for name, values in columns.items():
        features[:, _column(name)] = values
    return features


def _swapped(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _right(points[:, [1, 0, 2]])


def _upwards(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _right(points * [1, -1, 1] + [0, 1, 0])


def _milliseconds_as_seconds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _right(points * [1, 1, 1000])


def _divided_twice(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _right(points * [1, 1, 1e-3])


def _clipped(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _right(np.column_stack([np.clip(points[:, :2], 0, 1), points[:, 2]]))


def _motion(
    points: NDArray[np.float64], dt_s: NDArray[np.float64], *, first_acceleration: bool = False
) -> NDArray[np.float64]:
    """Return the features with velocities and accelerations over other time steps (N-1,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        velocity = np.zeros((len(points), 2))
        velocity[1:] = np.diff(points[:, :2], axis=0) / dt_s[:, None]
        acceleration = np.zeros_like(velocity)
        acceleration[1:] = np.diff(velocity, axis=0) / dt_s[:, None]
        if not first_acceleration:
            acceleration[1] = 0.0
        speed, size = np.hypot(*velocity.T), np.hypot(*acceleration.T)
    return _with(
        points,
        velocity_x=velocity[:, 0],
        velocity_y=velocity[:, 1],
        speed=speed,
        acceleration_x=acceleration[:, 0],
        acceleration_y=acceleration[:, 1],
        acceleration=size,
    )


def _steps_s(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.diff(points[:, 2]) / 1000.0)


def _unclamped(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _motion(points, _steps_s(points))


def _zero_steps_only(points: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = _steps_s(points)
    return _motion(points, np.where(steps == 0, 1e-3, steps))


def _still_at_equal_times(points: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = _steps_s(points)
    return _motion(points, np.where(steps == 0, np.inf, np.maximum(steps, 1e-3)))


def _tiny_clamp(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _motion(points, np.maximum(_steps_s(points), 1e-6))


def _early_acceleration(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _motion(points, np.maximum(_steps_s(points), 1e-3), first_acceleration=True)


def _sample_deviation(points: NDArray[np.float64]) -> NDArray[np.float64]:
    count = _window_counts(len(points))
    features = _right(points)
    factor = np.sqrt(count / np.maximum(count - 1, 1))
    for name in ("window_std_x", "window_std_y"):
        features[:, _column(name)] *= factor
    return features


def _variance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    features = _right(points)
    squared = {n: features[:, _column(n)] ** 2 for n in ("window_std_x", "window_std_y")}
    return _with(points, **squared)


def _window_counts(count: int) -> NDArray[np.float64]:
    reach, index = WINDOW_POINTS // 2, np.arange(count)
    return np.asarray(
        np.minimum(index + reach, count - 1) - np.maximum(index - reach, 0) + 1, np.float64
    )


def _windows(
    points: NDArray[np.float64], first: int, last: int, *, edge: bool = False
) -> NDArray[np.float64]:
    """Return the features with windows i+first … i+last, cut off or (edge) padded by the ends."""
    rows = []
    for index in range(len(points)):
        places = np.arange(index + first, index + last + 1)
        places = (
            np.clip(places, 0, len(points) - 1)
            if edge
            else places[(places >= 0) & (places < len(points))]
        )
        window = points[places, :2]
        span = window.max(axis=0) - window.min(axis=0)
        rows.append(np.column_stack([window.mean(axis=0), window.std(axis=0), span]).T.reshape(-1))
    names = ("mean_x", "mean_y", "std_x", "std_y", "range_x", "range_y")
    columns = dict(zip((f"window_{n}" for n in names), np.array(rows).T, strict=True))
    return _with(points, **columns)


def _trailing(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _windows(points, 1 - WINDOW_POINTS, 0)


def _edge_padded(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _windows(points, -(WINDOW_POINTS // 2), WINDOW_POINTS // 2, edge=True)


def _unwrapped(points: NDArray[np.float64]) -> NDArray[np.float64]:
    angle = _right(points)[:, _column("angle")]
    heading = np.arctan2(*np.diff(points[:, 1::-1], axis=0).T)
    turn = np.zeros(len(points))
    turn[2:] = angle[2:] - heading[:-1]
    return _with(points, curvature=turn)


def _absolute_curvature(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _with(points, curvature=np.abs(_right(points)[:, _column("curvature")]))


def _angle_of(points: NDArray[np.float64], angle: NDArray[np.float64]) -> NDArray[np.float64]:
    sine, cosine = np.sin(angle), np.cos(angle)
    sine[0] = cosine[0] = 0
    return _with(points, angle=angle, angle_sin=sine, angle_cos=cosine)


def _swapped_arctangent(points: NDArray[np.float64]) -> NDArray[np.float64]:
    features = _right(points)
    return _angle_of(points, np.arctan2(features[:, 3], features[:, 4]))


def _positive_angle(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _angle_of(points, _right(points)[:, _column("angle")] % (2 * np.pi))


def _degrees(points: NDArray[np.float64]) -> NDArray[np.float64]:
    features = _right(points)
    names = ("angle", "curvature")
    return _with(points, **{n: np.degrees(features[:, _column(n)]) for n in names})


def _cosine_at_start(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _with(points, angle_cos=np.cos(_right(points)[:, _column("angle")]))


def _distances(
    points: NDArray[np.float64], centres: NDArray[np.float64], *, squared: bool = False
) -> NDArray[np.float64]:
    distance = np.linalg.norm(points[:, None, :2] - centres, axis=2)
    nearest = np.sort(distance, axis=1)[:, :5] ** (2 if squared else 1)
    return _with(points, **{f"key_distance_{r + 1}": nearest[:, r] for r in range(5)})


_CENTRES = np.array(list(KEY_CENTRES.values()))


def _staggered(points: NDArray[np.float64]) -> NDArray[np.float64]:
    shift = np.array([[0.0], [0.05], [0.15]])[np.round(_CENTRES[:, 1] * 3 - 0.5).astype(int)]
    return _distances(points, _CENTRES + shift * [1, 0])


def _squared_distances(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _distances(points, _CENTRES, squared=True)


def _descending(points: NDArray[np.float64]) -> NDArray[np.float64]:
    features, first = _right(points), _column("key_distance_1")
    features[:, first : first + 5] = features[:, first : first + 5][:, ::-1]
    return features


def _corner_centres(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _distances(points, _CENTRES - [0.05, 1 / 6])


def _progress_over_n(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _with(points, progress=np.arange(len(points)) / len(points))


def _progress_in_time(points: NDArray[np.float64]) -> NDArray[np.float64]:
    since = points[:, 2] - points[0, 2]
    return _with(points, progress=since / max(float(since[-1]), 1e-9))


def _float_seconds(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round the times to float32 seconds before they are subtracted."""
    steps = np.diff((points[:, 2] / 1000.0).astype(np.float32)).astype(np.float64)
    return _motion(points, np.maximum(steps, 1e-3))


def _per_step(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _motion(points, np.ones(len(points) - 1))


def _mean_step(points: NDArray[np.float64]) -> NDArray[np.float64]:
    steps = np.maximum(_steps_s(points), 1e-3)
    return _motion(points, np.full(len(steps), steps.mean()))


def _central(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Difference over both neighbours, as numpy.gradient does."""
    step = np.maximum(_steps_s(points), 1e-3)
    times = np.concatenate([[0.0], np.cumsum(step)])
    velocity = np.gradient(points[:, :2], times, axis=0)
    return _with(
        points,
        velocity_x=velocity[:, 0],
        velocity_y=velocity[:, 1],
        speed=np.hypot(*velocity.T),
    )


def _forward(points: NDArray[np.float64]) -> NDArray[np.float64]:
    right = _right(points)
    ahead = np.concatenate([right[1:], np.zeros((1, right.shape[1]))])
    names = ("velocity_x", "velocity_y", "speed")
    return _with(points, **{n: ahead[:, _column(n)] for n in names})


def _sum_of_sizes(points: NDArray[np.float64]) -> NDArray[np.float64]:
    right = np.abs(_right(points))
    return _with(points, speed=right[:, 3] + right[:, 4], acceleration=right[:, 6] + right[:, 7])


def _change_of_speed(points: NDArray[np.float64]) -> NDArray[np.float64]:
    speed, change = _right(points)[:, _column("speed")], np.zeros(len(points))
    change[2:] = (np.diff(speed) / np.maximum(_steps_s(points), 1e-3))[1:]
    return _with(points, acceleration=change)


def _since_start(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _with(points, t_s=(points[:, 2] - points[0, 2]) / max(float(np.ptp(points[:, 2])), 1e-9))


def _steps_as_time(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _with(points, t_s=np.concatenate([[0.0], _steps_s(points)]))


def _curvature_per_length(points: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.hypot(*np.diff(points[:, :2], axis=0, prepend=points[:1, :2]).T)
    turn = _right(points)[:, _column("curvature")]
    return _with(
        points, curvature=np.divide(turn, length, where=length > 0, out=np.zeros_like(turn))
    )


def _city_blocks(points: NDArray[np.float64]) -> NDArray[np.float64]:
    distance = np.abs(points[:, None, :2] - _CENTRES).sum(axis=2)
    return _ranked(points, distance)


def _in_key_widths(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _ranked(points, np.linalg.norm((points[:, None, :2] - _CENTRES) * [10, 3], axis=2))


def _ranked(points: NDArray[np.float64], distance: NDArray[np.float64]) -> NDArray[np.float64]:
    nearest = np.sort(distance, axis=1)[:, :5]
    return _with(points, **{f"key_distance_{r + 1}": nearest[:, r] for r in range(5)})


def _rounded_centres(digits: int) -> Mistake:
    return lambda points: _distances(points, _CENTRES.round(digits))


def _four_rows(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return _distances(points, _CENTRES * [1, 0.75])


def _progress_of_path(points: NDArray[np.float64]) -> NDArray[np.float64]:
    step = np.hypot(*np.diff(points[:, :2], axis=0, prepend=points[:1, :2]).T)
    return _with(points, progress=np.cumsum(step) / max(float(step.sum()), 1e-9))


def _windows_of(reach: int) -> Mistake:
    return lambda points: _windows(points, -reach, reach)


def _all_zero(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.zeros((len(points), FEATURE_DIM))


MISTAKES: dict[str, Mistake] = {
    "x and y are swapped": _swapped,
    "y points upwards; it should point down, 0 at the top of the keyboard": _upwards,
    "t is taken in milliseconds where seconds are meant": _milliseconds_as_seconds,
    "t is divided by 1000 twice: milliseconds were converted already": _divided_twice,
    "coordinates are clipped to the keyboard; they should not be": _clipped,
    "dt is not clamped: it should be at least 1 ms, also where two times are equal": _unclamped,
    "dt is clamped only where it is 0; below 1 ms it should be 1 ms too": _zero_steps_only,
    "velocity is set to 0 at equal times; dt should be 1 ms there": _still_at_equal_times,
    "dt is clamped to 1 µs; it should be at least 1 ms": _tiny_clamp,
    "acceleration at point 1 should be 0, as at point 0": _early_acceleration,
    "it is the sample standard deviation (n-1); it should be the population's (n)":
        _sample_deviation,
    "it is the variance; it should be the standard deviation": _variance,
    "the window ends at the point (i-4 … i); it should be centred (i-2 … i+2)": _trailing,
    "the window is padded by the first and last point; it should be cut off there": _edge_padded,
    "the angle's change is not wrapped to [-π, π]": _unwrapped,
    "the curvature lost its sign": _absolute_curvature,
    "the arctangent's arguments are swapped: atan2(vy, vx) is meant": _swapped_arctangent,
    "the angle runs from 0 to 2π; it should run from -π to π": _positive_angle,
    "angles are in degrees; they should be in radians": _degrees,
    "the cosine of point 0 should be 0: there is no direction yet": _cosine_at_start,
    "the key rows are staggered; this keyboard's are not": _staggered,
    "distances are squared; take the root": _squared_distances,
    "distances are sorted in descending order; the nearest comes first": _descending,
    "distances are to the keys' upper left corners; their centres are meant": _corner_centres,
    "progress is i/n; it should be i/(n-1)": _progress_over_n,
    "progress is a share of time; it should be a share of points": _progress_in_time,
    "times are rounded to float32 seconds before they are subtracted; subtract milliseconds":
        _float_seconds,
    "velocities are changes a point; divide them by the seconds between the points": _per_step,
    "velocities are divided by the mean time step; each has its own": _mean_step,
    "velocities are differences over both neighbours; point i less point i-1 is meant": _central,
    "velocities look ahead (i+1 less i); point i less point i-1 is meant": _forward,
    "sizes are |x| + |y|; the root of the sum of squares is meant": _sum_of_sizes,
    "it is the change of the speed; the size of the vector of accelerations is meant":
        _change_of_speed,
    "t is a share of the swipe's duration; seconds are meant": _since_start,
    "t is the time since the point before; seconds since the swipe began are meant":
        _steps_as_time,
    "the curvature is divided by the length of the step; it should not be": _curvature_per_length,
    "distances are |x| + |y|; the root of the sum of squares is meant": _city_blocks,
    "distances are in keys; x and y in keyboard units are meant": _in_key_widths,
    "key centres are rounded to 1 decimal; take (row + 0.5) / 3": _rounded_centres(1),
    "key centres are rounded to 2 decimals (0.17); take (row + 0.5) / 3": _rounded_centres(2),
    "key centres are rounded to 3 decimals (0.167); take (row + 0.5) / 3": _rounded_centres(3),
    "the keyboard has four rows of keys here; y in [0, 1] spans the three of letters": _four_rows,
    "progress is a share of the path; it should be a share of points": _progress_of_path,
    "the window has 3 points; it should have 5": _windows_of(1),
    "the window has 7 points; it should have 5": _windows_of(3),
    "the channel is zero everywhere: it was not computed": _all_zero,
}  # fmt: skip
"""What ports get wrong, in words for their authors, and the features that result."""
