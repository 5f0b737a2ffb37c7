"""RNN-T beam search over any step session, constrained to a lexicon or free.

Time-synchronous search after Saon, Tüske and Audhkhasi (2020, "Alignment-length synchronous
decoding", section 2): within a frame, rounds of label expansions; each round every hypothesis may
close the frame with a blank. A prefix that is reached by several alignments is one hypothesis, its
probability their sum; a blank keeps the state, a label commits it. One round is one call of the
step over the whole beam where the step has a batch axis.

The probability of a prefix is the sum over all alignments with at most ``max_symbols`` labels in a
frame, each frame closed by a blank. With a beam that never overflows and an infinite threshold the
search computes it exactly (``tests/test_beam.py`` holds it against an enumeration).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from exportgate.errors import ExportGateError
from harness.decode.greedy import DecodeError
from harness.decode.lexicon import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Session
    from harness.decode.lexicon import Lexicon

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
        tokens: Label ids.
        score: ``log_prob`` and the weighted prior: what results are ranked by.
        log_prob: Natural log of P(tokens | swipe), summed over the alignments that were searched.
    """

    tokens: tuple[int, ...]
    score: float
    log_prob: float

    def text(self, labels: Sequence[str]) -> str:
        """Spell the tokens."""
        return "".join(labels[token] for token in self.tokens)


class Prefixes(Protocol):
    """What may follow what: numbers prefixes, so that equal prefixes have equal numbers.

    Attributes:
        symbols: (A,) label id of each column of ``outlook``.
        start: Best weighted prior of all results.
    """

    symbols: NDArray[np.int64]
    start: float

    def outlook(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return (K, A): best weighted prior after each label; -inf where none may follow."""

    def extend(self, prefixes: NDArray[np.int32], columns: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the number of each prefix with the label of its column appended."""

    def final_prior(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return the weighted prior of each prefix as a result; -inf if it is none."""

    def tokens(self, prefix: int) -> tuple[int, ...]:
        """Return a prefix's label ids."""


class LexiconPrefixes:
    """Prefixes of a lexicon's words: their numbers are the trie's nodes."""

    def __init__(self, lexicon: Lexicon, labels: Sequence[str], weight: float) -> None:
        """Map the lexicon's letters to label ids.

        Raises:
            BeamError: The vocabulary lacks a letter of the lexicon, or has it twice.
        """
        for letter in lexicon.letters:
            if list(labels).count(letter) != 1:
                msg = (
                    f"the lexicon's letter {letter!r} occurs {list(labels).count(letter)} times in "
                    "the vocabulary, but should once; build the lexicon for these labels"
                )
                raise BeamError(msg)
        self.symbols = np.array([labels.index(letter) for letter in lexicon.letters], np.int64)
        self.start = weight * float(lexicon.best_log_prior[ROOT])
        self._lexicon, self._weight = lexicon, weight

    def outlook(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """See ``Prefixes.outlook``."""
        children = self._lexicon.children(prefixes)
        prior = self._weight * self._lexicon.best_log_prior[children].astype(np.float64)
        return np.where(children >= 0, prior, -np.inf)

    def extend(self, prefixes: NDArray[np.int32], columns: NDArray[np.intp]) -> NDArray[np.int32]:
        """See ``Prefixes.extend``."""
        found: NDArray[np.int32] = self._lexicon.children(prefixes)[
            np.arange(len(columns)), columns
        ]
        return found

    def final_prior(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """See ``Prefixes.final_prior``."""
        prior = self._lexicon.log_prior[prefixes].astype(np.float64)
        # Not the product alone: -inf times a weight of 0 is NaN.
        return np.where(np.isfinite(prior), self._weight * np.maximum(prior, -1e9), -np.inf)

    def tokens(self, prefix: int) -> tuple[int, ...]:
        """See ``Prefixes.tokens``."""
        text = self._lexicon.text(prefix)
        return tuple(int(self.symbols[self._lexicon.letters.index(letter)]) for letter in text)


@dataclass
class FreePrefixes:
    """Any sequence of labels; each prefix is numbered when it is first reached.

    Attributes:
        symbols: Ids of all labels.
        start: See ``Prefixes``.
    """

    symbols: NDArray[np.int64]
    start: float = 0.0
    _origin: list[tuple[int, int]] = field(default_factory=lambda: [(-1, -1)])
    _number: dict[tuple[int, int], int] = field(default_factory=dict)

    def outlook(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """See ``Prefixes.outlook``."""
        return np.zeros((len(prefixes), len(self.symbols)))

    def extend(self, prefixes: NDArray[np.int32], columns: NDArray[np.intp]) -> NDArray[np.int32]:
        """See ``Prefixes.extend``."""
        numbers = []
        for key in zip(prefixes.tolist(), columns.tolist(), strict=True):
            if key not in self._number:
                self._number[key] = len(self._origin)
                self._origin.append(key)
            numbers.append(self._number[key])
        return np.array(numbers, np.int32)

    def final_prior(self, prefixes: NDArray[np.int32]) -> NDArray[np.float64]:
        """See ``Prefixes.final_prior``."""
        return np.zeros(len(prefixes))

    def tokens(self, prefix: int) -> tuple[int, ...]:
        """See ``Prefixes.tokens``."""
        found = []
        while prefix != ROOT:
            prefix, column = self._origin[prefix]
            found.append(int(self.symbols[column]))
        return tuple(reversed(found))


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
) -> list[Candidate]:
    """Return the best words (or label sequences) for one swipe, best first.

    Args:
        step: Session of a step, see ``contract.step_contract``; called for the whole beam at once
            if its contract has a batch axis, else for one hypothesis at a time.
        encoded: (D, T') valid frames of the encoder's output.
        spec: Labels and blank.
        lexicon: Words that may be found; None: every sequence of labels.
        config: How wide to search.

    Returns:
        At most ``config.top`` candidates; none if no hypothesis in the last beam is a whole word.

    Raises:
        DecodeError: The step gives NaN, or logits of another shape than (K, V).
        BeamError: The lexicon's letters are not those of the vocabulary.
    """
    config = config or BeamConfig()
    prefixes: Prefixes = (
        FreePrefixes(np.arange(spec.blank_id))
        if lexicon is None
        else LexiconPrefixes(lexicon, spec.labels, config.prior_weight)
    )
    call = _batched_call(step) if _has_batch_axis(step) else _single_call(step)
    state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
    beam = _Beam(
        np.array([ROOT], np.int32),
        np.array([spec.blank_id], np.int64),
        state,
        state,
        np.zeros(1),
        np.array([prefixes.start]),
    )
    for frame in np.ascontiguousarray(encoded.T, dtype=np.float32):
        beam = _advance(beam, frame, call, prefixes, spec, config)
    return _results(beam, prefixes, config)


def beam_search_all(
    step: Session,
    encoded: Sequence[NDArray[np.float32]],
    spec: ModelSpec,
    lexicon: Lexicon | None = None,
    config: BeamConfig | None = None,
) -> list[list[Candidate]]:
    """Search for swipes one after the other."""
    return [beam_search(step, item, spec, lexicon, config) for item in encoded]


def _advance(
    beam: _Beam,
    frame: NDArray[np.float32],
    call: Callable[[_Beam, NDArray[np.float32]], dict[str, NDArray[Any]]],
    prefixes: Prefixes,
    spec: ModelSpec,
    config: BeamConfig,
) -> _Beam:
    """Take a beam through one frame: rounds of labels, each hypothesis closed by a blank."""
    closed: list[_Beam] = []
    best = -math.inf
    for emitted in range(config.max_symbols + 1):
        outputs = call(beam, frame)
        log_probs = _log_softmax(outputs["logits"], len(beam.prefix), spec.vocab_size)
        closed.append(beam.with_log_prob(beam.log_prob + log_probs[:, spec.blank_id]))
        if emitted == config.max_symbols:
            break
        best = max(best, float(closed[-1].score.max()))
        grown = beam.log_prob[:, None] + log_probs[:, prefixes.symbols]
        outlook = prefixes.outlook(beam.prefix)
        rows, columns = _survivors(grown + outlook, best, config)
        if not len(rows):
            break
        beam = _Beam(
            prefixes.extend(beam.prefix[rows], columns),
            prefixes.symbols[columns],
            outputs["h1"][:, rows],
            outputs["c1"][:, rows],
            grown[rows, columns],
            outlook[rows, columns],
        )
    return _merged(closed, config)


def _survivors(
    score: NDArray[np.float64], best: float, config: BeamConfig
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the best entries of (K, A), at most a beam, best first."""
    flat = score.ravel()
    limit = max(best, float(flat.max())) - config.threshold_nats
    kept = np.flatnonzero((flat >= limit) & np.isfinite(flat))
    kept = kept[np.argsort(-flat[kept], kind="stable")[: config.beam]]
    rows, columns = np.divmod(kept, score.shape[1])
    return rows, columns


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
    score = beam.log_prob + prefixes.final_prior(beam.prefix)
    order = [int(row) for row in np.argsort(-score, kind="stable") if np.isfinite(score[row])]
    return [
        Candidate(
            prefixes.tokens(int(beam.prefix[row])), float(score[row]), float(beam.log_prob[row])
        )
        for row in order[: config.top]
    ]


def _has_batch_axis(step: Session) -> bool:
    return isinstance(step.contract.inputs[0].shape[0], str)


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


def _log_softmax(logits: NDArray[Any], rows: int, vocab_size: int) -> NDArray[np.float64]:
    """Return log-probabilities (K, V) in float64."""
    if logits.shape != (rows, vocab_size):
        msg = f"logits have shape {logits.shape}, but should have ({rows}, {vocab_size})"
        raise DecodeError(msg)
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    if not np.isfinite(shifted).all():
        msg = "logits hold NaN or infinite values"
        raise DecodeError(msg)
    found: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found
