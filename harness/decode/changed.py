"""Swipes whose word changed: both words, and where on the trace the tokens part."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.contract import ModelSpec
    from exportgate.data.manifest import Swipe
    from harness.decode.greedy import Hypothesis

MOST = 12
"""Swipes that are kept of a file: a page shows no more."""


def changed_words(
    swipes: Sequence[Swipe],
    nemo: Sequence[Hypothesis],
    ours: Sequence[Hypothesis],
    spec: ModelSpec,
    most: int = MOST,
) -> list[dict[str, Any]]:
    """Return what a picture of each swipe is drawn from, words lost first.

    Args:
        swipes: The manifest's.
        nemo: What NeMo decodes them as.
        ours: What a file decodes them as.
        spec: Labels, and how many points go into a frame.
        most: How many to return at most.

    Returns:
        ``line`` in the manifest, ``word`` that was meant, ``ours``, ``nemo``, ``frame`` at which
        the tokens part, ``fraction`` of the trace there, and the trace ``x``, ``y``.
    """
    found = []
    for swipe, theirs, mine in zip(swipes, nemo, ours, strict=True):
        words = theirs.text(spec.labels), mine.text(spec.labels)
        if words[0] == words[1]:
            continue
        frame = first_difference(theirs, mine)
        lost = words[0] == swipe.word
        gained = words[1] == swipe.word
        found.append((0 if lost else 1 if gained else 2, _row(swipe, words, frame, spec)))
    return [row for _, row in sorted(found, key=lambda item: item[0])[:most]]


def first_difference(a: Hypothesis, b: Hypothesis) -> int:
    """Return the first frame at which one emits what the other does not."""
    pairs = zip_longest(zip(a.frames, a.tokens, strict=True), zip(b.frames, b.tokens, strict=True))
    for left, right in pairs:
        if left != right:
            return min(side[0] for side in (left, right) if side is not None)
    return 0


def _row(swipe: Swipe, words: tuple[str, str], frame: int, spec: ModelSpec) -> dict[str, Any]:
    middle = (frame + 0.5) * spec.subsampling_factor / len(swipe.points)
    return {
        "line": swipe.line,
        "word": swipe.word,
        "ours": words[1],
        "nemo": words[0],
        "frame": frame,
        "fraction": round(min(1.0, middle), 4),
        "x": [round(float(x), 3) for x in swipe.points[:, 0]],
        "y": [round(float(y), 3) for y in swipe.points[:, 1]],
    }
