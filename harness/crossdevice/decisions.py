"""What two encodings of the same swipes decide, along NeMo's own decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.transducer import Transducer, follow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Decisions:
    """NeMo's decisions over all swipes, made again with each of two encodings.

    Attributes:
        made: Calls of the step: a frame in a state.
        differing: Those whose best symbol is another with the other encoding.
        moved_nats: For each swipe the most by which the lead of a symbol over another moves;
            infinite where the encodings have other numbers of frames.
    """

    made: int
    differing: int
    moved_nats: tuple[float, ...]


def decisions(
    checkpoint: Checkpoint,
    nemo: Sequence[NDArray[np.float32]],
    ours: Sequence[NDArray[np.float32]],
    theirs: Sequence[NDArray[np.float32]],
) -> Decisions:
    """Feed NeMo's step both encodings, in the states and with the symbols of NeMo's decoding.

    Called in NeMo's worker.

    Args:
        checkpoint: The model.
        nemo: (D, T') NeMo's valid frames of each swipe.
        ours: The same of a file on one device.
        theirs: The same of the file on another.
    """
    from exporters.nemo.sessions import NemoStep  # noqa: PLC0415 - NeMo takes seconds

    spec, step = checkpoint.spec, NemoStep(checkpoint)
    sides = [_stacked(nemo, side) for side in (ours, theirs)]
    moved, made, differing = np.zeros(len(nemo)), 0, 0
    for call in follow(step, nemo, spec, Transducer.of(spec)):
        first, second = (
            step.run({**call.inputs, "enc_t": side[call.rows, call.places]})["logits"]
            for side in sides
        )
        lead = np.ptp((second - first).astype(np.float64), axis=1)
        np.maximum.at(moved, call.rows, lead)
        made += len(call.rows)
        differing += int(np.count_nonzero(first.argmax(axis=1) != second.argmax(axis=1)))
    rows = zip(nemo, ours, theirs, strict=True)
    unequal = [not a.shape == b.shape == c.shape for a, b, c in rows]
    moved[unequal] = np.inf
    return Decisions(made, differing, tuple(moved.tolist()))


def _stacked(
    nemo: Sequence[NDArray[np.float32]], side: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Return (N, T', D) as long as NeMo's; what a side lacks is zero."""
    frames = max(item.shape[1] for item in nemo)
    found = np.zeros((len(nemo), frames, nemo[0].shape[0]), np.float32)
    for row, item in zip(found, side, strict=True):
        kept = item[:, :frames]
        row[: kept.shape[1]] = kept.T
    return found
