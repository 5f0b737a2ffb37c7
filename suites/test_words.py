"""Words as a keyboard finds them: in a lexicon and free, letter by letter, beside NeMo's own.

Encoders are decoded with the FP32 step of their runtime, steps on NeMo's encodings. A .pte step
takes one hypothesis at a time, so that fewer swipes are searched with it (``SEARCH_STRIDE``). How
good the model is, is judged once, on the checkpoint: here a file is judged by what it loses against
NeMo on the same swipes, by exact paired tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from harness.decode.accuracy import (
    by_group,
    describe_groups,
    edits,
    length_group,
    paired_difference,
    rarity_group,
    speed_groups,
    summarise,
)
from harness.measure.significance import fewer, lost_words
from harness.run.files import step_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.decode.accuracy import Outcome
    from harness.measure.significance import PairedTest
    from harness.run.context import RunContext

    Level = Callable[[str, str], float]


@pytest.mark.measures(
    "top1_word_accuracy_lexicon", "top5_word_accuracy_lexicon", "lexicon_accuracy_loss",
    "lexicon_top1_lost_p", "lexicon_top5_lost_p",
)  # fmt: skip
def test_lexicon(
    artifact: str, context: RunContext, record: Callable[..., None], limit_of: Level
) -> None:
    """The word is found in the lexicon, as often as from NeMo's own encodings."""
    outcomes, nemo = context.words.searches(artifact), context.words.searches(step_for(artifact))
    found, right = summarise(outcomes), [float(outcome.right) for outcome in outcomes]
    detail = f"of {found.swipes} swipes; {_groups(context, artifact, outcomes)}"
    record("top1_word_accuracy_lexicon", found.top1, detail, right)
    record("top5_word_accuracy_lexicon", found.top5, f"of {found.swipes} swipes")
    loss = paired_difference(right, [float(outcome.right) for outcome in nemo])
    detail = f"{loss}, 95 % interval, {found.swipes} swipes, against NeMo's encodings"
    record("lexicon_accuracy_loss", loss.estimate, detail)
    first = lost_words([o.right for o in outcomes], [o.right for o in nemo])
    five = lost_words([o.right_of_top for o in outcomes], [o.right_of_top for o in nemo])
    for metric, test in (("lexicon_top1_lost_p", first), ("lexicon_top5_lost_p", five)):
        record(metric, test.p_value, test.sentence("fewer words", limit_of(artifact, metric)))


@pytest.mark.measures("lexicon_search_p")
def test_search(
    artifact: str, context: RunContext, record: Callable[..., None], limit_of: Level
) -> None:
    """The search finds no fewer words of its lexicon than greedy decoding: it knows more."""
    lexicon, searched = context.words.lexicon(), context.words.searches(artifact)
    greedy = context.words.outcomes(context.nemo.reference().hypotheses)
    pairs = [
        (found.right, greedy[row].right)
        for row, found in zip(context.words.searched(artifact), searched, strict=True)
        if found.word in lexicon
    ]
    if not pairs:
        detail = "no word of the manifest is in the lexicon; name another with --lexicon"
        record("lexicon_search_p", float("nan"), detail)
        return
    test = lost_words([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
    level = limit_of(artifact, "lexicon_search_p")
    record("lexicon_search_p", test.p_value, test.sentence("fewer words", level))


@pytest.mark.measures("top5_word_accuracy", "top5_lost_p")
def test_free_search(
    artifact: str, context: RunContext, record: Callable[..., None], limit_of: Level
) -> None:
    """Without a lexicon the word is among the first five as often as from NeMo's encodings."""
    outcomes = context.words.searches(artifact, free=True)
    nemo = context.words.searches(step_for(artifact), free=True)
    found = summarise(outcomes)
    detail = f"{found.top1:.3f} found first, of {found.swipes} swipes"
    record("top5_word_accuracy", found.top5, detail)
    test = lost_words([o.right_of_top for o in outcomes], [o.right_of_top for o in nemo])
    level = limit_of(artifact, "top5_lost_p")
    record("top5_lost_p", test.p_value, test.sentence("fewer words", level))


@pytest.mark.measures(
    "character_error_rate", "deletion_rate", "mean_emitted_length", "word_accuracy_loss",
    "words_lost_p", "edits_p", "deletions_p",
)  # fmt: skip
def test_letters(
    artifact: str,
    context: RunContext,
    record: Callable[..., None],
    show: Callable[..., None],
    limit_of: Level,
) -> None:
    """Greedy decoding loses no words and no letters against NeMo beyond chance."""
    outcomes = context.words.outcomes(context.words.hypotheses(artifact))
    nemo = context.words.outcomes(context.nemo.reference().hypotheses)
    found, theirs = summarise(outcomes), summarise(nemo)
    groups = by_group(outcomes, [length_group(outcome.word) for outcome in outcomes])
    detail = f"NeMo {theirs.character_error_rate:.4f}; words right: {describe_groups(groups)}"
    record("character_error_rate", found.character_error_rate, detail)
    record("deletion_rate", found.deletion_rate, f"NeMo {theirs.deletion_rate:.4f}")
    emitted = [len(outcome.first) for outcome in outcomes]
    detail = f"NeMo {theirs.mean_emitted_length:.2f}"
    record("mean_emitted_length", found.mean_emitted_length, detail, emitted)
    loss = paired_difference([float(o.right) for o in outcomes], [float(o.right) for o in nemo])
    record("word_accuracy_loss", loss.estimate, f"{loss}, 95 % interval, paired bootstrap")
    ours, others = ([edits(o.word, o.first) for o in side] for side in (outcomes, nemo))
    tests: tuple[tuple[str, PairedTest, str], ...] = (
        ("words_lost_p", lost_words([o.right for o in outcomes], [o.right for o in nemo]),
         "fewer words"),
        ("edits_p", fewer([e.total for e in ours], [e.total for e in others]), "more edits"),
        ("deletions_p", fewer([e.deletions for e in ours], [e.deletions for e in others]),
         "more missing letters"),
    )  # fmt: skip
    for metric, test, what in tests:
        record(metric, test.p_value, test.sentence(what, limit_of(artifact, metric)))
    show("word_lengths", _by_length(outcomes, nemo))
    show("changed_words", context.words.changed(artifact))


def _by_length(outcomes: Sequence[Outcome], nemo: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return how many words of each length the file and NeMo get right."""
    rows: dict[str, dict[str, Any]] = {}
    for ours, theirs in zip(outcomes, nemo, strict=True):
        group = length_group(ours.word)
        row = rows.setdefault(group, {"group": group, "swipes": 0, "right": 0, "nemo_right": 0})
        row["swipes"] += 1
        row["right"] += ours.right
        row["nemo_right"] += theirs.right
    return [rows[group] for group in sorted(rows)]


def _groups(context: RunContext, artifact: str, outcomes: Sequence[Outcome]) -> str:
    """Return the accuracy by length, by speed and by rarity, long and rare words apart."""
    swipes, lexicon = context.swipes.all(), context.words.lexicon()
    speeds = speed_groups([swipes[index].points for index in context.words.searched(artifact)])
    groupings = (
        [length_group(outcome.word) for outcome in outcomes],
        speeds,
        [rarity_group(lexicon.log_prior_of(outcome.word)) for outcome in outcomes],
    )
    return "; ".join(describe_groups(by_group(outcomes, groups)) for groups in groupings)
