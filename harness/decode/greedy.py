"""Greedy RNN-T decoding over a step session, equal to NeMo's token for token.

The algorithm is that of NeMo's ``GreedyRNNTInfer``: prime with the blank (its embedding row is
zero) and zero states; at each valid frame take the best symbol; a blank moves on to the next frame
and discards the new state; a label is emitted and commits symbol and state; after ``max_symbols``
labels at one frame go on to the next, the state kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Session


class DecodeError(ExportGateError, RuntimeError):
    """A step gives outputs that cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a swipe was decoded as.

    Attributes:
        tokens: Label ids.
        frames: The encoder frame at which each was emitted.
        score: Sum of the natural log-probabilities of the emitted labels, as NeMo's ``score``.
        min_margin: Smallest difference in log-probability between the best and the second symbol
            over all steps; a decision this close may fall the other way on other hardware.
        steps: Calls of the step.
    """

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    score: float
    min_margin: float
    steps: int

    def text(self, labels: Sequence[str]) -> str:
        """Spell the tokens."""
        return "".join(labels[token] for token in self.tokens)


def greedy_decode(step: Session, encoded: NDArray[np.float32], spec: ModelSpec) -> Hypothesis:
    """Decode one swipe.

    Args:
        step: Session of a step, see ``exportgate.contract.step_contract``.
        encoded: (D, T') valid frames of the encoder's output.
        spec: Vocabulary size, blank and max_symbols.

    Raises:
        DecodeError: The step gives NaN, or logits of another shape than (1, V).
    """
    frames = np.ascontiguousarray(encoded.T[:, None, :], dtype=np.float32)
    state_shape = (spec.pred_layers, 1, spec.pred_hidden)
    hidden = np.zeros(state_shape, np.float32)
    cell = np.zeros(state_shape, np.float32)
    last = np.array([spec.blank_id], np.int64)
    tokens: list[int] = []
    emitted_at: list[int] = []
    score, margin, steps = 0.0, np.inf, 0
    limit = spec.max_symbols if spec.max_symbols is not None else np.inf
    for index, frame in enumerate(frames):
        emitted = 0
        while emitted < limit:
            outputs = step.run({"y_prev": last, "h0": hidden, "c0": cell, "enc_t": frame})
            best, log_prob, gap = _best(outputs["logits"], spec.vocab_size)
            steps += 1
            margin = min(margin, gap)
            if best == spec.blank_id:
                break
            tokens.append(best)
            emitted_at.append(index)
            score += log_prob
            last = np.array([best], np.int64)
            hidden, cell = outputs["h1"], outputs["c1"]
            emitted += 1
    return Hypothesis(tuple(tokens), tuple(emitted_at), score, float(margin), steps)


def greedy_decode_all(
    step: Session, encoded: Sequence[NDArray[np.float32]], spec: ModelSpec
) -> list[Hypothesis]:
    """Decode swipes one after the other."""
    return [greedy_decode(step, item, spec) for item in encoded]


def _best(logits: NDArray[Any], vocab_size: int) -> tuple[int, float, float]:
    """Return the best symbol, its log-probability and its lead over the second."""
    if logits.shape != (1, vocab_size):
        msg = f"logits have shape {logits.shape}, but should have (1, {vocab_size})"
        raise DecodeError(msg)
    row = logits[0].astype(np.float64)
    if not np.isfinite(row).all():
        msg = "logits hold NaN or infinite values"
        raise DecodeError(msg)
    second, best = np.argpartition(row, -2)[-2:]
    if row[second] > row[best]:
        second, best = best, second
    normaliser = row[best] + np.log(np.exp(row - row[best]).sum())
    # argmax breaks ties to the lowest index, as torch does.
    winner = int(row.argmax())
    return winner, float(row[winner] - normaliser), float(row[best] - row[second])
