"""Other fingers, other screens: swipes of ``exportgate.data.synthetic``, drawn again in a style."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.synthetic import MAX_POINTS, generate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

_HIGHEST_XY = 1.5  # manifests refuse what lies further off


@dataclass(frozen=True, slots=True)
class Style:
    """How swipes differ from the golden ones; the defaults leave them as they are.

    Attributes:
        slowness: Range of a factor on all times; above 1 is slower.
        points: Range of points per swipe that is aimed at; None: as many as were drawn.
        pauses: Highest number of rests on the way.
        pause_s: Range of a rest's duration in seconds.
        noise: Standard deviation of each point's own error, in keyboard units.
        stretch: Factor on the distance from the keyboard's centre; above 1 the outer keys' points
            lie beyond the edge.
        burst: Points that the screen reports in the same millisecond.
        digits: Digits of a coordinate.
    """

    slowness: tuple[float, float] = (1.0, 1.0)
    points: tuple[int, int] | None = None
    pauses: int = 0
    pause_s: tuple[float, float] = (0.1, 0.4)
    noise: float = 0.0
    stretch: float = 1.0
    burst: int = 1
    digits: int = 4

    def draw(self, words: Sequence[str], rng: Generator) -> list[NDArray[np.float64]]:
        """Return a swipe (N, 3) of each lower-case word: x, y, whole milliseconds; N <= 200."""
        return [self._restyle(points, rng) for points in generate(words, rng)]

    def _restyle(self, points: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
        points = self._rest(points, rng)
        points[:, 2] *= rng.uniform(*self.slowness)
        if self.points is not None:
            points = _resample(points, int(rng.integers(*self.points, endpoint=True)), rng)
        xy = 0.5 + (points[:, :2] - 0.5) * self.stretch
        xy += rng.normal(0.0, 1.0, xy.shape) * self.noise
        points[:, :2] = np.round(np.clip(xy, 1.0 - _HIGHEST_XY, _HIGHEST_XY), self.digits)
        heads = np.arange(len(points)) // self.burst * self.burst
        points[:, 2] = np.round(points[heads, 2])
        return points[:MAX_POINTS]

    def _rest(self, points: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
        """Return the swipe with rests: the finger stays on a point, and goes on later."""
        points = points.copy()
        for _ in range(rng.integers(self.pauses, endpoint=True)):
            place = int(rng.integers(1, len(points) - 1))
            rest = points[place] + [0.0, 0.0, 1000.0 * rng.uniform(*self.pause_s)]
            points[place + 1 :, 2] += rest[2] - points[place, 2]
            points = np.insert(points, place + 1, rest, axis=0)
        return points


def _resample(points: NDArray[np.float64], count: int, rng: Generator) -> NDArray[np.float64]:
    """Return ``count`` points at jittered, sorted times between the first and the last."""
    times = points[:, 2]
    ticks = np.arange(count) + np.clip(rng.normal(0.0, 0.1, count), -0.3, 0.3)
    ticks = np.clip(ticks, 0.0, count - 1.0) * (times[-1] / (count - 1))
    return np.stack([np.interp(ticks, times, points[:, axis]) for axis in range(3)], axis=1)
