"""Greedy decoding, on steps small enough to follow by hand and on random ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exportgate.contract import IoContract, ModelSpec, step_contract
from exportgate.transducer import DecodeError
from harness.decode.greedy import greedy_decode


def spec(labels: int = 3, max_symbols: int | None = 2) -> ModelSpec:
    return ModelSpec(37, 4, 1, 1, 3, "striding", 4, 2, 1, 2, tuple("abcdef"[:labels]), max_symbols)


class Script:
    """A step whose logits are scripted, and which checks what it is fed."""

    def __init__(self, model: ModelSpec, symbols: list[int]) -> None:
        self.contract: IoContract = step_contract(model)
        self.model, self.symbols = model, symbols
        self.fed: list[tuple[int, float, int]] = []

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        symbol = self.symbols[len(self.fed)]
        self.fed.append(
            (int(inputs["y_prev"][0]), float(inputs["h0"][0, 0, 0]), int(inputs["enc_t"][0, 0]))
        )
        logits = np.zeros((1, self.model.vocab_size), np.float32)
        logits[0, symbol] = 5.0
        state = inputs["h0"] + 1
        return {"logits": logits, "h1": state, "c1": state}


def frames(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[None].repeat(4, axis=0)


def test_blank_moves_on_and_discards_the_state_a_label_keeps_it() -> None:
    model = spec()
    step = Script(model, [3, 0, 3, 1, 3])
    found = greedy_decode(step, frames(3), model)
    assert found.tokens == (0, 1)
    assert found.frames == (1, 2)
    # (symbol fed, state fed, frame fed): primed with the blank and zeros; the state advances only
    # with a label, so after the blank at frame 0 it is still zero.
    assert step.fed == [(3, 0.0, 0), (3, 0.0, 1), (0, 1.0, 1), (0, 1.0, 2), (1, 2.0, 2)]


def test_max_symbols_bounds_a_frame_and_keeps_the_state() -> None:
    model = spec(max_symbols=2)
    step = Script(model, [0, 1, 2, 3])
    found = greedy_decode(step, frames(2), model)
    assert found.tokens == (0, 1, 2)
    assert found.frames == (0, 0, 1)
    assert step.fed[2] == (1, 2.0, 1)


def test_score_and_margin_are_log_probabilities() -> None:
    model = spec()
    found = greedy_decode(Script(model, [0, 3]), frames(1), model)
    log_prob = 5.0 - np.log(np.exp(5.0) + 3)
    assert found.score == pytest.approx(log_prob)
    assert found.min_margin == pytest.approx(5.0)
    assert found.text(model.labels) == "a"


@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(0, 6))
@settings(max_examples=50, deadline=None)
def test_equal_to_a_literal_transcription(seed: int, max_symbols: int, count: int) -> None:
    model = spec(max_symbols=max_symbols)
    rng = np.random.default_rng(seed)
    weights = rng.normal(size=(2 + 4 + 4, 4)).astype(np.float32)

    class Random:
        contract = step_contract(model)

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            one_hot = np.eye(4, dtype=np.float32)[inputs["y_prev"]]
            row = np.concatenate([inputs["h0"][0], one_hot, inputs["enc_t"]], axis=1)
            logits = row @ weights
            hidden = np.tanh(logits[:, :2])[None]
            return {"logits": logits, "h1": hidden, "c1": hidden}

    encoded = rng.normal(size=(4, count)).astype(np.float32)
    tokens, state, last = [], np.zeros((1, 1, 2), np.float32), 3
    for t in range(count):
        for _ in range(max_symbols):
            out = Random().run(
                {
                    "y_prev": np.array([last]),
                    "h0": state,
                    "c0": state,
                    "enc_t": encoded[None, :, t],
                }
            )
            best = int(out["logits"][0].argmax())
            if best == 3:
                break
            tokens.append(best)
            last, state = best, out["h1"]
    assert greedy_decode(Random(), encoded, model).tokens == tuple(tokens)


def test_nan_and_misshapen_logits_are_errors() -> None:
    model = spec()

    class Wrong(Script):
        def __init__(self, logits: np.ndarray) -> None:
            super().__init__(model, [])
            self.logits = logits

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"logits": self.logits, "h1": inputs["h0"], "c1": inputs["c0"]}

    with pytest.raises(DecodeError, match="NaN"):
        greedy_decode(Wrong(np.full((1, 4), np.nan)), frames(1), model)
    with pytest.raises(DecodeError, match=r"shape \(1, 1, 1, 4\), but should have \(1, 4\)"):
        greedy_decode(Wrong(np.zeros((1, 1, 1, 4))), frames(1), model)
