"""A file on a device beside the same file on the reference device: figures and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from exporters.variants import variant
from exportgate.errors import ExportGateError
from exportgate.levels import level
from harness.crossdevice.decisions import decisions
from harness.devices.device import Need, not_for
from harness.measure.compare import compare
from harness.measure.parity import compare_encodings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.runtime.session import Arrays, Elapsed, TimedSession
    from harness.measure.compare import Comparison
    from harness.run.context import RunContext

TIMED_BLOCKS = 9
_LEG_S, _MOST_RUNS = 0.01, 50
SHOWN = 5
"""Words that a verdict names."""


class Status(StrEnum):
    """Outcome for a file on a device.

    Attributes:
        PASS: The devices agree.
        FAIL: They do not.
        NOT_MEASURED: It could not be found out, which is no better.
        LEFT_OUT: The file is not meant for the device (another format, FP16), which runs others.
    """

    PASS = "PASS"  # noqa: S105 - not a password
    FAIL = "FAIL"
    NOT_MEASURED = "NOT_MEASURED"
    LEFT_OUT = "LEFT_OUT"


@dataclass(frozen=True, slots=True)
class Figures:
    """How far two devices are apart with one file, on the same swipes.

    Attributes:
        swipes: How many.
        max_difference: Largest absolute difference of an encoding, or of a step's logits.
        sqnr_db: Signal of the reference device ÷ difference.
        own_db: Signal to noise of the file itself against NeMo, on the reference device.
        decisions: Frames in a state of NeMo's decoding, or calls of a step.
        decisions_differing: Those whose best symbol is another.
        words_differing: Swipes that are decoded otherwise and are no near ties.
        near_ties: Swipes that are decoded otherwise where the reference device's margin lies
            within what the devices differ by.
        moved_nats: The most by which the lead of a symbol over another moves.
        time_ratio: Processor time ÷ the reference device's, in turns; None without a clock.
    """

    swipes: int
    max_difference: float
    sqnr_db: float
    own_db: float
    decisions: int
    decisions_differing: int
    words_differing: tuple[str, ...]
    near_ties: tuple[str, ...]
    moved_nats: float
    time_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """The verdict on a file on a device.

    Attributes:
        file: A variant's name.
        device: Where it ran.
        reference: The device that it is compared with.
        figures: What was measured; None if it could not be.
        status: Outcome.
        detail: Why, where it is not PASS.
    """

    file: str
    device: str
    reference: str
    figures: Figures | None
    status: Status
    detail: str = ""


def least_db(precision: str, own_db: float) -> float:
    """Return the signal-to-difference that two devices must keep, in dB.

    Floating point keeps what its format does. Of integers, devices differ where a value lies on
    the edge between two codes, and the last bit of a sum decides: by whole steps, but rarely.
    """
    if precision in {"int8", "int4"}:
        return own_db + level("device_edges_db")
    return level("device_db", precision)


def judge(file: str, there: str, here: str, found: Figures) -> Agreement:
    """Hold figures against the limits; NaN passes none."""
    precision = variant(file).precision
    limit = least_db(precision, found.own_db)
    wrong = []
    if not found.sqnr_db >= limit:
        wrong.append(f"{found.sqnr_db:.1f} dB to {here}, but should be ≥ {limit:.1f} dB")
    if found.words_differing:
        count = len(found.words_differing)
        shown = "; ".join(found.words_differing[:SHOWN])
        wrong.append(f"{count} word{'s'[: count > 1]} differ{'s'[: count < 2]}: {shown}")
    status = Status.FAIL if wrong else Status.PASS
    return Agreement(file, there, here, found, status, "; ".join(wrong))


def agreement(here: RunContext, there: RunContext, file: str, *, timed: bool = True) -> Agreement:
    """Run a file on both devices and judge how far they are apart.

    Args:
        here: The run on the reference device.
        there: The run on the other, which shares NeMo and swipes with it.
        file: A variant's name.
        timed: Whether to time it in turns too, where both have a clock.
    """
    names = there.request.device.name, here.request.device.name
    for run in (there, here):
        if reason := not_for(run.request.device, variant(file)):
            return Agreement(file, *names, None, Status.LEFT_OUT, reason)
    try:
        measure = _encoder if variant(file).graph == "encoder" else _step
        found = measure(here, there, file, _time_ratio(here, there, file) if timed else None)
    except ExportGateError as error:
        return Agreement(file, *names, None, Status.NOT_MEASURED, str(error))
    return judge(file, *names, found)


def _encoder(here: RunContext, there: RunContext, file: str, ratio: float | None) -> Figures:
    ours, theirs = (run.outputs.encoder(file).encoded for run in (here, there))
    nemo = here.nemo.reference().encoded
    moved = here.nemo.call(decisions, nemo, ours, theirs)
    differing, near = _words(here, there, file, moved.moved_nats)
    return _figures(
        compare_encodings(ours, theirs),
        here.outputs.comparison(file).sqnr_db,
        (moved.made, moved.differing, max(moved.moved_nats)),
        (differing, near),
        ratio,
    )


def _step(here: RunContext, there: RunContext, file: str, ratio: float | None) -> Figures:
    """Compare logits after every symbol, from real states, and the words of NeMo's encodings."""
    ours, theirs = (run.outputs.label_outputs(file).logits for run in (here, there))
    found = compare(list(ours[:, :, None]), list(theirs[:, :, None]))
    nats = 2 * found.max_abs_error
    differing = int(np.count_nonzero(ours.argmax(axis=1) != theirs.argmax(axis=1)))
    swipes = len(here.nemo.reference().encoded)
    words, near = _words(here, there, file, [nats] * swipes)
    return _figures(
        found,
        here.outputs.comparison(file).sqnr_db,
        (len(ours), differing, nats),
        (words, near),
        ratio,
        swipes,
    )


def _figures(
    found: Comparison,
    own_db: float,
    decided: tuple[int, int, float],
    words: tuple[list[str], list[str]],
    ratio: float | None,
    swipes: int | None = None,
) -> Figures:
    return Figures(
        swipes=swipes or found.arrays,
        max_difference=found.max_abs_error,
        sqnr_db=found.sqnr_db,
        own_db=own_db,
        decisions=decided[0],
        decisions_differing=decided[1],
        words_differing=tuple(words[0]),
        near_ties=tuple(words[1]),
        moved_nats=decided[2],
        time_ratio=ratio,
    )


def _words(
    here: RunContext, there: RunContext, file: str, moved_nats: Sequence[float]
) -> tuple[list[str], list[str]]:
    """Return the swipes that are decoded otherwise there: beyond near ties, and near ties."""
    most = level("device_tie_nats", variant(file).precision)
    labels = here.nemo.spec.labels
    pairs = zip(here.words.hypotheses(file), there.words.hypotheses(file), moved_nats, strict=True)
    differing: list[str] = []
    near: list[str] = []
    for index, (ours, theirs, nats) in enumerate(pairs):
        if ours.tokens == theirs.tokens:
            continue
        allowed = min(nats, most) + level("tie_nats")
        line = (
            f"swipe {index + 1}: {theirs.text(labels)!r}, {here.request.device.name} "
            f"{ours.text(labels)!r} at a margin of {ours.min_margin:.2g} nats, the devices differ "
            f"by {nats:.2g}"
        )
        (near if ours.min_margin <= allowed else differing).append(line)
    return differing, near


def _time_ratio(here: RunContext, there: RunContext, file: str) -> float | None:
    """Return processor time there ÷ here of one input, in turns A B B A; information, no gate."""
    if any(run.request.device.lacks(Need.PAIRED_TIME) for run in (here, there)):
        return None
    inputs = [here.timing.typical_input(file)]
    runs = [_runs(run, file, inputs) for run in (here, there)]
    ratios = []
    for _ in range(TIMED_BLOCKS):
        legs = [
            (here, there)[side].sessions.call(file, elapsed_on, inputs, runs[side]).processor_s
            / runs[side]
            for side in (0, 1, 1, 0)
        ]
        ours, theirs = legs[0] + legs[3], legs[1] + legs[2]
        ratios.append(theirs / ours if ours > 0 else math.nan)
    return median(ratios)


def _runs(run: RunContext, file: str, inputs: Sequence[Arrays]) -> int:
    """Return how many runs a leg needs to be longer than a clock's ticks; warms the session up."""
    took = run.sessions.call(file, elapsed_on, inputs, 2).processor_s / 2
    return max(1, min(_MOST_RUNS, int(_LEG_S / max(took, 1e-9))))


def elapsed_on(session: TimedSession, inputs: Sequence[Arrays], runs: int) -> Elapsed:
    """Time runs of a session that lives in a worker."""
    return session.elapsed(inputs, runs)
