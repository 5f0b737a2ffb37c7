"""Words are spelled by labels of any length, and searched for by all of their spellings."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exportgate.contract import ModelSpec, step_contract
from harness.decode.beam import BeamConfig, beam_search
from harness.decode.lexicon import build_lexicon, common_words, default_lexicon
from harness.decode.spelling import can_spell, has_capitals, letters_of, spell
from tests.test_beam import frames, log_softmax, spec

SPECIAL = ("<blank>", "<unk>")
pieces = st.text("abé", min_size=1, max_size=3)
labels_of_any_length = st.lists(
    st.one_of(pieces, pieces.map("▁{}".format), st.sampled_from(["▁", *SPECIAL])),
    min_size=2,
    max_size=7,
).filter(lambda labels: any(label.strip("▁") not in {"", *SPECIAL} for label in labels))
words_of_pieces = st.dictionaries(
    st.text("abé", min_size=1, max_size=4), st.floats(0.01, 100), min_size=1, max_size=6
)


def spelled_by(word: str, labels: tuple[str, ...], most: int) -> list[tuple[int, ...]]:
    """Return every sequence of labels that spells a word, found by trying all."""
    usable = [index for index, label in enumerate(labels) if label not in SPECIAL]
    return [
        tokens
        for count in range(1, most + 1)
        for tokens in itertools.product(usable, repeat=count)
        if "".join(labels[token] for token in tokens) in {word, f"▁{word}"}
    ]


class AnyStep:
    """A random step for a vocabulary of any size."""

    def __init__(self, seed: int, model: ModelSpec) -> None:
        self.contract = step_contract(model)
        rng = np.random.default_rng(seed)
        self.embedding = rng.normal(size=(model.vocab_size, 3)).astype(np.float32)
        self.mix = rng.normal(size=(3, 3)).astype(np.float32)
        self.out = rng.normal(size=(3 + 4, model.vocab_size)).astype(np.float32)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        hidden = np.tanh(inputs["h0"][0] @ self.mix + self.embedding[inputs["y_prev"]])
        logits = np.concatenate([hidden, inputs["enc_t"]], axis=1) @ self.out
        return {"logits": logits, "h1": hidden[None], "c1": hidden[None]}


def log_prob(step: AnyStep, encoded: np.ndarray, tokens: tuple[int, ...], blank: int) -> float:
    """Return log P(tokens) with at most one label in a frame: the plain forward algorithm."""
    rows, state = [], np.zeros((1, 1, 3), np.float32)
    for symbol in (blank, *tokens):
        outs = [
            step.run({"y_prev": np.array([symbol]), "h0": state, "c0": state, "enc_t": item[None]})
            for item in encoded.T
        ]
        rows.append([log_softmax(out["logits"][0]) for out in outs])
        state = outs[0]["h1"]
    alpha = np.full(len(tokens) + 1, -np.inf)
    alpha[0] = 0.0
    for t in range(encoded.shape[1]):
        before = alpha.copy()
        for u in range(len(tokens) + 1):
            alpha[u] = before[u] + rows[u][t][blank]
            if u:
                entered = before[u - 1] + rows[u - 1][t][tokens[u - 1]]
                alpha[u] = np.logaddexp(alpha[u], entered + rows[u][t][blank])
    return float(alpha[-1])


@given(labels_of_any_length, words_of_pieces, st.integers(0, 2**31), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_a_word_is_the_sum_of_all_its_spellings(
    labels: list[str], words: dict[str, float], seed: int, count: int
) -> None:
    model = replace(spec(), labels=tuple(labels))
    ways = {word: spelled_by(word, model.labels, 5) for word in words}
    assert {word: can_spell(word, labels) for word in words} == {
        word: bool(found) for word, found in ways.items()
    }
    if not any(ways.values()):
        return
    lexicon, step, encoded = build_lexicon(words, labels), AnyStep(seed, model), frames(seed, count)
    config = BeamConfig(10**5, math.inf, 0.3, max_symbols=1, top=100)
    found = {c.text(labels): c for c in beam_search(step, encoded, model, lexicon, config)}
    short = {word: [w for w in every if len(w) <= count] for word, every in ways.items()}
    assert set(found) == {word for word, every in short.items() if every}
    for word, candidate in found.items():
        each = [log_prob(step, encoded, way, model.blank_id) for way in short[word]]
        wanted = float(np.logaddexp.reduce(each))
        assert candidate.log_prob == pytest.approx(wanted, abs=1e-4)
        assert candidate.score == pytest.approx(wanted + 0.3 * lexicon.log_prior_of(word), abs=1e-4)
        best = log_prob(step, encoded, candidate.tokens, model.blank_id)
        assert best == pytest.approx(max(each), abs=1e-4)


def test_text_of_labels() -> None:
    labels = ["▁", "▁th", "e", "<unk>", "re"]
    assert spell([1, 2], labels) == spell([0, 1, 2], labels) == "the"
    assert spell([1, 2, 1, 2, 4], labels) == "the there"
    assert spell([2, 4], labels) == "ere"
    assert letters_of([*labels, "[UNK]", "▁<s>", "<", ""]) == ("t", "h", "e", "r", "<")
    assert [has_capitals(items) for items in (["a", "<UNK>"], ["a", "▁B"])] == [False, True]


def test_what_labels_can_spell() -> None:
    labels = ["▁th", "e", "re", "<unk>"]
    spelled = {word: can_spell(word, labels) for word in ("the", "there", "th", "ere", "unk", "")}
    assert spelled == {
        "the": True, "there": True, "th": True, "ere": True, "unk": False, "": False,
    }  # fmt: skip
    # A word start cannot stand inside a word.
    assert not can_spell("eth", labels)


def test_alphabets_of_any_size() -> None:
    letters = [chr(0x4E00 + index) for index in range(3000)]
    words = {"".join(letters[index : index + 3]): 1.0 for index in range(0, 2990, 7)}
    lexicon = build_lexicon(words, letters)
    assert lexicon.words == len(words)
    assert all(word in lexicon for word in words)
    assert letters[0] * 3 not in lexicon


def test_the_english_lexicon_of_subword_labels() -> None:
    labels = ["<unk>", "▁", "qu", "▁the", "ing", *"abcdefghijklmnoprstuvwxyz'"]
    words = common_words(labels, 5000)
    assert len(words) == 5000
    assert {"the", "quick", "don't"} <= words.keys()
    assert "iraq" not in words
    assert default_lexicon(["th", "e", "n"]).words > 3


def test_the_english_lexicon_of_labels_with_capitals() -> None:
    small, large = "abcdefghijklmnopqrstuvwxyz'", "ABCDEFGHIJKLMNOPQRSTUVWXYZ'"
    lower = common_words(small, 1000)
    assert len(lower) == 1000
    assert common_words(large, 1000) == {word.upper(): f for word, f in lower.items()}
    both = common_words(small + large, 1000)
    assert {"the", "The", "THE", "Don't"} <= both.keys()
    assert {word.lower() for word in both} == set(lower)
