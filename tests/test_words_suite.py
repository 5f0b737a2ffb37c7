"""The gates on words go red for what users would notice, and stay green for what is right."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporters.variants import VARIANTS
from harness.decode.accuracy import Outcome
from harness.decode.lexicon import build_lexicon
from harness.gate.gates import Status, judge, read_gates
from suites import test_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SUBJECT, BASELINE = "encoder_int8.onnx", "step_fp32.onnx"
WORDS = ["the", "keyboard", "accessibility", "swipe", "hello"] * 40
LEXICON = build_lexicon(dict.fromkeys(WORDS, 1.0), "abcdefghijklmnopqrstuvwxyz")
GATES = Path(__file__).resolve().parent.parent / "suites" / "gates.toml"


def decoded(found: Sequence[Outcome], nemo: Sequence[Outcome]) -> Any:
    """Return what the suite asks of the context, for one file and NeMo."""
    by_file = {SUBJECT: list(found), BASELINE: list(nemo)}
    line = SimpleNamespace(points=np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 9.0]]))
    reference = SimpleNamespace(hypotheses=list(nemo))
    return SimpleNamespace(
        nemo=SimpleNamespace(reference=lambda: reference),
        swipes=SimpleNamespace(all=lambda: [line] * len(found)),
        words=SimpleNamespace(
            hypotheses=by_file.__getitem__,
            outcomes=lambda hypotheses: hypotheses,
            searches=lambda name, free=False: list(found) if free else by_file[name],
            searched=lambda name: list(range(len(by_file[name]))),
            lexicon=lambda: LEXICON,
        ),
    )


def red(decode: Callable[[int, str], Sequence[str]]) -> set[str]:
    """Return the gates that are broken if words are decoded so; NeMo decodes all of them right."""
    found = [Outcome(word, tuple(decode(index, word))) for index, word in enumerate(WORDS)]
    context = decoded(found, [Outcome(word, (word,)) for word in WORDS])
    values: dict[str, float] = {}

    def record(metric: str, value: float, _detail: str = "", _samples: Any = ()) -> None:
        values[metric] = value

    for suite in (test_words.test_lexicon, test_words.test_free_search, test_words.test_letters):
        suite(SUBJECT, context, record)
    gates = read_gates([GATES], ["checkpoint", *(row.name for row in VARIANTS)]).of(SUBJECT)
    judged = [judge(gate, values[gate.metric]) for gate in gates if gate.metric in values]
    assert len(judged) == 7
    return {v.gate.metric for v in judged if v.status is not Status.PASS}


def test_right_words_are_green() -> None:
    assert red(lambda _, word: [word, "other"]) == set()
    assert red(lambda index, word: ["x" * len(word)] if index == 7 else [word]) == set()


def test_a_loss_beyond_chance_is_red_long_before_the_floor() -> None:
    broken = red(lambda index, word: ["help", word] if index % 25 == 4 else [word])
    assert broken == {"lexicon_accuracy_loss_low", "word_accuracy_loss_high"}


@pytest.mark.parametrize("results", [[], ["is"]], ids=["nothing", "one-word-for-all"])
def test_a_dead_search_is_red_everywhere(results: list[str]) -> None:
    """The failure that was shipped: accuracy 0.0 under the name of 92 %."""
    assert len(red(lambda *_: results)) == 7


def test_dropped_letters_are_red_though_the_words_are_among_the_five() -> None:
    broken = red(lambda _, word: [word[:-1], word])
    assert {"deletion_rate", "character_error_rate", "top1_word_accuracy_lexicon"} <= broken
    assert "top5_word_accuracy_lexicon" not in broken


def test_right_words_below_the_fifth_place_are_red() -> None:
    broken = red(lambda _, word: [*"vwxyz", word])
    assert {"top5_word_accuracy", "top5_word_accuracy_lexicon"} <= broken
