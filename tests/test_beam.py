"""Beam search, against an enumeration of every alignment and against NeMo's own."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.beam import dictionary_trie, straightforward_search
from exportgate.contract import IoContract, ModelSpec, step_contract
from exportgate.transducer import DecodeError
from harness.decode.beam import BeamConfig, BeamError, Candidate, beam_search, beam_search_all
from harness.decode.lexicon import Lexicon, build_lexicon
from harness.decode.prefixes import PrefixError

if TYPE_CHECKING:
    from collections.abc import Sequence

LETTERS = "abc"
WIDE = BeamConfig(beam=1000, threshold_nats=math.inf, max_symbols=2, top=1000)


def spec() -> ModelSpec:
    # As in the reference configuration: letters do not begin at 0.
    labels = ("<blank>", *LETTERS, "<unk>")
    return ModelSpec(37, 4, 1, 1, 3, "striding", 4, 3, 1, 2, labels, 2)


class RandomStep:
    """A step with random weights; its state depends on everything fed before."""

    def __init__(self, seed: int, *, batch: str | int = "B", scale: float = 1.0) -> None:
        self.contract: IoContract = step_contract(spec(), batch=batch)
        rng = np.random.default_rng(seed)
        symbols = spec().vocab_size
        self.mix = rng.normal(size=(3 + 3 + symbols, 3)).astype(np.float32)
        self.out = (rng.normal(size=(3 + 4, symbols)) * scale).astype(np.float32)
        self.calls: list[int] = []

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = len(inputs["y_prev"])
        assert [inputs[name].shape for name in ("h0", "c0")] == [(1, rows, 3)] * 2
        assert inputs["enc_t"].shape == (rows, 4)
        self.calls.append(rows)
        one_hot = np.eye(spec().vocab_size, dtype=np.float32)[inputs["y_prev"]]
        hidden = np.tanh(
            np.concatenate([inputs["h0"][0], inputs["c0"][0], one_hot], axis=1) @ self.mix
        )
        logits = np.concatenate([hidden, inputs["enc_t"]], axis=1) @ self.out
        return {"logits": logits, "h1": hidden[None], "c1": -2 * hidden[None]}


def frames(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, count)).astype(np.float32)


def log_softmax(row: np.ndarray) -> np.ndarray:
    row = row.astype(np.float64)
    return row - np.logaddexp.reduce(row)


def enumerated(
    step: RandomStep, encoded: np.ndarray, tokens: Sequence[int], max_symbols: int
) -> float:
    """Return log P(tokens): the sum over every assignment of labels to frames, term by term."""
    state = {"h0": np.zeros((1, 1, 3), np.float32), "c0": np.zeros((1, 1, 3), np.float32)}
    log_probs, fed = [], [spec().blank_id, *tokens]
    for symbol in fed:
        for t in range(encoded.shape[1]):
            out = step.run({"y_prev": np.array([symbol]), **state, "enc_t": encoded[None, :, t]})
            log_probs.append(log_softmax(out["logits"][0]))
        state = {"h0": out["h1"], "c0": out["c1"]}
    count = encoded.shape[1]
    total = -math.inf
    for places in itertools.combinations_with_replacement(range(count), len(tokens)):
        if max(Counter(places).values(), default=0) > max_symbols:
            continue
        score = sum(
            log_probs[u * count + t][token]
            for u, (t, token) in enumerate(zip(places, tokens, strict=True))
        )
        for t in range(count):
            emitted = sum(place <= t for place in places)
            score += log_probs[emitted * count + t][spec().blank_id]
        total = np.logaddexp(total, score)
    return float(total)


vocabularies = st.dictionaries(
    st.text(LETTERS, min_size=1, max_size=4), st.floats(0.01, 100), min_size=1, max_size=8
)


@given(vocabularies, st.integers(0, 2**31), st.integers(1, 4), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_equal_to_an_exhaustive_sum_over_alignments(
    words: dict[str, float], seed: int, count: int, weight: float
) -> None:
    lexicon, step, encoded = build_lexicon(words, LETTERS), RandomStep(seed), frames(seed, count)
    config = BeamConfig(1000, math.inf, weight, max_symbols=2, top=1000)
    found = {c.text(spec().labels): c for c in beam_search(step, encoded, spec(), lexicon, config)}
    # A word of more letters than the frames can hold has probability 0.
    assert set(found) == {word for word in words if len(word) <= 2 * count}
    for word, candidate in found.items():
        tokens = [spec().labels.index(letter) for letter in word]
        wanted = enumerated(step, encoded, tokens, 2)
        assert candidate.log_prob == pytest.approx(wanted, abs=1e-4)
        prior = weight * lexicon.log_prior_of(word)
        assert candidate.score == pytest.approx(wanted + prior, abs=1e-4)
    scores = [c.score for c in found.values()]
    assert scores == sorted(scores, reverse=True)


@given(st.integers(0, 2**31), st.integers(1, 2))
@settings(max_examples=20, deadline=None)
def test_free_search_sums_every_sequence_to_one(seed: int, count: int) -> None:
    step, encoded = RandomStep(seed, scale=0.5), frames(seed, count)
    config = BeamConfig(10**6, math.inf, max_symbols=1, top=10**6)
    found = beam_search(step, encoded, spec(), None, config)
    assert len(found) == sum(5**length for length in range(count + 1))
    for candidate in found[:5]:
        wanted = enumerated(step, encoded, candidate.tokens, 1)
        assert candidate.log_prob == pytest.approx(wanted, abs=1e-4)


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_one_call_a_round_gives_what_single_calls_give(seed: int, count: int, beam: int) -> None:
    lexicon = build_lexicon({"abc": 3, "ab": 1, "cab": 2, "bca": 1, "bb": 5}, LETTERS)
    config = BeamConfig(beam, max_symbols=2)
    batched, single = RandomStep(seed), RandomStep(seed, batch=1)
    encoded = frames(seed, count)
    one = beam_search(batched, encoded, spec(), lexicon, config)
    other = beam_search(single, encoded, spec(), lexicon, config)
    assert [c.tokens for c in one] == [c.tokens for c in other]
    assert [c.score for c in one] == pytest.approx([c.score for c in other], abs=1e-5)
    assert set(single.calls) == {1}
    assert len(batched.calls) <= 3 * count
    assert max(batched.calls) <= beam
    assert sum(batched.calls) == len(single.calls)


@given(vocabularies, st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_equal_to_the_straightforward_search_that_it_is_timed_against(
    words: dict[str, float], seed: int, count: int, beam: int
) -> None:
    lexicon, step, encoded = build_lexicon(words, LETTERS), RandomStep(seed), frames(seed, count)
    config = BeamConfig(beam, 4.0, max_symbols=2)
    found = beam_search(step, encoded, spec(), lexicon, config)
    plain = straightforward_search(step, encoded, spec(), dictionary_trie(lexicon), config)
    assert [c.text(spec().labels) for c in found] == [text for text, _ in plain]
    assert [c.score for c in found] == pytest.approx([score for _, score in plain], abs=1e-4)


def test_a_narrow_beam_keeps_the_best_it_has_seen_and_words_only() -> None:
    lexicon = build_lexicon({"abc": 1, "ab": 1, "c": 1}, LETTERS)
    for seed in range(20):
        exact = beam_search(RandomStep(seed), frames(seed, 3), spec(), lexicon, WIDE)
        by_tokens = {c.tokens: c for c in exact}
        narrow = beam_search(
            RandomStep(seed), frames(seed, 3), spec(), lexicon, BeamConfig(2, 5.0, max_symbols=2)
        )
        for candidate in narrow:
            # What was pruned can only lower a sum.
            assert candidate.log_prob <= by_tokens[candidate.tokens].log_prob + 1e-6


def test_a_prior_decides_between_equal_words() -> None:
    class Flat(RandomStep):
        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            outputs = super().run(inputs)
            return {**outputs, "logits": np.zeros_like(outputs["logits"])}

    for common in "ab":
        weights = {letter: 9.0 if letter == common else 1.0 for letter in "ab"}
        found = beam_search(Flat(0), frames(0, 2), spec(), build_lexicon(weights, LETTERS), WIDE)
        assert found[0].text(spec().labels) == common
        assert found[0].log_prob == pytest.approx(found[1].log_prob)


def test_no_frames_give_the_empty_sequence_and_no_word() -> None:
    lexicon = build_lexicon({"a": 1}, LETTERS)
    assert beam_search(RandomStep(0), frames(0, 0), spec(), lexicon) == []
    assert beam_search(RandomStep(0), frames(0, 0), spec()) == [Candidate((), 0.0, 0.0)]
    assert beam_search_all(RandomStep(0), [frames(0, 0)] * 2, spec(), lexicon) == [[], []]


def test_what_cannot_be_searched_is_an_error() -> None:
    class Wrong(RandomStep):
        logits: Any = None

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {**super().run(inputs), "logits": self.logits}

    step = Wrong(0)
    step.logits = np.full((1, 6), np.nan)
    with pytest.raises(DecodeError, match="NaN"):
        beam_search(step, frames(0, 1), spec())
    step.logits = np.zeros((1, 1, 1, 6))
    with pytest.raises(DecodeError, match=r"but should have \(1, 6\)"):
        beam_search(step, frames(0, 1), spec())
    foreign: Lexicon = build_lexicon({"xyz": 1}, "xyz")
    with pytest.raises(PrefixError, match="no label spells the lexicon's 'x', 'y', 'z'"):
        beam_search(RandomStep(0), frames(0, 1), spec(), foreign)
    with pytest.raises(BeamError, match="at least 1"):
        BeamConfig(beam=0)
    with pytest.raises(BeamError, match="prior_weight is -1"):
        BeamConfig(prior_weight=-1)
