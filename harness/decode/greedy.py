"""Greedy decoding over a step session, equal to NeMo's token for token.

The rules and the loop are ``exportgate.transducer``'s; here stands what is kept of a decoding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.runtime.split import for_decoding
from exportgate.transducer import Transducer, follow
from harness.decode.spelling import spell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.transducer import Call, Step


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
        return spell(self.tokens, labels)


def greedy_decode(
    step: Step,
    encoded: NDArray[np.float32],
    spec: ModelSpec,
    rules: Transducer | None = None,
) -> Hypothesis:
    """Decode one swipe.

    Args:
        step: Session of a step, see ``exportgate.contract.step_contract``.
        encoded: (D, T') valid frames of the encoder's output.
        spec: Dimensions of the step.
        rules: What a symbol does; None: the model's own.

    Raises:
        DecodeError: The step gives NaN, or logits of another shape than (1, V).
    """
    return greedy_together(step, [encoded], spec, rules)[0]


def greedy_decode_all(
    step: Step, encoded: Sequence[NDArray[np.float32]], spec: ModelSpec
) -> list[Hypothesis]:
    """Decode swipes one after the other, as an application does.

    A file that takes a batch is called for one swipe nevertheless: dynamic quantization has one
    scale for all of a batch, so that neighbours would change each other's logits.
    """
    kept = for_decoding(step)
    return [greedy_decode(kept, item, spec) for item in encoded]


def greedy_together(
    step: Step,
    encoded: Sequence[NDArray[np.float32]],
    spec: ModelSpec,
    rules: Transducer | None = None,
) -> list[Hypothesis]:
    """Decode swipes in one batch, each at its own frame; see ``greedy_decode``."""
    rules = rules or Transducer.of(spec)
    return hypotheses_of(follow(step, encoded, spec, rules), len(encoded), rules)


def hypotheses_of(calls: Iterable[Call], swipes: int, rules: Transducer) -> list[Hypothesis]:
    """Gather what each of the swipes was decoded as from the calls of its decoding."""
    kept = list(calls)
    if not kept:
        return [Hypothesis((), (), 0.0, math.inf, 0)] * swipes
    rows = np.concatenate([call.rows for call in kept])
    places = np.concatenate([call.places for call in kept])
    arcs = np.concatenate([call.decision.arcs for call in kept])
    log_probs, margins = _best_and_lead(np.concatenate([call.scores for call in kept]))
    return [
        _hypothesis(arcs[mine], places[mine], log_probs[mine], margins[mine], rules)
        for mine in (np.flatnonzero(rows == row) for row in range(swipes))
    ]


def _best_and_lead(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return log-probability of the best arc and its lead over the second, for each row."""
    second, best = np.partition(scores, -2, axis=1)[:, -2:].T
    normaliser = best + np.log(np.exp(scores - best[:, None]).sum(axis=1))
    return best - normaliser, best - second


def _hypothesis(
    arcs: NDArray[np.int64],
    places: NDArray[np.int64],
    log_probs: NDArray[np.float64],
    margins: NDArray[np.float64],
    rules: Transducer,
) -> Hypothesis:
    writes = rules.commits[arcs]
    return Hypothesis(
        tuple(rules.symbols[arcs[writes]].tolist()),
        tuple(places[writes].tolist()),
        # One after the other, as NeMo adds: numpy's pairwise sum differs in the last bits.
        float(sum(log_probs[writes].tolist())),
        float(margins.min(initial=np.inf)),
        len(arcs),
    )
