"""The model and the swipes: every weight is in it, it decodes words, and the swipes can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exportgate.data.manifest import lines_text
from harness.measure.expected.golden_record import recorded_for
from harness.measure.significance import share_above

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("missing_keys", "unexpected_keys", "differing_tensors")
def test_weights(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The loaded model holds exactly the tensors of the file."""
    report = context.nemo.reference().load
    record("missing_keys", len(report.missing), ", ".join(report.missing[:5]))
    record("unexpected_keys", len(report.unexpected), ", ".join(report.unexpected[:5]))
    record("differing_tensors", len(report.differing), ", ".join(report.differing[:5]))


@pytest.mark.measures("blank_row_max_abs")
def test_blank_row(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The blank, which decoding starts with, is embedded as zeros."""
    reference = context.nemo.reference()
    detail = f"row {reference.spec.blank_id} of the embedding"
    record("blank_row_max_abs", reference.blank_row_max_abs, detail)


@pytest.mark.measures("reference_word_accuracy", "accuracy_over_chance")
def test_reference_accuracy(
    artifact: str, context: RunContext, record: Callable[..., None]
) -> None:
    """NeMo itself decodes words: a gate relative to a dead model would pass anything."""
    unspellable = context.words.unspellable()
    detail = f"not spellable, counted as wrong: {', '.join(unspellable)}" if unspellable else ""
    accuracy = context.words.nemo_accuracy()
    record("reference_word_accuracy", accuracy, detail)
    words = context.words.meant()
    chance = max(words.count(word) for word in set(words)) / len(words)
    found = share_above(round(accuracy * len(words)), len(words), chance)
    detail = f"{accuracy:.4f} of {len(words)} words, the commonest word is {chance:.4f} of them"
    record("accuracy_over_chance", found, detail)


@pytest.mark.measures("swipes", "distinct_swipes", "distinct_words", "unexercised_labels")
def test_manifest(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """There are enough swipes and words that differ: a fault of few of them would be met."""
    facts = context.swipes.facts(context.nemo.reference().spec.labels)
    name = context.request.manifest.name
    record("swipes", facts.swipes, f"in {name}")
    record("distinct_swipes", facts.distinct_swipes, f"of {facts.swipes} in {name}")
    record("distinct_words", facts.distinct_words, f"in {name}")
    unseen = ", ".join(facts.unexercised_labels) or "none"
    detail = f"no word has {unseen}; steps are fed every symbol all the same"
    record("unexercised_labels", len(facts.unexercised_labels), detail)


@pytest.mark.measures("shared_swipes")
def test_calibration(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """No swipe judges the files that it calibrated: it would flatter them."""
    shared = context.swipes.shared_with_calibration()
    lines = [line for line, _ in shared]
    detail = f"{lines_text(lines)} of the manifest stand in the calibration file too"
    record("shared_swipes", len(shared), detail if shared else "")


@pytest.mark.measures(
    "recorded_token_mismatches", "recorded_score_max_abs_error", "recorded_accuracy_drop"
)
def test_golden_record(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """NeMo decodes the recorded swipes as it did when the checkpoint was made."""
    recorded = recorded_for(context.request.checkpoint, context.request.manifest)
    if recorded is None:
        return
    record("recorded_accuracy_drop", recorded.accuracy - context.words.nemo_accuracy())
    if recorded.tokens is None:
        return
    today = context.nemo.reference().hypotheses
    moved = [
        f"swipe {number}"
        for number, (now, then) in enumerate(zip(today, recorded.tokens, strict=True), 1)
        if now.tokens != then
    ]
    record("recorded_token_mismatches", len(moved), ", ".join(moved[:5]))
    errors = [abs(a.score - b) for a, b in zip(today, recorded.scores, strict=True)]
    record("recorded_score_max_abs_error", max(errors))
