"""RNN-T beam search over any step session, constrained to a lexicon or free.

Time-synchronous search after Saon, Tüske and Audhkhasi (2020, "Alignment-length synchronous
decoding", section 2): within a frame, rounds of label expansions; each round every hypothesis may
close the frame with a blank. What a symbol does is the ``Transducer``'s to say. A prefix that is
reached by several alignments is one hypothesis, its probability their sum. One round is one call of
the step over the whole beam where the step has a batch axis.

The probability of a prefix is the sum over all alignments with at most ``max_symbols`` labels in a
frame, each frame closed by a blank. With a beam that never overflows and an infinite threshold the
search computes it exactly (``tests/test_beam.py`` holds it against an enumeration).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.errors import ExportGateError
from exportgate.runtime.split import for_decoding
from exportgate.transducer import Transducer
from harness.decode.batches import has_batch_axis
from harness.decode.lexicon import ROOT
from harness.decode.prefixes import FreePrefixes, LexiconPrefixes
from harness.decode.spelling import spell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Session
    from harness.decode.lexicon import Lexicon
    from harness.decode.prefixes import Prefixes

DEFAULT_MAX_SYMBOLS = 4
"""Labels in one frame, of a beam's hypotheses: with T' >= 8 no swipe needs more."""


class BeamError(ExportGateError, ValueError):
    """A search was set up with what cannot be searched."""


@dataclass(frozen=True, slots=True)
class BeamConfig:
    """How wide to search.

    Attributes:
        beam: Hypotheses kept at most, in each round and after each frame.
        threshold_nats: Hypotheses this far below the best are dropped.
        prior_weight: What the log of a word's frequency is multiplied by; 0: all words alike.
        max_symbols: Labels emitted in one frame at most.
        top: Results returned at most.
    """

    beam: int = 16
    threshold_nats: float = 10.0
    prior_weight: float = 0.3
    max_symbols: int = DEFAULT_MAX_SYMBOLS
    top: int = 5

    def __post_init__(self) -> None:
        if min(self.beam, self.max_symbols, self.top) < 1 or not self.threshold_nats > 0:
            msg = f"{self}: beam, max_symbols and top should be at least 1, the threshold above 0"
            raise BeamError(msg)
        if not self.prior_weight >= 0:
            msg = f"prior_weight is {self.prior_weight}, but should be at least 0"
            raise BeamError(msg)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One result of a search.

    Attributes:
        tokens: Label ids; of a word that labels spell in several ways, the likeliest of these.
        score: ``log_prob`` and the weighted prior: what results are ranked by.
        log_prob: Natural log of P(tokens | swipe), summed over the alignments that were searched;
            of a word of a lexicon summed over its spellings too.
    """

    tokens: tuple[int, ...]
    score: float
    log_prob: float

    def text(self, labels: Sequence[str]) -> str:
        """Spell the tokens."""
        return spell(self.tokens, labels)


@dataclass(frozen=True, slots=True)
class _Beam:
    """K hypotheses.

    Attributes:
        prefix: (K,) their numbers.
        last: (K,) last label, or the blank before the first.
        hidden: (L, K, H) state before ``last`` is fed, as the step takes it.
        cell: (L, K, H).
        log_prob: (K,) float64.
        outlook: (K,) float64 best weighted prior that can still be reached.
    """

    prefix: NDArray[np.int32]
    last: NDArray[np.int64]
    hidden: NDArray[np.float32]
    cell: NDArray[np.float32]
    log_prob: NDArray[np.float64]
    outlook: NDArray[np.float64]

    @property
    def score(self) -> NDArray[np.float64]:
        return self.log_prob + self.outlook

    def take(self, rows: NDArray[np.intp]) -> _Beam:
        return _Beam(
            self.prefix[rows],
            self.last[rows],
            self.hidden[:, rows],
            self.cell[:, rows],
            self.log_prob[rows],
            self.outlook[rows],
        )

    def with_log_prob(self, log_prob: NDArray[np.float64]) -> _Beam:
        return _Beam(self.prefix, self.last, self.hidden, self.cell, log_prob, self.outlook)


def beam_search(
    step: Session,
    encoded: NDArray[np.float32],
    spec: ModelSpec,
    lexicon: Lexicon | None = None,
    config: BeamConfig | None = None,
    rules: Transducer | None = None,
) -> list[Candidate]:
    """Return the best words (or label sequences) for one swipe, best first.

    Args:
        step: Session of a step, see ``contract.step_contract``; called for the whole beam at once
            if its contract has a batch axis, else for one hypothesis at a time.
        encoded: (D, T') valid frames of the encoder's output.
        spec: Labels and blank.
        lexicon: Words that may be found; None: every sequence of labels.
        config: How wide to search.
        rules: What a symbol does; None: the model's own.

    Returns:
        At most ``config.top`` candidates; none if no hypothesis in the last beam is a whole word.

    Raises:
        DecodeError: The step gives NaN, or logits of another shape than (K, V).
        PrefixError: The vocabulary cannot spell the lexicon.
    """
    config, rules = config or BeamConfig(), rules or Transducer.of(spec)
    prefixes: Prefixes = (
        FreePrefixes(np.unique(rules.symbols[rules.commits]))
        if lexicon is None
        else LexiconPrefixes(lexicon, spec.labels, config.prior_weight)
    )
    search = _Search(_call_of(step), prefixes, rules, config)
    state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    start = _Beam(
        np.array([ROOT], np.int32),
        np.array([rules.start], np.int64),
        state,
        state,
        np.zeros(1),
        np.array([prefixes.start]),
    )
    frames = np.ascontiguousarray(encoded.T, dtype=np.float32)
    # Hypotheses wait at the frame that they moved to.
    waiting: dict[int, list[_Beam]] = {0: [start]}
    for place, frame in enumerate(frames):
        if place in waiting:
            for moved, beam in search.advance(_merged(waiting.pop(place), config), frame):
                waiting.setdefault(min(place + moved, len(frames)), []).append(beam)
    return _results(_merged(waiting[len(frames)], config), prefixes, config)


def beam_search_all(
    step: Session,
    encoded: Sequence[NDArray[np.float32]],
    spec: ModelSpec,
    lexicon: Lexicon | None = None,
    config: BeamConfig | None = None,
) -> list[list[Candidate]]:
    """Search for swipes one after the other."""
    kept = for_decoding(step)
    return [beam_search(kept, item, spec, lexicon, config) for item in encoded]


class _Search:
    """What does not change from frame to frame."""

    def __init__(
        self,
        call: Callable[[_Beam, NDArray[np.float32]], dict[str, NDArray[Any]]],
        prefixes: Prefixes,
        rules: Transducer,
        config: BeamConfig,
    ) -> None:
        self._call, self._prefixes, self._rules, self._config = call, prefixes, rules, config
        self._closing = [
            (int(arc), int(rules.frames[arc])) for arc in np.flatnonzero(~rules.commits)
        ]
        self._writing = rules.writing_arcs()
        self._complete = all((arc_of >= 0).all() for _, arc_of in self._writing)

    def advance(self, beam: _Beam, frame: NDArray[np.float32]) -> list[tuple[int, _Beam]]:
        """Take a beam through one frame: rounds of labels, each hypothesis closed by a blank.

        Returns:
            Beams, and how many frames each has moved on.
        """
        moved_on: list[tuple[int, _Beam]] = []
        best = -math.inf
        for emitted in range(self._config.max_symbols + 1):
            outputs = self._call(beam, frame)
            scores = self._rules.checked_scores(outputs["logits"], len(beam.prefix))
            log_probs = _log_softmax(scores)
            for arc, moved in self._closing:
                closed = beam.with_log_prob(beam.log_prob + log_probs[:, arc])
                moved_on.append((moved, closed))
                best = max(best, float(closed.score.max()))
            if emitted == self._config.max_symbols:
                break
            grown = self._grown(beam, outputs, log_probs, best)
            moved_on += [item for item in grown if item[0]]
            staying = [item for moved, item in grown if not moved]
            if not staying:
                break
            beam = staying[0]
        return moved_on

    def _grown(
        self,
        beam: _Beam,
        outputs: dict[str, NDArray[Any]],
        log_probs: NDArray[np.float64],
        best: float,
    ) -> list[tuple[int, _Beam]]:
        """Return the hypotheses that are a label longer, by the frames that the label moves on."""
        every, found = self._prefixes.continuations(beam.prefix), []
        for moved, arc_of in self._writing:
            arcs = arc_of[every.symbols]
            total = beam.log_prob[every.rows] + log_probs[every.rows, arcs]
            score = total + every.outlook
            if not self._complete:
                score[arcs < 0] = -np.inf
            kept = _survivors(score, best, self._config)
            if len(kept):
                rows, symbols = every.rows[kept], every.symbols[kept]
                longer = _Beam(
                    self._prefixes.extend(beam.prefix[rows], symbols, every.nodes[kept]),
                    symbols,
                    outputs["h1"][:, rows],
                    outputs["c1"][:, rows],
                    total[kept],
                    every.outlook[kept],
                )
                found.append((moved, longer))
        return found


def _survivors(score: NDArray[np.float64], best: float, config: BeamConfig) -> NDArray[np.intp]:
    """Return the places of the best scores, at most a beam, best first."""
    limit = max(best, float(score.max(initial=-np.inf))) - config.threshold_nats
    kept = np.flatnonzero(score >= limit if limit > -math.inf else score > -math.inf)
    return kept[np.argsort(-score[kept], kind="stable")[: config.beam]]


def _merged(closed: Sequence[_Beam], config: BeamConfig) -> _Beam:
    """Add up equal prefixes, whose states are equal too, and keep the best."""
    merged = closed[0]
    if len(closed) > 1:
        everything = _joined(closed)
        _, first, group = np.unique(everything.prefix, return_index=True, return_inverse=True)
        total = np.full(len(first), -np.inf)
        np.logaddexp.at(total, group, everything.log_prob)
        merged = everything.take(first).with_log_prob(total)
    score = merged.score
    order = np.argsort(-score, kind="stable")[: config.beam]
    return merged.take(order[score[order] >= score[order[0]] - config.threshold_nats])


def _joined(beams: Sequence[_Beam]) -> _Beam:
    return _Beam(
        np.concatenate([beam.prefix for beam in beams]),
        np.concatenate([beam.last for beam in beams]),
        np.concatenate([beam.hidden for beam in beams], axis=1),
        np.concatenate([beam.cell for beam in beams], axis=1),
        np.concatenate([beam.log_prob for beam in beams]),
        np.concatenate([beam.outlook for beam in beams]),
    )


def _results(beam: _Beam, prefixes: Prefixes, config: BeamConfig) -> list[Candidate]:
    """Add up hypotheses that are one result, and return the best results."""
    prior = prefixes.final_prior(beam.prefix)
    members: dict[int, list[int]] = {}
    for row, result in enumerate(prefixes.result(beam.prefix).tolist()):
        if np.isfinite(prior[row]):
            members.setdefault(result, []).append(row)
    found = []
    for rows in members.values():
        likeliest = max(rows, key=lambda row: float(beam.log_prob[row]))
        log_prob = float(np.logaddexp.reduce(beam.log_prob[rows]))
        tokens = prefixes.tokens(int(beam.prefix[likeliest]))
        found.append(Candidate(tokens, log_prob + float(prior[likeliest]), log_prob))
    return sorted(found, key=lambda item: -item.score)[: config.top]


def _call_of(step: Session) -> Callable[[_Beam, NDArray[np.float32]], dict[str, NDArray[Any]]]:
    return _batched_call(step) if has_batch_axis(step) else _single_call(step)


def _batched_call(
    step: Session,
) -> Callable[[_Beam, NDArray[np.float32]], dict[str, NDArray[Any]]]:
    def call(beam: _Beam, frame: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        frames = np.repeat(frame[None], len(beam.prefix), axis=0)
        return step.run({"y_prev": beam.last, "h0": beam.hidden, "c0": beam.cell, "enc_t": frames})

    return call


def _single_call(
    step: Session,
) -> Callable[[_Beam, NDArray[np.float32]], dict[str, NDArray[Any]]]:
    def call(beam: _Beam, frame: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        outputs = [
            step.run(
                {
                    "y_prev": beam.last[row : row + 1],
                    "h0": beam.hidden[:, row : row + 1],
                    "c0": beam.cell[:, row : row + 1],
                    "enc_t": frame[None],
                }
            )
            for row in range(len(beam.prefix))
        ]
        axes = {"logits": 0, "h1": 1, "c1": 1}
        return {
            name: np.concatenate([output[name] for output in outputs], axis=axis)
            for name, axis in axes.items()
        }

    return call


def _log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = scores - scores.max(axis=1, keepdims=True)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
