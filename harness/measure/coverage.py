"""Drive what a manifest's swipes, one at a time, never drive: batches, padding, labels, repeats.

Every free axis of a contract is an input that some application gives. Errors are set against the
file's own distance from NeMo: both sides of such a comparison round by the same steps, so that an
honest file's two answers differ by no more than each differs from NeMo.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.decibel import EQUAL_DB, ratio_db
from exportgate.levels import level
from exportgate.runtime.inputs import encoder_input
from harness.measure.expected.rollout import log_softmax
from harness.measure.outliers import Farthest, Shifted, farthest, most_shifted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays, Session
    from harness.measure.expected.rollout import Rollout

BATCH = 5
"""Swipes of a batch: no power of two, so that no kernel's width divides it."""


@dataclass(frozen=True, slots=True)
class LabelDrive:
    """Inputs of a step that feed every symbol, from real states, with real frames.

    Attributes:
        y_prev: (N,) int64; every symbol, the blank too, several times.
        h0: (L, N, H) float32.
        c0: (L, N, H) float32.
        enc_t: (N, D) float32.
    """

    y_prev: NDArray[np.int64]
    h0: NDArray[np.float32]
    c0: NDArray[np.float32]
    enc_t: NDArray[np.float32]

    def row(self, index: int) -> dict[str, NDArray[Any]]:
        """Return the inputs of one call."""
        one = slice(index, index + 1)
        return {
            "y_prev": self.y_prev[one],
            "h0": np.ascontiguousarray(self.h0[:, one]),
            "c0": np.ascontiguousarray(self.c0[:, one]),
            "enc_t": self.enc_t[one],
        }

    @property
    def whole(self) -> dict[str, NDArray[Any]]:
        """The inputs of one call for all rows."""
        return {"y_prev": self.y_prev, "h0": self.h0, "c0": self.c0, "enc_t": self.enc_t}


@dataclass(frozen=True, slots=True)
class StepOutputs:
    """What a step gives for the rows of a drive.

    Attributes:
        logits: (N, V).
        h1: (L, N, H).
        c1: (L, N, H).
    """

    logits: NDArray[np.float32]
    h1: NDArray[np.float32]
    c1: NDArray[np.float32]

    def with_log_probs(self) -> StepOutputs:
        """Return them with log-softmax of the logits in their place."""
        return replace(self, logits=log_softmax(self.logits))

    @property
    def states(self) -> NDArray[np.float32]:
        """Both states of each row, (N, 2 L H)."""
        stacked = np.stack([self.h1, self.c1])
        rows = np.moveaxis(stacked, 2, 0)
        return rows.reshape(len(rows), -1)


def label_drive(rollouts: Sequence[Rollout], symbols: int, repeats: int) -> LabelDrive:
    """Return each symbol ``repeats`` times, each time from another state and at another frame.

    Args:
        rollouts: NeMo's calls along real words: states after an emitted label and frames.
        symbols: Of the vocabulary, the blank included.
        repeats: How often each is fed.
    """
    hidden = np.concatenate([r.h1 for r in rollouts])
    cell = np.concatenate([r.c1 for r in rollouts])
    frames = np.concatenate([r.enc_t for r in rollouts])
    count = symbols * repeats
    rng = np.random.default_rng(0)
    states, places = (rng.integers(0, len(hidden), count) for _ in range(2))
    return LabelDrive(
        y_prev=np.tile(np.arange(symbols, dtype=np.int64), repeats),
        h0=np.ascontiguousarray(np.moveaxis(hidden[states], 0, 1)),
        c0=np.ascontiguousarray(np.moveaxis(cell[states], 0, 1)),
        enc_t=frames[places],
    )


def drive_labels(session: Session, drive: LabelDrive) -> StepOutputs:
    """Run a step on every row of a drive, each alone."""
    found = [session.run(drive.row(index)) for index in range(len(drive.y_prev))]
    return StepOutputs(
        np.concatenate([np.array(item["logits"]).reshape(1, -1) for item in found]),
        np.concatenate([np.array(item["h1"]) for item in found], axis=1),
        np.concatenate([np.array(item["c1"]) for item in found], axis=1),
    )


def drive_batch(session: Session, drive: LabelDrive) -> StepOutputs:
    """Run a step on all rows of a drive at once."""
    found = session.run(drive.whole)
    return StepOutputs(np.array(found["logits"]), np.array(found["h1"]), np.array(found["c1"]))


def run_in_batches(
    session: Session, features: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Run swipes of different lengths together, padded with garbage; return the valid frames.

    Args:
        session: Of an encoder with a batch axis.
        features: (F, T) for each swipe; long and short ones are mixed in every batch.
    """
    order = np.argsort([item.shape[1] for item in features], kind="stable")
    # Dealt out like cards: each batch holds short, middle and long swipes.
    count = -(-len(features) // BATCH)
    found: dict[int, NDArray[np.float32]] = {}
    for deal in range(count):
        rows = [int(row) for row in order[deal::count]]
        outputs = session.run(_padded([features[row] for row in rows]))
        lengths = np.asarray(outputs["encoded_lengths"]).reshape(-1)
        for place, row in enumerate(rows):
            found[row] = np.array(outputs["encoded_bdt"][place, :, : int(lengths[place])])
    return [found[index] for index in range(len(features))]


def unequal_repeats(session: Session, feeds: Sequence[Arrays]) -> list[str]:
    """Run each input twice, others in between; name what came out with other bits."""
    first = [session.run(feed) for feed in feeds]
    kept = [{name: np.array(value) for name, value in found.items()} for found in first]
    again = [session.run(feed) for feed in feeds]
    return [
        f"{name} of input {index + 1}"
        for index, (before, after) in enumerate(zip(kept, again, strict=True))
        for name, value in before.items()
        if not np.array_equal(value, after[name], equal_nan=True)
    ]


def _padded(features: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    longest = max(item.shape[1] for item in features)
    feeds = [encoder_input(item, padded_to=longest) for item in features]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """How far a step is from NeMo's where each symbol is fed, and where each is scored.

    Attributes:
        fed_db: (V,) signal to noise of the logits and states after each symbol was fed.
        scored_db: (V,) power of all logits ÷ each symbol's own error.
        logits_db: Signal to noise of all logits.
        states_db: Signal to noise of all states.
        shift_nats: (V,) mean error of each symbol's logit beside the other symbols'.
        shifted: The symbol whose logit's mean error is least like the others'.
        fed: The symbol after which logits, or states, are least like after the others.
        scored: The symbol whose logit is least like the others'.
    """

    fed_db: NDArray[np.float64]
    scored_db: NDArray[np.float64]
    logits_db: float
    states_db: float
    shift_nats: NDArray[np.float64]
    shifted: Shifted
    fed: Farthest
    scored: Farthest


def label_errors(drive: LabelDrive, nemo: StepOutputs, ours: StepOutputs) -> LabelErrors:
    """Compare a step's outputs of a drive with NeMo's."""
    symbols = nemo.logits.shape[1]
    error = ours.logits.astype(np.float64) - nemo.logits
    mean_error = error.mean(axis=0)
    fed_db = [
        min(
            power_ratio_db(nemo.logits[rows], ours.logits[rows]),
            power_ratio_db(nemo.states[rows], ours.states[rows]),
        )
        for rows in (drive.y_prev == symbol for symbol in range(symbols))
    ]
    # Each logit is beside the power of all: a softmax sees them together.
    power = float((nemo.logits.astype(np.float64) ** 2).mean())
    noise = np.maximum(np.nan_to_num((error**2).mean(axis=0), nan=np.inf), 1e-30)
    relative = np.minimum(10 * np.log10(noise / max(power, 1e-30)), EQUAL_DB)
    after = (
        _farthest_fed(drive, nemo.logits, ours.logits),
        _farthest_fed(drive, nemo.states, ours.states),
    )
    fed = min(after, key=lambda found: found.p_value)
    return LabelErrors(
        fed_db=np.array(fed_db),
        scored_db=-relative,
        logits_db=power_ratio_db(nemo.logits, ours.logits),
        states_db=power_ratio_db(nemo.states, ours.states),
        shift_nats=mean_error - np.median(mean_error),
        shifted=most_shifted(error, level("float32_noise") * math.sqrt(power)),
        # The less probable of two.
        fed=replace(fed, p_value=min(1.0, len(after) * fed.p_value)),
        scored=farthest(relative, len(drive.y_prev), normal=False),
    )


def _farthest_fed(
    drive: LabelDrive, wanted: NDArray[np.float32], found: NDArray[np.float32]
) -> Farthest:
    """Return the symbol after which outputs (N, …) are least like those after the others."""
    each = ((found.astype(np.float64) - wanted) ** 2).mean(axis=1)
    symbols = int(drive.y_prev.max()) + 1
    powers = np.array([each[drive.y_prev == symbol].mean() for symbol in range(symbols)])
    signal = float((wanted.astype(np.float64) ** 2).mean())
    powers = np.where(np.isfinite(powers), np.maximum(powers, 1e-30), np.inf)
    noise_db = 10 * np.log10(powers / max(signal, 1e-30))
    return farthest(noise_db, len(drive.y_prev) // symbols, normal=False)


def noise_ratio(
    nemo: Sequence[NDArray[np.float32]],
    alone: Sequence[NDArray[np.float32]],
    otherwise: Sequence[NDArray[np.float32]],
) -> float:
    """Return how far a file is from itself ÷ how far it is from NeMo, root mean squares.

    Infinite if frames appear or vanish. A file that is NeMo to the last bits is taken to be as far
    from it as float32's own rounding puts it.
    """
    if any(a.shape != b.shape for a, b in zip(alone, otherwise, strict=True)):
        return float("inf")
    truth = np.concatenate([item.reshape(-1) for item in nemo]).astype(np.float64)
    usual = np.concatenate([item.reshape(-1) for item in alone]).astype(np.float64)
    other = np.concatenate([item.reshape(-1) for item in otherwise]).astype(np.float64)
    own = float(np.sqrt(((usual - truth) ** 2).mean()))
    floor = level("float32_noise") * float(np.sqrt((truth**2).mean()))
    found = float(np.sqrt(((other - usual) ** 2).mean())) / max(own, floor, 1e-30)
    return found if np.isfinite(found) else float("inf")


def power_ratio_db(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Return signal to noise in dB, between -200 and 200."""
    signal = float((wanted.astype(np.float64) ** 2).sum())
    noise = float(((found.astype(np.float64) - wanted) ** 2).sum())
    return ratio_db(signal, noise)
