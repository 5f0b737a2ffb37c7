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
_SHIFT = 0.02
"""Shift of y that is noise of the fit below which it is left out."""
_SCATTERED = 0.2
"""Median distance of touches from the middle of those for the same letter, in keyboard widths,
above which they are of no layout: on any keyboard it is that of a finger, at random it is 0.3."""
_SAME_LETTER = 5
_ON = 0.09
"""Median distance that a finger keeps on a keyboard whose rows may be staggered."""


def scatter_problems(swipes: Sequence[Swipe]) -> list[str]:
    """Return a sentence if words of the same first letter begin all over the keyboard.

    That is so on no layout: two files were joined line by line and one of them lacks a line, or
    one was sorted.
    """
    touches: dict[str, list[NDArray[np.float64]]] = {}
    for swipe in swipes:
        for place in (0, -1):
            touches.setdefault(swipe.word.lower()[place], []).append(swipe.points[place, :2])
    groups = [np.array(group) for group in touches.values() if len(group) >= _SAME_LETTER]
    if sum(map(len, groups)) < 2 * _FEW_WORDS:
        return []
    distances = [np.hypot(*(group - np.median(group, axis=0)).T) for group in groups]
    scatter = float(np.median(np.concatenate(distances)))
    if scatter <= _SCATTERED:
        return []
    sentence = (
        f"swipes for the same letter begin or end {scatter:.2f} keyboard widths apart, as if at "
        "random: the words belong to other swipes; join words and traces again"
    )
    return [sentence]


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
    slope, shift = line = _line(y, keys[:, 1])
    return [
        ("x and y seem swapped: exchange the two", np.column_stack([y, x])),
        ("y seems to point upwards: write 1 - y", np.column_stack([x, 1 - y])),
        ("x seems to run from the right: write 1 - x", np.column_stack([1 - x, y])),
        ("both axes seem turned round: write 1 - x and 1 - y", 1 - touched),
        (
            f"y seems to be in another unit than keyboard heights: write about {_formula(*line)}",
            np.column_stack([x, slope * y + shift]),
        ),
    ]


def _formula(slope: float, shift: float) -> str:
    return f"{slope:.2g} * y" + (f" {shift:+.2g}" if abs(shift) >= _SHIFT else "")


def _line(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and shift of the least-squares line; the identity where there is none."""
    if np.ptp(found) == 0:
        return 1.0, 0.0
    slope, shift = np.polyfit(found, wanted, 1)
    return float(slope), float(shift)


def _miss(touched: NDArray[np.float64], keys: NDArray[np.float64]) -> float:
    return float(np.median(np.hypot(*(touched - keys).T)))
