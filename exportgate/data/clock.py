"""Judge a trace's times: milliseconds since the swipe began, or another unit's numbers.

A recording in seconds or in nanoseconds has times that increase like any other, and a model that
reads them decodes a quarter of the words without a word about time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_MS = 60_000.0
"""No finger draws a word for a minute; a slow one takes fifteen seconds."""
_SHORTEST_MS = 20.0
"""No finger passes over a word's keys in a fiftieth of a second."""
_SLOWEST_STEP_MS = 200.0
_FASTEST_STEP_MS = 0.5
"""Half of the step of the fastest screens, 1,000 points a second."""
_FEW_POINTS = 5
"""Fewer points say too little about the clock."""
_MANY_POINTS = 10


def clock_problem(times: NDArray[np.float64]) -> str | None:
    """Return what is wrong with times that should be milliseconds; None if nothing is.

    A rest of the finger is a single long step, and a screen that reports several points at once
    gives steps of 0: both are told from another unit by the mean step and the median step.

    Args:
        times: (N,), never decreasing.
    """
    duration_ms = float(times[-1] - times[0])
    count = len(times)
    median_step_ms = float(np.median(np.diff(times)))
    if duration_ms > LONGEST_MS:
        return (
            f"the swipe lasts {duration_ms:g} ms, expected at most {LONGEST_MS:g}; "
            f"{_larger_unit(median_step_ms)}"
        )
    if count < _FEW_POINTS:
        return None
    if duration_ms == 0:
        return f"all {count} points have one time, expected milliseconds since the swipe began"
    mean_step_ms = duration_ms / (count - 1)
    hasty = count >= _MANY_POINTS and duration_ms < _SHORTEST_MS
    if hasty or mean_step_ms < _FASTEST_STEP_MS:
        return (
            f"{count} points within {duration_ms:g} ms ({mean_step_ms:g} ms a step), which no "
            "screen reports; the times are probably in seconds: multiply them by 1000"
        )
    if median_step_ms > _SLOWEST_STEP_MS:
        return (
            f"{median_step_ms:g} ms between two points, expected at most {_SLOWEST_STEP_MS:g}; "
            f"{_larger_unit(median_step_ms)}"
        )
    return None


def _larger_unit(median_step: float) -> str:
    """Return the unit in which this step would be that of a screen, 0.5 to 200 ms."""
    for unit, factor in (("microseconds", 1e3), ("nanoseconds", 1e6)):
        if _FASTEST_STEP_MS <= median_step / factor <= _SLOWEST_STEP_MS:
            return f"the times are probably in {unit}: divide them by {factor:.0f}"
    return "give milliseconds since the swipe began, or drop the swipe"
