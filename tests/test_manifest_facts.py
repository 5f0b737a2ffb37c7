"""What a manifest can show is counted by what differs, and named by line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exportgate.data.manifest import Swipe, lines_text, read_manifest, write_manifest
from exportgate.data.manifest_facts import distinct, manifest_facts, shared_lines, too_long
from exportgate.data.synthetic import generate

if TYPE_CHECKING:
    from pathlib import Path

LABELS = ("<blank>", "'", *"abcdefghijklmnopqrstuvwxyz", "<unk>")


@pytest.fixture(scope="module")
def swipes() -> list[Swipe]:
    words = ["the", "cat", "the", "don't"]
    traces = generate(words, np.random.default_rng(5))
    pairs = zip(words, traces, strict=True)
    return [Swipe(word, trace, line) for line, (word, trace) in enumerate(pairs, 1)]


def test_equal_swipes_count_once(swipes: list[Swipe]) -> None:
    again = [replace(swipe, line=swipe.line + 4) for swipe in swipes]
    assert distinct([*swipes, *again, *again]) == swipes
    other_word = replace(swipes[0], word="them")
    assert len(distinct([*swipes, other_word])) == 5
    moved = replace(swipes[0], points=swipes[0].points + np.array([0.001, 0, 0]))
    later = replace(swipes[0], points=swipes[0].points * [1, 1, 1.01])
    assert len(distinct([*swipes, moved, later])) == 6


def test_facts(swipes: list[Swipe]) -> None:
    facts = manifest_facts([*swipes, *swipes], LABELS)
    lengths = [len(swipe.points) for swipe in swipes]
    assert (facts.swipes, facts.distinct_swipes, facts.distinct_words) == (8, 4, 3)
    assert facts.unexercised_labels == tuple("bfgijklmpqrsuvwxyz")
    assert facts.unwritable_lines == ()
    assert (facts.shortest_points, facts.longest_points) == (min(lengths), max(lengths))
    assert facts.median_points == np.median(lengths)
    assert facts.distinct_lengths == len(set(lengths))


def test_labels_of_several_characters_and_words_that_none_writes(swipes: list[Swipe]) -> None:
    pieces = ("<unk>", "▁th", "▁", "th", "at", "e", "c", "on", "▁e")
    facts = manifest_facts(swipes, pieces)
    assert facts.unexercised_labels == ("▁e",)
    assert facts.unwritable_lines == (4,)
    capital = [replace(swipes[0], word="The"), *swipes[1:]]
    assert manifest_facts(capital, LABELS).unwritable_lines == (1,)
    assert manifest_facts(capital).unwritable_lines == ()


def test_swipes_of_two_manifests_are_found_by_their_traces(
    swipes: list[Swipe], tmp_path: Path
) -> None:
    fine = [replace(swipe, points=swipe.points + np.array([3.3e-7, 0, 0])) for swipe in swipes]
    write_manifest(tmp_path / "a.jsonl", [*fine[2:], fine[0]])
    # Its clock and its word's case differ; the finger's way is the same.
    copy = replace(swipes[0], word="The", points=swipes[0].points + np.array([0, 0, 777]))
    write_manifest(tmp_path / "b.jsonl", [swipes[1], copy])
    a, b = read_manifest(tmp_path / "a.jsonl"), read_manifest(tmp_path / "b.jsonl")
    assert shared_lines(a, b) == [(3, 2)]
    assert shared_lines(b, a) == [(2, 3)]
    assert shared_lines(a, []) == []


def test_too_long_swipes_keep_their_lines(swipes: list[Swipe]) -> None:
    longest = max(len(swipe.points) for swipe in swipes)
    assert too_long(swipes, longest) == []
    found = too_long(swipes, longest - 1)
    assert [len(swipe.points) for swipe in found] == [longest]
    assert swipes[found[0].line - 1] is found[0]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ([7], "line 7"),
        ([3, 5], "lines 3, 5"),
        (list(range(1, 9)), "lines 1, 2, 3, 4, 5 and 3 more"),
    ],
)
def test_lines_in_a_message(lines: list[int], text: str) -> None:
    assert lines_text(lines) == text
