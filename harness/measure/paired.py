"""Compare the cost of two files on a busy machine: interleaved, pinned, in processor time.

Both files are open in one process, on one thread, pinned to one core. They run in blocks of the
order A B B A B A A B, which cancels a drift of the machine's speed; the first blocks are dropped.
Each leg is timed by the wall clock *and* by the processor time of the process. The decision rests
on processor time: a neighbour that takes the core away stops that clock, but not the one on the
wall. Of a side's four legs in a block the fastest counts: neighbours also empty caches, which only
ever adds time. Files are opened several times over, because where a file's weights happen to lie in
memory makes it up to 2 % slower or faster for as long as it is open (Mytkowicz et al., Producing
wrong data without doing anything obviously wrong, ASPLOS 2009).
``benchmarks/results/bench_gate.txt`` has the measured error rates.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from exportgate.garbage import uncollected
from exportgate.runtime.session import open_artifact
from harness.measure.statistics import (
    Decision,
    RatioEstimate,
    bootstrap_ratio,
    decide,
    mann_whitney,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays, Session

Clock = Literal["cpu", "wall"]
_ORDER = (0, 1, 1, 0, 1, 0, 0, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        blocks: Blocks that count, after each opening.
        warmup: Blocks before them that do not.
        openings: How often the files are opened.
        runs: Inferences of a leg on each input. A leg of less than a millisecond mostly fits
            between two interruptions by neighbours; a leg of several never does.
    """

    blocks: int = 40
    warmup: int = 5
    openings: int = 4
    runs: int = 1


@dataclass(frozen=True, slots=True)
class PairedSamples:
    """Seconds that each leg took, by side and clock, and the core that they were pinned to.

    Each array is (blocks, 4): a block holds each side four times.
    """

    candidate_cpu_s: NDArray[np.float64]
    candidate_wall_s: NDArray[np.float64]
    baseline_cpu_s: NDArray[np.float64]
    baseline_wall_s: NDArray[np.float64]
    core: int | None

    def legs(self, clock: Clock) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return (blocks, 4) of candidate and of baseline by one of the clocks."""
        if clock == "cpu":
            return self.candidate_cpu_s, self.baseline_cpu_s
        return self.candidate_wall_s, self.baseline_wall_s


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """What paired samples say about the candidate's cost."""

    estimate: RatioEstimate
    p_value: float
    decision: Decision

    @property
    def proven_ratio(self) -> float:
        """The estimated ratio; 1 where there is no difference that could be proven."""
        return 1.0 if self.decision is Decision.NO_DIFFERENCE else self.estimate.ratio


@contextmanager
def undisturbed() -> Iterator[int | None]:
    """Keep this process on one core, without garbage collection.

    Yields the core's number, or None where a process cannot be kept on one.
    """
    with uncollected():
        if not hasattr(os, "sched_setaffinity"):
            yield None
            return
        before = os.sched_getaffinity(0)
        core = max(before)
        os.sched_setaffinity(0, {core})
        try:
            yield core
        finally:
            os.sched_setaffinity(0, before)


def measure_blocks(
    candidate: Callable[[], object], baseline: Callable[[], object], plan: Plan
) -> PairedSamples:
    """Time two legs in mirrored blocks in this process, undisturbed.

    Args:
        candidate: A leg: runs the candidate's work once.
        baseline: A leg: runs the baseline's work once.
        plan: Number of blocks; ``runs`` and ``openings`` are the caller's affair.
    """
    legs = (candidate, baseline)
    times = np.empty((plan.blocks, 2, 4, 2))
    with undisturbed() as core:
        for block in range(-plan.warmup, plan.blocks):
            seen = [0, 0]
            for side in _ORDER:
                timed = _timed(legs[side])
                if block >= 0:
                    times[block, side, seen[side]] = timed
                seen[side] += 1
    return PairedSamples(
        candidate_cpu_s=times[:, 0, :, 0],
        candidate_wall_s=times[:, 0, :, 1],
        baseline_cpu_s=times[:, 1, :, 0],
        baseline_wall_s=times[:, 1, :, 1],
        core=core,
    )


def measure_files(
    candidate: Path,
    baseline: Path,
    inputs: Sequence[Arrays],
    plan: Plan,
    candidate_runs: int | None = None,
) -> PairedSamples:
    """Time two artifacts on the same inputs; meant to be called in a worker.

    Args:
        candidate: A file with its sidecar.
        baseline: Another, or the same.
        inputs: What each leg runs on.
        plan: How long to measure.
        candidate_runs: Runs in a candidate's leg, where they should be other than the plan's: one
            run more in ten is a file that is 10 % slower, without any doubt.

    Raises:
        ArtifactError: A file is not its sidecar's.
        OpenError: A runtime does not load a file.
        RunError: A runtime fails.
    """
    runs = plan.runs if candidate_runs is None else candidate_runs
    parts = []
    for number in range(plan.openings):
        # In turns: who is opened first gets other memory.
        paths = [candidate, baseline] if number % 2 else [baseline, candidate]
        sessions = [open_artifact(path) for path in paths]
        ours, theirs = sessions if number % 2 else sessions[::-1]
        parts.append(
            measure_blocks(
                partial(run_times, ours, inputs, runs),
                partial(run_times, theirs, inputs, plan.runs),
                plan,
            )
        )
    return PairedSamples(
        candidate_cpu_s=np.concatenate([part.candidate_cpu_s for part in parts]),
        candidate_wall_s=np.concatenate([part.candidate_wall_s for part in parts]),
        baseline_cpu_s=np.concatenate([part.baseline_cpu_s for part in parts]),
        baseline_wall_s=np.concatenate([part.baseline_wall_s for part in parts]),
        core=parts[0].core,
    )


def run_times(session: Session, inputs: Sequence[Arrays], runs: int) -> None:
    """Run a session some times on each input."""
    for _ in range(runs):
        for item in inputs:
            session.run(item)


def step_inputs(contract: IoContract) -> dict[str, NDArray[Any]]:
    """Return inputs of one call of a step: zero states, an encoded frame of ones, label 1."""
    found = {}
    for spec in contract.inputs:
        shape = tuple(1 if isinstance(axis, str) else axis for axis in spec.shape)
        found[spec.name] = np.full(shape, spec.name in {"enc_t", "y_prev"}, spec.dtype)
    return found


def compare_samples(
    samples: PairedSamples, *, minimal_effect: float, clock: Clock = "cpu"
) -> PairedComparison:
    """Judge paired samples by the rule of ``harness.measure.statistics.decide``.

    Args:
        samples: At least 8 blocks.
        minimal_effect: Smallest difference that matters, e.g. 0.05 for 5 %.
        clock: Which clock to believe.

    Raises:
        StatisticsError: Too few blocks.
    """
    ours, theirs = (legs.min(axis=1) for legs in samples.legs(clock))
    estimate = bootstrap_ratio(ours, theirs)
    p_value = mann_whitney(ours, theirs)
    decision = decide(estimate, p_value, minimal_effect=minimal_effect)
    return PairedComparison(estimate, p_value, decision)


def _timed(leg: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    leg()
    return time.process_time() - cpu, time.perf_counter() - wall
