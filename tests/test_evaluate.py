"""Batched evaluation gives what one swipe at a time gives, fast, and refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exportgate.artifacts.sidecar import ArtifactError
from exportgate.transducer import DecodeError
from harness.decode.accuracy import Accuracy
from harness.decode.batches import encode_all, greedy_batched
from harness.decode.greedy import greedy_decode
from harness.diagnose.evaluate import EvaluateError, Evaluation, _pairs, main, table
from tests.test_beam import RandomStep, frames, spec

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(0, 2**31), st.lists(st.integers(0, 7), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_equal_to_one_swipe_at_a_time(seed: int, counts: list[int]) -> None:
    step = RandomStep(seed)
    encoded = [frames(seed + index, count) for index, count in enumerate(counts)]
    done: list[tuple[int, int]] = []
    found = greedy_batched(step, encoded, spec(), lambda *now: done.append(now))
    assert done[-1] == (len(counts), len(counts))
    alone = [greedy_decode(step, item, spec()) for item in encoded]
    assert alone == greedy_batched(RandomStep(seed, batch=1), encoded, spec())
    assert [(h.tokens, h.frames, h.steps) for h in found] == [
        (h.tokens, h.frames, h.steps) for h in alone
    ]
    for one, other in zip(found, alone, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)
        assert one.min_margin == pytest.approx(other.min_margin, abs=1e-5)


def test_no_limit_of_symbols_is_no_limit() -> None:
    class Twenty(RandomStep):
        """Emits until its state says twenty."""

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            logits = np.zeros((len(inputs["y_prev"]), 6), np.float32)
            logits[:, 1] = inputs["h0"][0, :, 0] < 20
            logits[:, 5] = 0.5
            return {"logits": logits, "h1": inputs["h0"] + 1, "c1": inputs["c0"]}

    free = replace(spec(), max_symbols=None)
    assert greedy_batched(Twenty(0), [frames(0, 2)], free)[0].tokens == (1,) * 20
    assert greedy_batched(Twenty(0), [frames(0, 2)], spec())[0].tokens == (1,) * 4


def test_nan_and_misshapen_logits_are_errors() -> None:
    class Wrong(RandomStep):
        value = np.full((1, 6), np.nan)

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {**super().run(inputs), "logits": self.value}

    step = Wrong(0)
    with pytest.raises(DecodeError, match="NaN"):
        greedy_batched(step, [frames(0, 1)], spec())
    step.value = np.zeros((1, 1, 1, 6))
    with pytest.raises(DecodeError, match=r"should have \(1, 6\)"):
        greedy_batched(step, [frames(0, 1)], spec())


def test_encodings_come_back_in_order_and_without_padding() -> None:
    from exportgate.contract import encoder_contract

    class Halve:
        contract = encoder_contract(spec())

        def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            batch = inputs["features_bft"]
            rows = np.arange(batch.shape[2])
            assert not batch.transpose(0, 2, 1)[rows >= inputs["lengths"][:, None]].any()
            return {
                "encoded_bdt": batch[:, :, ::2],
                "encoded_lengths": (inputs["lengths"] + 1) // 2,
            }

    rng = np.random.default_rng(0)
    features = [rng.normal(size=(37, n)).astype(np.float32) for n in rng.integers(1, 60, 40)]
    found = encode_all(Halve(), features)
    assert all(np.array_equal(a, b[:, ::2]) for a, b in zip(found, features, strict=True))


def test_files_are_paired(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    assert _pairs([one, two], [two]) == [(one, two), (two, two)]
    assert _pairs([one, two], [two, one]) == [(one, two), (two, one)]
    with pytest.raises(EvaluateError, match="2 encoders and 3 steps"):
        _pairs([one, two], [one] * 3)


def test_the_table_says_what_was_not_searched() -> None:
    accuracy = Accuracy(10, 0.9, 0.9, 0.01, 5.5, 0.002)
    text = table([Evaluation("e.onnx", "s.onnx", accuracy, None, "", 60.0)])
    assert text.splitlines()[-1] == (
        "| e.onnx | s.onnx | 0.9000 | 0.0100 | 5.50 | 0.0020 | – | – |"
    )


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="no such artifact; export it first"):
        main(["--encoder", missing, "--step", missing, "--manifest", missing])
