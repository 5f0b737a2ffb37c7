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

FILE, BASELINE = "encoder_int8.onnx", "step_fp32.onnx"
WORDS = ["the", "keyboard", "accessibility", "swipe", "hello"] * 40
LEXICON = build_lexicon(dict.fromkeys(WORDS, 1.0), "abcdefghijklmnopqrstuvwxyz")
GATES = Path(__file__).resolve().parent.parent / "suites" / "gates.toml"


def decoded(found: Sequence[Outcome], nemo: Sequence[Outcome]) -> Any:
    """Return what the suite asks of the context, for one file and NeMo."""
    by_file = {FILE: list(found), BASELINE: list(nemo)}
    line = SimpleNamespace(points=np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 9.0]]))
    reference = SimpleNamespace(hypotheses=list(nemo))
    return SimpleNamespace(
        nemo=SimpleNamespace(reference=lambda: reference),
        swipes=SimpleNamespace(all=lambda: [line] * len(found)),
        words=SimpleNamespace(
            hypotheses=by_file.__getitem__,
            outcomes=lambda hypotheses: hypotheses,
            searches=lambda name, free=False: by_file[name],  # noqa: ARG005 - as the context names it
            searched=lambda name: list(range(len(by_file[name]))),
            lexicon=lambda: LEXICON,
            changed=lambda name: [],  # noqa: ARG005 - as the context names it
        ),
    )


def red(decode: Callable[[int, str], Sequence[str]], nemo_right: float = 1.0) -> set[str]:
    """Return the gates that are broken if words are decoded so.

    Args:
        decode: Results for a swipe, by its place and its word.
        nemo_right: Share of the words that NeMo decodes right; a file is judged by what it loses.
    """
    rng = np.random.default_rng(0)
    known = rng.random(len(WORDS)) < nemo_right
    nemo = [Outcome(word, (word if ok else "?",)) for word, ok in zip(WORDS, known, strict=True)]
    found = [
        Outcome(word, tuple(decode(index, word)) if known[index] else ("?",))
        for index, word in enumerate(WORDS)
    ]
    context = decoded(found, nemo)
    values: dict[str, float] = {}

    def record(metric: str, value: float, _detail: str = "", _samples: Any = ()) -> None:
        values[metric] = value

    gates = read_gates([GATES], ["checkpoint", *(row.name for row in VARIANTS)]).of(FILE)
    limits = {gate.metric: gate.limit for gate in gates}

    def limit_of(_: str, metric: str) -> float:
        return limits[metric]

    test_words.test_lexicon(FILE, context, record, limit_of)
    test_words.test_free_search(FILE, context, record, limit_of)
    test_words.test_letters(FILE, context, record, lambda *_: None, limit_of)
    judged = [judge(gate, values[gate.metric]) for gate in gates if gate.metric in values]
    assert len(judged) == 6
    return {v.gate.metric for v in judged if v.status is not Status.PASS}


@pytest.mark.parametrize("nemo_right", [1.0, 0.58, 0.3])
def test_right_words_are_green_however_good_the_model_is(nemo_right: float) -> None:
    assert red(lambda _, word: [word, "other"], nemo_right) == set()
    assert red(lambda index, word: ["x" * len(word)] if index == 7 else [word], nemo_right) == set()


@pytest.mark.parametrize("nemo_right", [1.0, 0.58])
def test_a_loss_beyond_chance_is_red(nemo_right: float) -> None:
    broken = red(lambda index, word: ["help", word] if index % 10 < 2 else [word], nemo_right)
    assert broken >= {"words_lost_p", "lexicon_top1_lost_p", "edits_p"}
    assert not broken & {"top5_lost_p", "lexicon_top5_lost_p"}


@pytest.mark.parametrize("results", [[], ["is"]], ids=["nothing", "one-word-for-all"])
@pytest.mark.parametrize("nemo_right", [1.0, 0.3])
def test_a_dead_search_is_red_everywhere(results: list[str], nemo_right: float) -> None:
    """The failure that was shipped: accuracy 0.0 under the name of 92 %."""
    assert len(red(lambda *_: results, nemo_right)) == 6


def test_dropped_letters_are_red_though_the_words_are_among_the_five() -> None:
    broken = red(lambda _, word: [word[:-1], word])
    assert {"deletions_p", "edits_p", "words_lost_p", "lexicon_top1_lost_p"} == broken


def test_right_words_below_the_fifth_place_are_red() -> None:
    broken = red(lambda _, word: [*"vwxyz", word])
    assert {"top5_lost_p", "lexicon_top5_lost_p"} <= broken
