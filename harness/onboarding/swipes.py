"""Which swipes will judge and calibrate, and whether they fit the checkpoint."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exportgate.data.manifest import ManifestError, Swipe, lines_text, load_manifest
from exportgate.data.manifest_facts import manifest_facts, shared_lines
from harness.decode.spelling import Speller, has_capitals
from harness.onboarding.finding import Findings
from harness.onboarding.layout import layout_problems, scatter_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_OTHER_ALPHABET = 0.5
"""Share of words that the vocabulary cannot write above which it is that of another language."""


def look_at_manifest(
    path: Path, labels: Sequence[str], least: Mapping[str, float], *, ours: bool
) -> tuple[Findings, list[Swipe]]:
    """Say what a manifest consists of, and whether it can judge a model of this vocabulary.

    Args:
        path: The manifest.
        labels: The vocabulary; empty if it is not known.
        least: How many ``distinct_swipes`` and ``distinct_words`` the gates demand.
        ours: Whether it is the golden one because none was given.
    """
    title = f"swipes that judge: {path}"
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        return Findings(title, problems=(str(error),)), []
    swipes = list(manifest.swipes)
    facts = manifest_facts(swipes)
    notes = [*manifest.notes, *_outside(swipes)]
    if ours:
        notes.append("these are the golden swipes; give your users' own with --manifest")
    if facts.longest_points > DEFAULT_MAX_TRACE_LEN:
        notes.append(
            f"the longest swipe has {facts.longest_points} points, and exports take "
            f"{DEFAULT_MAX_TRACE_LEN} unless --max-trace-len says more"
        )
    found = {"distinct_swipes": facts.distinct_swipes, "distinct_words": facts.distinct_words}
    problems = [*_too_few(found, least), *_spelling(swipes, labels)]
    problems += layout_problems(swipes) or scatter_problems(swipes)
    what = (
        f"{facts.swipes} swipes, {facts.distinct_words} words, "
        f"{facts.shortest_points} to {facts.longest_points} points"
    )
    return Findings(title, (("holds", what),), tuple(problems), tuple(notes)), swipes


def look_at_calibration(path: Path | None, judging: Sequence[Swipe]) -> Findings:
    """Say with which swipes INT8 will be calibrated, and whether they are others than judge."""
    if path is None:
        note = "give your users' swipes with --calibration: none of those that judge"
        return Findings("swipes that calibrate: synthetic gestures", notes=(note,))
    title = f"swipes that calibrate: {path}"
    try:
        swipes = load_manifest(path).swipes
    except ManifestError as error:
        return Findings(title, problems=(str(error),))
    shared = shared_lines(swipes, judging)
    facts = (("holds", f"{len(swipes)} swipes"),)
    if not shared:
        return Findings(title, facts)
    problem = (
        f"{len(shared)} of its swipes judge as well, first its line {shared[0][0]}: what "
        "calibrated a file flatters it; take them out of one of the two"
    )
    return Findings(title, facts, (problem,))


def _too_few(found: Mapping[str, int], least: Mapping[str, float]) -> list[str]:
    return [
        f"{found[name]} {name.replace('distinct_', 'different ')}, but a verdict needs "
        f"{limit:g}; record more, or give --gates with a file that says [checkpoint] {name}_min"
        for name, limit in least.items()
        if found[name] < limit
    ]


def _spelling(swipes: Sequence[Swipe], labels: Sequence[str]) -> list[str]:
    if not labels:
        return []
    speller, capitals = Speller.of(tuple(labels)), has_capitals(labels)
    unwritable = [
        swipe
        for swipe in swipes
        if not all(
            speller.can_spell(part)
            for part in (swipe.word if capitals else swipe.word.lower()).split()
        )
    ]
    if len(unwritable) <= _OTHER_ALPHABET * len(swipes):
        return []
    first = unwritable[0]
    characters = Counter(character for swipe in unwritable for character in set(swipe.word))
    lacking = [c for c, _ in characters.most_common() if not speller.can_spell(c.lower())]
    sentence = (
        f"the checkpoint's vocabulary cannot write {len(unwritable)} of {len(swipes)} words "
        f"({lines_text([first.line])}: {first.word!r}; it lacks {' '.join(lacking[:5])}); take "
        "punctuation off, or give the manifest of the model's own language and alphabet"
    )
    return [sentence]


def _outside(swipes: Sequence[Swipe]) -> list[str]:
    outside = [s for s in swipes if s.points[:, :2].min() < 0 or s.points[:, :2].max() > 1]
    if not outside:
        return []
    sentence = (
        f"{len(outside)} swipes leave the keyboard; the features take such points as they are, "
        "nothing is clamped: a keyboard must not clamp them either"
    )
    return [sentence]
