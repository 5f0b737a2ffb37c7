"""Words: what a keyboard shows. Parity of tensors is only the means."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant
from exportgate.levels import level

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("token_mismatches", "near_ties", "score_max_abs_error")
def test_tokens(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Greedy decoding gives NeMo's tokens and scores, but where NeMo itself is as good as tied."""
    spec = context.nemo.reference().spec
    most = level("near_tie_nats", variant(artifact).precision)
    wrong, near, worst = [], [], 0.0
    pairs = zip(
        context.nemo.reference().hypotheses, context.words.hypotheses(artifact), strict=True
    )
    for index, (nemo, ours) in enumerate(pairs):
        if nemo.tokens == ours.tokens:
            worst = max(worst, abs(nemo.score - ours.score))
            continue
        error = min(context.words.margin_error(artifact, index), most)
        line = (
            f"swipe {index + 1}: {ours.text(spec.labels)!r}, NeMo {nemo.text(spec.labels)!r} at a "
            f"margin of {nemo.min_margin:.2g} nats, the file moves it by up to {error:.2g}"
        )
        (near if nemo.min_margin <= error else wrong).append(line)
    record("token_mismatches", len(wrong), "; ".join(wrong[:5]))
    record("near_ties", len(near), "; ".join(near[:5]))
    record("score_max_abs_error", worst, "over the swipes with equal tokens")


@pytest.mark.measures("word_accuracy", "relative_word_accuracy", "emitted_length_ratio")
def test_words(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """As many words as NeMo, and as many letters."""
    nemo, ours = context.words.nemo_accuracy(), context.words.accuracy(artifact)
    detail = f"{ours:.4f} of the words, NeMo {nemo:.4f}"
    record("word_accuracy", ours, detail)
    record("relative_word_accuracy", ours / nemo if nemo else float("nan"), detail)
    letters = [len(hypothesis.tokens) for hypothesis in context.words.hypotheses(artifact)]
    nemo_letters = mean(len(h.tokens) for h in context.nemo.reference().hypotheses)
    detail = f"{mean(letters):.2f} letters a word, NeMo {nemo_letters:.2f}"
    record("emitted_length_ratio", mean(letters) / max(nemo_letters, 1e-9), detail, letters)
