"""Words as a keyboard finds them: in a lexicon and free, letter by letter, and what INT8 costs.

Encoders are decoded with the FP32 step of their runtime, steps on NeMo's encodings. A .pte step
takes one hypothesis at a time, so that fewer swipes are searched with it (``SEARCH_STRIDE``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.decode.accuracy import (
    by_group,
    describe_groups,
    length_group,
    paired_difference,
    rarity_group,
    speed_groups,
    summarise,
)
from harness.run.files import step_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harness.decode.accuracy import Outcome
    from harness.run.context import RunContext


@pytest.mark.measures(
    "top1_word_accuracy_lexicon",
    "top5_word_accuracy_lexicon",
    "lexicon_accuracy_loss",
    "lexicon_accuracy_loss_low",
)
def test_lexicon(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """The word is found in the lexicon, as often as from NeMo's own encodings."""
    outcomes = context.words.searches(subject)
    found, right = summarise(outcomes), [float(outcome.right) for outcome in outcomes]
    detail = f"of {found.swipes} swipes; {_groups(context, subject, outcomes)}"
    record("top1_word_accuracy_lexicon", found.top1, detail, right)
    record("top5_word_accuracy_lexicon", found.top5, f"of {found.swipes} swipes")
    baseline = step_for(subject)
    nemo = [float(outcome.right) for outcome in context.words.searches(baseline)]
    loss = paired_difference(right, nemo)
    detail = f"{loss}, 95 % interval, {found.swipes} swipes, against NeMo's encodings"
    record("lexicon_accuracy_loss", loss.estimate, detail)
    record("lexicon_accuracy_loss_low", loss.low, detail)


@pytest.mark.measures("top5_word_accuracy")
def test_free_search(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """Without a lexicon the word is among the first five."""
    found = summarise(context.words.searches(subject, free=True))
    detail = f"{found.top1:.3f} found first, of {found.swipes} swipes"
    record("top5_word_accuracy", found.top5, detail)


@pytest.mark.measures(
    "character_error_rate",
    "deletion_rate",
    "mean_emitted_length",
    "word_accuracy_loss",
    "word_accuracy_loss_high",
)
def test_letters(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """Greedy decoding loses few letters, and few words against NeMo."""
    outcomes = context.words.outcomes(context.words.hypotheses(subject))
    nemo = context.words.outcomes(context.nemo.reference().hypotheses)
    found, theirs = summarise(outcomes), summarise(nemo)
    groups = by_group(outcomes, [length_group(outcome.word) for outcome in outcomes])
    record(
        "character_error_rate",
        found.character_error_rate,
        f"NeMo {theirs.character_error_rate:.4f}; words right: {describe_groups(groups)}",
    )
    record("deletion_rate", found.deletion_rate, f"NeMo {theirs.deletion_rate:.4f}")
    emitted = [len(outcome.first) for outcome in outcomes]
    detail = f"NeMo {theirs.mean_emitted_length:.2f}"
    record("mean_emitted_length", found.mean_emitted_length, detail, emitted)
    loss = paired_difference([float(o.right) for o in outcomes], [float(o.right) for o in nemo])
    detail = f"{loss}, 95 % interval, {found.swipes} swipes, paired bootstrap"
    record("word_accuracy_loss", loss.estimate, detail)
    record("word_accuracy_loss_high", loss.high, detail)


def _groups(context: RunContext, subject: str, outcomes: Sequence[Outcome]) -> str:
    """Return the accuracy by length, by speed and by rarity, long and rare words apart."""
    swipes, lexicon = context.swipes.all(), context.words.lexicon()
    speeds = speed_groups([swipes[index].points for index in context.words.searched(subject)])
    groupings = (
        [length_group(outcome.word) for outcome in outcomes],
        speeds,
        [rarity_group(lexicon.log_prior_of(outcome.word)) for outcome in outcomes],
    )
    return "; ".join(describe_groups(by_group(outcomes, groups)) for groups in groupings)
