"""The rules of a transducer, as one object, and the one greedy loop that follows them.

What may happen at an encoder frame is a table of *arcs*: what an arc writes, whether it commits the
prediction network's new state, and how many frames it moves on. RNN-T has an arc for each label
(write it, commit, stay) and one for the blank (write nothing, discard the state, move one frame).
A multi-blank transducer would have arcs that move further; a TDT one an arc for each pair of symbol
and duration, and its own ``scores``. Greedy decoding, beam search, roll-outs and calibration ask
this object, so that they cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec


class TransducerError(ExportGateError, ValueError):
    """Rules that no decoder could follow to an end."""


class DecodeError(ExportGateError, RuntimeError):
    """A step gives outputs that cannot be decoded."""


class Step(Protocol):
    """What decodes: the part of a ``Session`` that decoding needs."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once; see ``exportgate.contract.step_contract``."""


class Decision(NamedTuple):
    """What K hypotheses do next.

    Attributes:
        arcs: (K,) int64 the arc that each takes.
        commits: (K,) bool whether it writes a label, and keeps symbol and state with it.
        frames: (K,) int64 how far it moves in time; 0: it stays at its frame.
    """

    arcs: NDArray[np.int64]
    commits: NDArray[np.bool_]
    frames: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Transducer:
    """Rules of decoding with A arcs.

    Attributes:
        start: The symbol that is fed, with zero states, before any label is known.
        symbols: (A,) int64 the label that an arc writes; anything for one that writes nothing.
        commits: (A,) bool whether it writes that label and commits it and the new state; the others
            discard the state.
        frames: (A,) int64 frames that it moves on.
        max_symbols: Labels written at one frame, after which decoding moves on; None: no limit.
    """

    start: int
    symbols: NDArray[np.int64]
    commits: NDArray[np.bool_]
    frames: NDArray[np.int64]
    max_symbols: int | None

    def __post_init__(self) -> None:
        if self.frames.min() < 0 or not self.frames[~self.commits].all():
            msg = (
                f"arcs move {self.frames.tolist()} frames, but none should move back, and one that "
                "writes nothing should move on: decoding would not end"
            )
            raise TransducerError(msg)
        writing = list(zip(self.symbols[self.commits], self.frames[self.commits], strict=True))
        if len(set(writing)) < len(writing):
            msg = f"of {len(writing)} arcs that write, two write the same label and move as far"
            raise TransducerError(msg)
        if self.max_symbols is not None and self.max_symbols < 1:
            msg = f"max_symbols is {self.max_symbols}, but should be at least 1, or None: no limit"
            raise TransducerError(msg)

    def writing_arcs(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Return the arcs that write, for each number of frames that they move on.

        Returns:
            Frames, and the arc that writes each label, by the label's id; -1 where none does.
        """
        found = []
        for frames in sorted({*self.frames[self.commits].tolist()}):
            arcs = np.flatnonzero(self.commits & (self.frames == frames))
            arc_of = np.full(int(self.symbols[self.commits].max()) + 1, -1)
            arc_of[self.symbols[arcs]] = arcs
            found.append((frames, arc_of))
        return found

    @classmethod
    def of(cls, spec: ModelSpec) -> Transducer:
        """Return the rules of a model: RNN-T's, after NeMo's ``GreedyRNNTInfer``.

        Start with the blank (its embedding row is zero). A blank moves on and discards the new
        state; a label commits symbol and state; after ``max_symbols`` labels at a frame the next
        one is taken, the state kept.
        """
        symbols = np.arange(spec.vocab_size)
        blank = symbols == spec.blank_id
        return cls(spec.blank_id, symbols, ~blank, blank.astype(np.int64), spec.max_symbols)

    @property
    def width(self) -> int:
        """Logits that the step gives for each hypothesis."""
        return len(self.symbols)

    def scores(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (K, A) scores from (K, width) logits: a softmax over them gives probabilities."""
        return logits

    def checked_scores(self, logits: NDArray[Any], rows: int) -> NDArray[np.float64]:
        """Return (K, A) float64 scores of a step's raw output.

        Raises:
            DecodeError: It has another shape than (rows, width), or holds NaN or infinite values.
        """
        if logits.shape != (rows, self.width):
            msg = f"logits have shape {logits.shape}, but should have ({rows}, {self.width})"
            raise DecodeError(msg)
        if not np.isfinite(logits).all():
            msg = "logits hold NaN or infinite values"
            raise DecodeError(msg)
        return self.scores(logits.astype(np.float64))

    def decide(self, scores: NDArray[np.float64], written: NDArray[np.int64]) -> Decision:
        """Choose the best arc of each hypothesis; of equal ones the first, as torch does.

        Args:
            scores: (K, A).
            written: (K,) labels that each has written at its frame so far.
        """
        arcs = scores.argmax(axis=1)
        commits, frames = self.commits[arcs], self.frames[arcs]
        if self.max_symbols is not None:
            frames = np.maximum(frames, commits & (written + 1 >= self.max_symbols))
        return Decision(arcs, commits, frames)


class Call(NamedTuple):
    """One call of the step while K of N swipes are decoded.

    Attributes:
        rows: (K,) int64 which of the swipes.
        places: (K,) int64 the frame of each.
        inputs: As the step took them.
        outputs: As it gave them; a runtime may overwrite them at the next call.
        scores: (K, A) float64.
        decision: What each does next.
    """

    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]
    scores: NDArray[np.float64]
    decision: Decision


def follow(
    step: Step, encoded: Sequence[NDArray[np.float32]], spec: ModelSpec, rules: Transducer
) -> Iterator[Call]:
    """Decode N swipes greedily, each at its own frame; yield every call of the step.

    Args:
        step: One that takes a batch of N, or of 1 for a single swipe.
        encoded: (D, T') valid frames of each swipe.
        spec: Dimensions of the states.
        rules: What a symbol does.

    Raises:
        DecodeError: The step gives NaN, or logits of another shape than (K, width).
    """
    lengths = np.array([item.shape[1] for item in encoded], np.int64)
    frames = np.zeros((len(encoded), int(lengths.max(initial=0)), spec.d_model), np.float32)
    for row, item in zip(frames, encoded, strict=True):
        row[: item.shape[1]] = item.T
    rows = np.flatnonzero(lengths)
    # Arrays of those that are not done yet. They are replaced, never changed: a caller keeps them.
    hidden = cell = np.zeros((spec.pred_layers, len(rows), spec.pred_hidden), np.float32)
    last = np.full(len(rows), rules.start, np.int64)
    places = written = np.zeros(len(rows), np.int64)
    while len(rows):
        inputs: dict[str, NDArray[Any]] = {
            "y_prev": last,
            "h0": hidden,
            "c0": cell,
            "enc_t": frames[rows, places],
        }
        outputs = step.run(inputs)
        scores = rules.checked_scores(outputs["logits"], len(rows))
        found = rules.decide(scores, written)
        yield Call(rows, places, inputs, outputs, scores, found)
        if found.commits.any():
            last = np.where(found.commits, rules.symbols[found.arcs], last)
            hidden = np.where(found.commits[:, None], outputs["h1"], hidden)
            cell = np.where(found.commits[:, None], outputs["c1"], cell)
        places = places + found.frames
        written = np.where(found.frames, 0, written + found.commits)
        going = places < lengths[rows]
        if not going.all():
            rows, last, places, written = rows[going], last[going], places[going], written[going]
            hidden, cell = hidden.compress(going, axis=1), cell.compress(going, axis=1)
