"""The model: every weight of the checkpoint is in it, and it decodes words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from harness.measure.golden_record import pinned_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("missing_keys", "unexpected_keys", "differing_tensors")
def test_weights(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """The loaded model holds exactly the tensors of the file."""
    report = context.nemo.reference().load
    record("missing_keys", len(report.missing), ", ".join(report.missing[:5]))
    record("unexpected_keys", len(report.unexpected), ", ".join(report.unexpected[:5]))
    record("differing_tensors", len(report.differing), ", ".join(report.differing[:5]))


@pytest.mark.measures("blank_row_max_abs")
def test_blank_row(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """The blank, which decoding starts with, is embedded as zeros."""
    reference = context.nemo.reference()
    detail = f"row {reference.spec.blank_id} of the embedding"
    record("blank_row_max_abs", reference.blank_row_max_abs, detail)


@pytest.mark.measures("reference_word_accuracy", "swipes")
def test_reference_accuracy(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """NeMo itself decodes words: a gate relative to a dead model would pass anything."""
    unspellable = context.words.unspellable()
    detail = f"not spellable, counted as wrong: {', '.join(unspellable)}" if unspellable else ""
    record("reference_word_accuracy", context.words.nemo_accuracy(), detail)
    record("swipes", len(context.swipes.all()), f"in {context.request.manifest.name}")


@pytest.mark.measures("pinned_token_mismatches", "pinned_score_max_abs_error")
def test_pinned_outputs(subject: str, context: RunContext, record: Callable[..., None]) -> None:
    """NeMo decodes the recorded swipes as it did when the checkpoint was made."""
    pinned = pinned_for(context.request.checkpoint, context.request.manifest)
    if pinned is None or pinned.tokens is None:
        return
    today = context.nemo.reference().hypotheses
    moved = [
        f"swipe {number}"
        for number, (now, then) in enumerate(zip(today, pinned.tokens, strict=True), 1)
        if now.tokens != then
    ]
    record("pinned_token_mismatches", len(moved), ", ".join(moved[:5]))
    errors = [abs(a.score - b) for a, b in zip(today, pinned.scores, strict=True)]
    record("pinned_score_max_abs_error", max(errors))
