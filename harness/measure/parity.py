"""Run an artifact the way an application does, and set its outputs beside NeMo's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from exportgate.errors import ExportGateError
from exportgate.levels import level
from exportgate.runtime.inputs import encoder_input
from harness.measure.compare import SQNR_OF_EQUAL_DB, Comparison, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.runtime.session import Session
    from harness.measure.expected.rollout import Rollout

T = TypeVar("T")

BUCKET_FRAMES = 32
"""Width of a length bucket, in trace points."""
ALL_LENGTHS = 256
"""Largest bound up to which a sweep runs every length."""


@dataclass(frozen=True, slots=True)
class EncoderRuns:
    """An encoder's outputs, one swipe at a time.

    Attributes:
        encoded: (D, T') valid frames for each swipe.
        shape: Shape of the first raw output, to be held against the contract.
    """

    encoded: tuple[NDArray[np.float32], ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapeSweep:
    """Outcome of running many lengths.

    Attributes:
        lengths: Trace lengths that were run.
        failures: For each failing length, what happened.
        overlong_accepted: Whether a trace of bound + 1 gave an output instead of an error.
        frames: Frames that NeMo gives for each.
        sqnr_db: Signal to noise of each length; of one that gave nothing, as bad as can be.
    """

    lengths: tuple[int, ...]
    failures: tuple[str, ...]
    overlong_accepted: bool
    frames: tuple[int, ...]
    sqnr_db: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class StepComparison:
    """A step beside NeMo's along whole words.

    Attributes:
        logits: Logits of every call, one array a word.
        states: h and c of every call, one array a word.
        normalised: Share of logit rows whose exponentials sum to 1: log-probabilities.
        shape: Shape of the first logits, to be held against the contract.
        shift: Largest mean error of one symbol's logit beside the other symbols', in nats: what a
            softmax sees, and decibels of large logits hide.
        shifted_symbol: Which symbol that is.
    """

    logits: Comparison
    states: Comparison
    normalised: float
    shape: tuple[int, ...]
    shift: float
    shifted_symbol: int


def run_encoder(session: Session, features: Sequence[NDArray[np.float32]]) -> EncoderRuns:
    """Run an encoder on each swipe alone and keep the frames that it calls valid."""
    encoded = []
    shape: tuple[int, ...] = ()
    for item in features:
        outputs = session.run(encoder_input(item))
        shape = shape or outputs["encoded_bdt"].shape
        valid = int(outputs["encoded_lengths"].reshape(-1)[0])
        encoded.append(np.array(outputs["encoded_bdt"][0, :, :valid]))
    return EncoderRuns(tuple(encoded), shape)


def compare_encodings(
    references: Sequence[NDArray[np.float32]], encoded: Sequence[NDArray[np.float32]]
) -> Comparison:
    """Compare valid frames; a wrong number of frames is compared as far as both sides go."""
    pairs = [_common(a, b) for a, b in zip(references, encoded, strict=True)]
    return compare([a for a, _ in pairs], [b for _, b in pairs])


def encoded_length_mismatches(
    references: Sequence[NDArray[np.float32]], encoded: Sequence[NDArray[np.float32]]
) -> list[str]:
    """Name each swipe with another number of valid frames than NeMo's."""
    return [
        f"swipe {index} has {b.shape[1]} frames, but should have {a.shape[1]}"
        for index, (a, b) in enumerate(zip(references, encoded, strict=True))
        if a.shape[1] != b.shape[1]
    ]


def bucket_sqnr_db(
    references: Sequence[NDArray[np.float32]],
    encoded: Sequence[NDArray[np.float32]],
    lengths: Sequence[int],
) -> dict[str, float]:
    """Return the signal-to-noise of each length bucket that holds swipes, in dB."""
    buckets: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        buckets.setdefault((length - 1) // BUCKET_FRAMES, []).append(index)
    return {
        f"{b * BUCKET_FRAMES + 1}-{(b + 1) * BUCKET_FRAMES}": compare_encodings(
            [references[i] for i in rows], [encoded[i] for i in rows]
        ).sqnr_db
        for b, rows in sorted(buckets.items())
    }


def run_padded(
    session: Session, features: Sequence[NDArray[np.float32]], frames: int
) -> list[NDArray[np.float32]]:
    """Run swipes padded with garbage, each by another amount, and keep the valid frames."""
    results = []
    for index, item in enumerate(features):
        # From one extra frame to the bound: odd and even amounts, across subsampling's phases.
        room = frames - item.shape[1]
        extra = min(room, 1 + index * max(room, 1) // len(features))
        outputs = session.run(encoder_input(item, padded_to=item.shape[1] + extra))
        valid = int(outputs["encoded_lengths"].reshape(-1)[0])
        results.append(np.array(outputs["encoded_bdt"][0, :, :valid]))
    return results


def padding_error(
    alone: Sequence[NDArray[np.float32]], padded: Sequence[NDArray[np.float32]]
) -> float:
    """Return the largest absolute change of a valid frame; infinite if frames appear or vanish."""
    if any(a.shape != b.shape for a, b in zip(alone, padded, strict=True)):
        return float("inf")
    return compare(list(alone), list(padded)).max_abs_error


def sweep_lengths(bound: int) -> list[int]:
    """Return the lengths of a sweep: all up to the bound, or of a large bound those at its ends."""
    if bound <= ALL_LENGTHS:
        return list(range(1, bound + 1))
    ends = {*range(1, 41), *range(bound - 29, bound + 1)}
    return sorted(ends | {63, 64, 65, 127, 128, 129} | set(range(41, bound, bound // 64)))


def sweep_inputs(features: Sequence[NDArray[np.float32]], bound: int) -> list[NDArray[np.float32]]:
    """Make inputs of lengths 1 to the bound: the longest swipe's beginning, forth and back.

    Swipes that are strung together jump where they meet, as no finger does: static ranges clip
    there, and what would be judged is the jump and not the length.
    """
    longest = max(features, key=lambda item: item.shape[1])
    endless, turned = longest, longest[:, ::-1]
    while endless.shape[1] < bound:
        endless, turned = np.concatenate([endless, turned], axis=1), turned[:, ::-1]
    return [np.ascontiguousarray(endless[:, :n]) for n in sweep_lengths(bound)]


def sweep_shapes(
    session: Session,
    inputs: Sequence[NDArray[np.float32]],
    references: Sequence[NDArray[np.float32]],
    bound: int,
    least_db: float,
) -> ShapeSweep:
    """Run inputs of many lengths and one beyond the bound.

    Args:
        session: Of an encoder.
        inputs: (F, T) of each length.
        references: NeMo's (D, T') of each.
        bound: Largest T.
        least_db: Signal-to-noise below which a length fails, as it would for a swipe.
    """
    failures, ratios = [], []
    for item, wanted in zip(inputs, references, strict=True):
        try:
            found = _length_db(session, item, wanted)
        except ExportGateError as error:
            failures.append(f"T={item.shape[1]}: {error}")
            ratios.append(-SQNR_OF_EQUAL_DB)
            continue
        ratios.append(found)
        if found < least_db:
            failures.append(f"T={item.shape[1]}: {found:.1f} dB against NeMo")
    longest = inputs[-1]
    overlong = np.concatenate([longest, longest[:, :1]], axis=1)
    try:
        run_encoder(session, [np.ascontiguousarray(overlong[:, : bound + 1])])
    except ExportGateError:
        accepted = False
    else:
        accepted = True
    lengths = tuple(item.shape[1] for item in inputs)
    frames = tuple(item.shape[1] for item in references)
    return ShapeSweep(lengths, tuple(failures), accepted, frames, tuple(ratios))


def _length_db(session: Session, item: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """Return a length's signal to noise, in dB.

    Raises:
        CompareError: Frames are missing, or there are too many.
    """
    return compare([wanted], [run_encoder(session, [item]).encoded[0]]).sqnr_db


def compare_rollouts(session: Session, rollouts: Sequence[Rollout]) -> StepComparison:
    """Feed a step what NeMo's was fed, but its own states, and compare every call."""
    wanted_logits, got_logits, wanted_states, got_states = [], [], [], []
    shape: tuple[int, ...] = ()
    for rollout in rollouts:
        hidden = cell = np.zeros_like(rollout.h1[0][:, None])
        logits, states = [], []
        for index, commit in enumerate(rollout.commit):
            outputs = session.run(
                {
                    "y_prev": rollout.y_prev[index : index + 1],
                    "h0": hidden,
                    "c0": cell,
                    "enc_t": rollout.enc_t[index : index + 1],
                }
            )
            shape = shape or outputs["logits"].shape
            logits.append(np.array(outputs["logits"]).reshape(-1))
            states.append(np.stack([outputs["h1"], outputs["c1"]]).reshape(-1))
            if commit:
                hidden, cell = np.array(outputs["h1"]), np.array(outputs["c1"])
        wanted_logits.append(rollout.logits.T)
        got_logits.append(np.stack(logits, axis=1))
        calls = len(rollout.commit)
        stacked = np.stack([rollout.h1, rollout.c1], axis=1).reshape(calls, -1)
        wanted_states.append(stacked.T)
        got_states.append(np.stack(states, axis=1))
    rows = np.concatenate(got_logits, axis=1)
    mean_error = (rows - np.concatenate(wanted_logits, axis=1)).mean(axis=1)
    shift = np.abs(mean_error - np.median(mean_error))
    log_sums = np.abs(np.logaddexp.reduce(rows, axis=0))
    return StepComparison(
        logits=compare(wanted_logits, got_logits),
        states=compare(wanted_states, got_states),
        normalised=float(np.mean(log_sums < level("normalised_nats"))),
        shape=shape,
        shift=float(shift.max()),
        shifted_symbol=int(shift.argmax()),
    )


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` items spread evenly over a sequence."""
    take = min(count, len(items))
    return [items[index * len(items) // take] for index in range(take)]


def typical_and_long(features: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Return the swipes of median and of greatest length."""
    ordered = sorted(features, key=lambda item: item.shape[1])
    return [ordered[len(ordered) // 2], ordered[-1]]


def _common(
    reference: NDArray[np.float32], output: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    frames = min(reference.shape[-1], output.shape[-1])
    return reference[..., :frames], output[..., :frames]
