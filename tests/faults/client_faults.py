"""Faulty loaders and decoders, as they were found in public code; they run in workers."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import atomic_write
from exportgate.transducer import Transducer
from harness.decode.greedy import Hypothesis, greedy_decode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exporters.nemo.checkpoint import Checkpoint
    from exportgate.contract import ModelSpec


def load_dropping_weights(path: Path) -> Checkpoint:
    """Load as ``strict=False`` does when decoder and joint have an unknown prefix: random."""
    import torch

    from exporters.nemo.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    with torch.no_grad():
        for part in (checkpoint.model.decoder, checkpoint.model.joint):
            for weight in part.parameters():
                weight.uniform_(-0.1, 0.1)
        # Blank always wins: two implementations decode it alike, whatever random states do.
        checkpoint.model.joint.joint_net[-1].bias[-1] = 5.0
    return checkpoint


def decode_advancing_on_blank(
    step: Any, encoded: Sequence[np.ndarray], spec: ModelSpec
) -> list[Hypothesis]:
    """Greedy decoding that keeps state and symbol also after a blank."""
    return [_decode(step, item, spec, start=spec.blank_id) for item in encoded]


def decode_from_label(
    step: Any, encoded: Sequence[np.ndarray], spec: ModelSpec
) -> list[Hypothesis]:
    """Greedy decoding that starts with label 0 instead of the blank."""
    primed = _Primed(step, spec)
    return [primed.decode(item) for item in encoded]


class _Primed:
    """A step that takes the first symbol, the blank with zero states, for label 0."""

    def __init__(self, step: Any, spec: ModelSpec) -> None:
        self._step, self._spec = step, spec

    def decode(self, encoded: np.ndarray) -> Hypothesis:
        return greedy_decode(self, encoded, self._spec)

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["y_prev"][0] == self._spec.blank_id:
            inputs = {**inputs, "y_prev": np.zeros_like(inputs["y_prev"])}
        return self._step.run(inputs)


def _decode(step: Any, encoded: np.ndarray, spec: ModelSpec, *, start: int) -> Hypothesis:
    rules = Transducer.of(spec)
    state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    feed = {"y_prev": np.array([start]), "h0": state, "c0": state}
    tokens: list[int] = []
    score = 0.0
    for frame in np.ascontiguousarray(encoded.T[:, None]):
        for _ in range(spec.max_symbols or 10):
            outputs = step.run({**feed, "enc_t": frame})
            (row,) = rules.checked_scores(outputs["logits"], 1)
            best = int(row.argmax())
            feed = {"y_prev": np.array([best]), "h0": outputs["h1"], "c0": outputs["c1"]}
            if best == spec.blank_id:
                break
            tokens.append(best)
            score += float(row[best] - np.logaddexp.reduce(row))
    return Hypothesis(tuple(tokens), (), score, 0.0, 0)


def kill_myself_while_writing(path: Path) -> None:
    """Die without warning between the first and the last byte."""
    with atomic_write(path) as draft:
        draft.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
