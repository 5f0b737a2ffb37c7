"""Whether swipes begin and end on the keys of their words, or would with their axes changed.

Swapped or flipped axes are numbers between 0 and 1 like any others, and every word is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.features import KEY_CENTRES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.data.manifest import Swipe

_FEW_WORDS = 20
"""Words that begin and end with a letter of the keyboard below which nothing is said."""
_OFF = 0.15
"""Median distance from the key, in keyboard widths, that no finger and no stagger of rows makes."""
_ON = 0.09
"""Median distance that a finger keeps on a keyboard whose rows may be staggered."""


def layout_problems(swipes: Sequence[Swipe]) -> list[str]:
    """Return a sentence if swipes miss their words' keys and a change of axes would mend that.

    Other layouts than the features' own miss them with every change, and nothing is said.
    """
    aimed = [
        (swipe.points[place, :2], KEY_CENTRES[swipe.word.lower()[place]])
        for swipe in swipes
        if {swipe.word.lower()[0], swipe.word.lower()[-1]} <= KEY_CENTRES.keys()
        for place in (0, -1)
    ]
    if len(aimed) < 2 * _FEW_WORDS:
        return []
    touched = np.array([touch for touch, _ in aimed])
    keys = np.array([key for _, key in aimed])
    now = _miss(touched, keys)
    if now < _OFF:
        return []
    after, what = min((_miss(changed, keys), what) for what, changed in _changes(touched, keys))
    if after > _ON:
        return []
    sentence = (
        f"swipes begin and end {now:.2f} keyboard widths from the keys of their words; "
        f"{what} (then it is {after:.2f})"
    )
    return [sentence]


def _changes(
    touched: NDArray[np.float64], keys: NDArray[np.float64]
) -> list[tuple[str, NDArray[np.float64]]]:
    x, y = touched.T
    slope, shift = _line(y, keys[:, 1])
    return [
        ("x and y seem swapped: exchange the two", np.column_stack([y, x])),
        ("y seems to point upwards: write 1 - y", np.column_stack([x, 1 - y])),
        ("x seems to run from the right: write 1 - x", np.column_stack([1 - x, y])),
        ("both axes seem turned round: write 1 - x and 1 - y", 1 - touched),
        (
            f"y seems to be in no keyboard heights: write about {slope:.2g} * y {shift:+.2g}",
            np.column_stack([x, slope * y + shift]),
        ),
    ]


def _line(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and shift of the least-squares line; the identity where there is none."""
    if np.ptp(found) == 0:
        return 1.0, 0.0
    slope, shift = np.polyfit(found, wanted, 1)
    return float(slope), float(shift)


def _miss(touched: NDArray[np.float64], keys: NDArray[np.float64]) -> float:
    return float(np.median(np.hypot(*(touched - keys).T)))
