"""What a manifest can show: how many of its swipes differ, what they never exercise."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exportgate.data.manifest import Swipe

_SAME_XY = 1e-4
"""Copies of one swipe may be rounded differently; a tenth of a pixel tells two swipes apart."""


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What a manifest consists of.

    Attributes:
        swipes: Number of swipes.
        distinct_swipes: Number of swipes that differ in word or trace.
        distinct_words: Number of words.
        unexercised_labels: Labels of the vocabulary that occur in no word, in its order; labels in
            angle brackets (``<unk>``) are no text and left out.
        unwritable_lines: Lines of words that hold a character which no label holds.
        shortest_points: Of the shortest trace.
        median_points: Of all traces.
        longest_points: Of the longest trace.
        distinct_lengths: Number of lengths.
    """

    swipes: int
    distinct_swipes: int
    distinct_words: int
    unexercised_labels: tuple[str, ...]
    unwritable_lines: tuple[int, ...]
    shortest_points: int
    median_points: float
    longest_points: int
    distinct_lengths: int


def manifest_facts(swipes: Sequence[Swipe], labels: Sequence[str] = ()) -> ManifestFacts:
    """Return what swipes consist of.

    Args:
        swipes: At least one.
        labels: The vocabulary: characters, or pieces of words where ``▁`` begins a word; none if
            it is not known.
    """
    lengths = [len(swipe.points) for swipe in swipes]
    words = {swipe.word for swipe in swipes}
    texts = [label for label in labels if not (label.startswith("<") and label.endswith(">"))]
    written = {f"▁{word}" for word in words}
    writable = set("".join(texts)) | {" "}  # between two words
    return ManifestFacts(
        swipes=len(swipes),
        distinct_swipes=len(distinct(swipes)),
        distinct_words=len(words),
        unexercised_labels=tuple(t for t in texts if not any(t in word for word in written)),
        unwritable_lines=tuple(
            swipe.line for swipe in swipes if texts and not writable.issuperset(swipe.word)
        ),
        shortest_points=min(lengths),
        median_points=float(np.median(lengths)),
        longest_points=max(lengths),
        distinct_lengths=len(set(lengths)),
    )


def distinct(swipes: Iterable[Swipe]) -> list[Swipe]:
    """Return the first of each set of equal swipes (same word, same trace), in order."""
    kept: dict[bytes, list[Swipe]] = defaultdict(list)
    found = []
    for swipe in swipes:
        alike = kept[_clock_key(swipe)]
        if not any(other.word == swipe.word and _same_trace(other, swipe) for other in alike):
            alike.append(swipe)
            found.append(swipe)
    return found


def shared_lines(one: Iterable[Swipe], other: Iterable[Swipe]) -> list[tuple[int, int]]:
    """Return the lines in two manifests that hold the same trace, whatever word stands beside it.

    A swipe that calibrated a file and then judges it flatters the file.
    """
    traces: dict[bytes, list[Swipe]] = defaultdict(list)
    for swipe in one:
        traces[_clock_key(swipe)].append(swipe)
    return [
        (first.line, swipe.line)
        for swipe in other
        for first in traces.get(_clock_key(swipe), ())
        if _same_trace(first, swipe)
    ]


def too_long(swipes: Iterable[Swipe], bound_points: int) -> list[Swipe]:
    """Return the swipes with more points than the exported encoders take."""
    return [swipe for swipe in swipes if len(swipe.points) > bound_points]


def _clock_key(swipe: Swipe) -> bytes:
    """Return what equal swipes share exactly: the number of points and their whole milliseconds."""
    return np.round(swipe.points[:, 2]).tobytes()


def _same_trace(one: Swipe, other: Swipe) -> bool:
    return bool(np.abs(one.points[:, :2] - other.points[:, :2]).max() <= _SAME_XY)
