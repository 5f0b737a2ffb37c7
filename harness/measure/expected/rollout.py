"""What NeMo's step was asked, and what it gave, while a swipe was decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rollout:
    """Every call of the step while NeMo's outputs of one swipe were decoded.

    Attributes:
        y_prev: (S,) int64, symbol fed at each call.
        enc_t: (S, D) encoder frame at each call.
        commit: (S,) whether the call emitted a label, so that its state was kept.
        logits: (S, V) NeMo's joint before any softmax.
        h1: (S, L, H) hidden state after each call.
        c1: (S, L, H) cell state after each call.
    """

    y_prev: NDArray[np.int64]
    enc_t: NDArray[np.float32]
    commit: NDArray[np.bool_]
    logits: NDArray[np.float32]
    h1: NDArray[np.float32]
    c1: NDArray[np.float32]

    def with_log_probs(self) -> Rollout:
        """Return it with log-softmax of the logits in their place."""
        return replace(self, logits=log_softmax(self.logits))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return natural log-probabilities of (…, V) logits, rounded to float32 at the end."""
    wide = logits.astype(np.float64)
    return (wide - np.logaddexp.reduce(wide, axis=-1, keepdims=True)).astype(np.float32)
