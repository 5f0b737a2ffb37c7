"""Other transducers are other tables of arcs: every decoder follows them without a change."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exportgate.contract import step_contract
from exportgate.transducer import DecodeError, Transducer, TransducerError
from harness.decode.batches import greedy_batched
from harness.decode.beam import BeamConfig, beam_search
from harness.decode.greedy import greedy_decode
from tests.test_beam import RandomStep, frames, log_softmax, spec

if TYPE_CHECKING:
    from numpy.typing import NDArray

LABELS = len(spec().labels)


def multi_blank() -> Transducer:
    """Return RNN-T's rules and a second blank, the last logit, that moves two frames."""
    one = Transducer.of(spec())
    return replace(
        one,
        symbols=np.append(one.symbols, one.start),
        commits=np.append(one.commits, False),
        frames=np.append(one.frames, 2),
    )


# --- example of a decoder, in exportgate/transducer.py
@dataclass(frozen=True, slots=True, eq=False)
class TokenAndDuration(Transducer):
    """An arc for each pair of symbol and duration; the step gives logits of both in one row."""

    durations: int = 3

    @property
    def width(self) -> int:
        return len(self.symbols) // self.durations + self.durations

    def scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        symbols, durations = logits[:, : -self.durations], logits[:, -self.durations :]
        return (symbols[:, :, None] + durations[:, None]).reshape(len(logits), -1)


def token_and_duration() -> Transducer:
    one = Transducer.of(spec())
    frames = np.tile(np.arange(3), len(one.symbols))
    commits = one.commits.repeat(3)
    # A blank of duration 0 moves one frame nevertheless.
    moves = np.where(commits, frames, np.maximum(frames, 1))
    return TokenAndDuration(one.start, one.symbols.repeat(3), commits, moves, one.max_symbols)


# --- end of the example


class WideStep(RandomStep):
    """A random step with as many logits as the rules need."""

    def __init__(self, seed: int, rules: Transducer, *, batch: str | int = "B") -> None:
        super().__init__(seed, batch=batch)
        assert self.contract == step_contract(spec(), batch=batch)
        rng = np.random.default_rng(seed)
        self.out = rng.normal(size=(3 + 4, rules.width)).astype(np.float32)


RULES = {"multi-blank": multi_blank(), "token and duration": token_and_duration()}


def greedy_by_hand(step: RandomStep, encoded: np.ndarray, rules: Transducer) -> list[tuple]:
    """Decode one swipe in the plainest way; return (label, frame) pairs."""
    feed = {"y_prev": np.array([rules.start])} | dict.fromkeys(["h0", "c0"], np.zeros((1, 1, 3)))
    place, written, found = 0, 0, []
    while place < encoded.shape[1]:
        out = step.run({**feed, "enc_t": encoded[None, :, place]})
        arc = int(rules.scores(out["logits"].astype(np.float64))[0].argmax())
        moves = int(rules.frames[arc])
        if rules.commits[arc]:
            found.append((int(rules.symbols[arc]), place))
            feed = {"y_prev": rules.symbols[[arc]], "h0": out["h1"], "c0": out["c1"]}
            written += 1
            moves = max(moves, int(written == rules.max_symbols))
        place, written = place + moves, 0 if moves else written
    return found


@pytest.mark.parametrize("name", RULES)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 9), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_greedy_alone_and_in_a_batch_is_what_the_rules_say(
    name: str, seed: int, counts: list[int]
) -> None:
    rules = RULES[name]
    encoded = [frames(seed + index, count) for index, count in enumerate(counts)]
    step = WideStep(seed, rules)
    batched = greedy_batched(step, encoded, spec(), rules=rules)
    for item, found in zip(encoded, batched, strict=True):
        alone = greedy_decode(step, item, spec(), rules)
        assert (alone.tokens, alone.frames) == (found.tokens, found.frames)
        assert list(zip(found.tokens, found.frames, strict=True)) == greedy_by_hand(
            WideStep(seed, rules), item, rules
        )
        assert found.score == pytest.approx(alone.score, abs=1e-5)


def all_paths(step: RandomStep, encoded: np.ndarray, rules: Transducer, limit: int) -> dict:
    """Return log P of every label sequence: each path of arcs walked by itself."""
    total: dict[tuple[int, ...], float] = {}

    def walk(place: int, written: int, tokens: tuple[int, ...], feed: dict, log_p: float) -> None:
        if place >= encoded.shape[1]:
            total[tokens] = float(np.logaddexp(total.get(tokens, -math.inf), log_p))
            return
        out = step.run({**feed, "enc_t": encoded[None, :, place]})
        scores = log_softmax(rules.scores(out["logits"].astype(np.float64))[0])
        for arc, score in enumerate(scores):
            moves, symbol = int(rules.frames[arc]), int(rules.symbols[arc])
            if not rules.commits[arc]:
                walk(place + moves, 0, tokens, feed, log_p + score)
            elif written < limit:
                after = {"y_prev": np.array([symbol]), "h0": out["h1"], "c0": out["c1"]}
                here = 0 if moves else written + 1
                walk(place + moves, here, (*tokens, symbol), after, log_p + score)

    start = {"y_prev": np.array([rules.start])} | dict.fromkeys(("h0", "c0"), np.zeros((1, 1, 3)))
    walk(0, 0, (), start, 0.0)
    return total


@pytest.mark.parametrize("name", RULES)
@given(st.integers(0, 2**31), st.integers(1, 2))
@settings(max_examples=6, deadline=None)
def test_beam_search_adds_up_every_path_of_arcs(name: str, seed: int, count: int) -> None:
    rules, encoded = RULES[name], frames(seed, count)
    step = WideStep(seed, rules)
    config = BeamConfig(10**6, math.inf, max_symbols=1, top=10**6)
    found = beam_search(step, encoded, spec(), None, config, rules)
    wanted = all_paths(step, encoded, rules, 1)
    assert {c.tokens for c in found} == set(wanted)
    for candidate in found:
        assert candidate.log_prob == pytest.approx(wanted[candidate.tokens], abs=1e-4)


def test_a_new_decoder_is_a_table_of_arcs(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, swipes = token_and_duration(), [frames(seed, 9) for seed in range(4)]
    step = WideStep(0, rules)
    wanted = [greedy_by_hand(step, item, rules) for item in swipes]
    assert any(wanted)
    # A model's own rules, of which nobody who decodes was told.
    monkeypatch.setattr(Transducer, "of", lambda _: rules)
    for found in (
        greedy_batched(step, swipes, spec()),
        [greedy_decode(step, item, spec()) for item in swipes],
    ):
        pairs = [list(zip(item.tokens, item.frames, strict=True)) for item in found]
        assert pairs == wanted
    best = beam_search(step, swipes[0], spec())[0]
    assert best.log_prob >= beam_search(step, swipes[0], spec(), rules=rules)[0].log_prob


def test_rules_that_no_decoder_could_follow_are_errors() -> None:
    one = Transducer.of(spec())
    with pytest.raises(TransducerError, match="decoding would not end"):
        replace(one, frames=np.zeros_like(one.frames))
    with pytest.raises(TransducerError, match="max_symbols is 0"):
        replace(one, max_symbols=0)
    with pytest.raises(TransducerError, match="two write the same label"):
        replace(one, symbols=np.where(one.symbols == 1, 0, one.symbols))
    with pytest.raises(DecodeError, match=r"should have \(1, 7\)"):
        greedy_decode(RandomStep(0), frames(0, 1), spec(), multi_blank())
