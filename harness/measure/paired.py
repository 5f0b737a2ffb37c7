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
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from exportgate.garbage import uncollected
from exportgate.levels import level
from exportgate.runtime.canonical import canonical
from harness.measure.statistics import (
    Decision,
    RatioEstimate,
    bootstrap_ratio,
    decide,
    mann_whitney,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays, Elapsed, TimedSession

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


@dataclass(frozen=True, slots=True)
class PairedLatency:
    """Interleaved timings of two sessions on the same inputs, in CPU seconds per inference.

    Attributes:
        candidate_s: One sample for each round.
        baseline_s: One sample for each round, taken between the candidate's.
    """

    candidate_s: tuple[float, ...]
    baseline_s: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """Median over rounds of baseline time ÷ candidate time."""
        pairs = zip(self.baseline_s, self.candidate_s, strict=True)
        return median(base / cand for base, cand in pairs)

    @property
    def proven_speedup(self) -> float:
        """The speedup; 1 where no difference could be proven.

        Raises:
            StatisticsError: Fewer than 8 rounds, or a clock that measured 0.
        """
        found = _judged(
            np.asarray(self.candidate_s), np.asarray(self.baseline_s), level("least_effect")
        )
        return 1.0 / found.proven_ratio


def paired_round(
    candidate: TimedSession, baseline: TimedSession, inputs: Sequence[Arrays]
) -> tuple[float, float]:
    """Time two sessions on the same inputs in the order A B B A, in one process.

    Returns:
        CPU seconds per inference of candidate and baseline: other processes on a busy machine
        take wall-clock time, not this. The mirrored order cancels a drift of the machine's speed.
    """
    with undisturbed():
        legs = [side.elapsed(inputs) for side in (candidate, baseline, baseline, candidate)]
    seconds = [leg.processor_s for leg in legs]
    runs = 2 * len(inputs)
    return (seconds[0] + seconds[3]) / runs, (seconds[1] + seconds[2]) / runs


def measure_blocks(
    candidate: Callable[[], Elapsed], baseline: Callable[[], Elapsed], plan: Plan
) -> PairedSamples:
    """Time two legs in mirrored blocks in this process, undisturbed.

    Args:
        candidate: A leg: does the candidate's work once, and says what it took.
        baseline: The same of the baseline.
        plan: Number of blocks; ``runs`` and ``openings`` are the caller's affair.
    """
    legs = (candidate, baseline)
    times = np.empty((plan.blocks, 2, 4, 2))
    with undisturbed() as core:
        for block in range(-plan.warmup, plan.blocks):
            seen = [0, 0]
            for side in _ORDER:
                took = legs[side]()
                if block >= 0:
                    times[block, side, seen[side]] = took.processor_s, took.wall_s
                seen[side] += 1
    return PairedSamples(
        candidate_cpu_s=times[:, 0, :, 0],
        candidate_wall_s=times[:, 0, :, 1],
        baseline_cpu_s=times[:, 1, :, 0],
        baseline_wall_s=times[:, 1, :, 1],
        core=core,
    )


def measure_openings(
    opened: Iterable[tuple[Callable[[], Elapsed], Callable[[], Elapsed]]], plan: Plan
) -> PairedSamples:
    """Time legs of a candidate and of a baseline, which each opening gives anew.

    Args:
        opened: For each opening the leg of the candidate and that of the baseline.
        plan: Blocks of each opening.
    """
    parts = [measure_blocks(candidate, baseline, plan) for candidate, baseline in opened]
    return PairedSamples(
        candidate_cpu_s=np.concatenate([part.candidate_cpu_s for part in parts]),
        candidate_wall_s=np.concatenate([part.candidate_wall_s for part in parts]),
        baseline_cpu_s=np.concatenate([part.baseline_cpu_s for part in parts]),
        baseline_wall_s=np.concatenate([part.baseline_wall_s for part in parts]),
        core=parts[0].core,
    )


class Opens(Protocol):
    """What opens files: a device (``harness.devices``)."""

    def open(self, artifact: Path) -> TimedSession:
        """Open a file with its sidecar."""


def measure_files(
    device: Opens,
    candidate: Path,
    baseline: Path,
    inputs: Sequence[Arrays],
    plan: Plan,
    candidate_runs: int | None = None,
) -> PairedSamples:
    """Time two artifacts on the same inputs; meant to be called in a worker.

    Args:
        device: Where they run.
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

    def opened() -> Iterator[tuple[Callable[[], Elapsed], Callable[[], Elapsed]]]:
        for number in range(plan.openings):
            # In turns: who is opened first gets other memory.
            paths = [candidate, baseline] if number % 2 else [baseline, candidate]
            sessions = [canonical(device.open(path)) for path in paths]
            ours, theirs = sessions if number % 2 else sessions[::-1]
            yield (
                partial(ours.elapsed, inputs, runs),
                partial(theirs.elapsed, inputs, plan.runs),
            )

    return measure_openings(opened(), plan)


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
    return _judged(ours, theirs, minimal_effect)


def _judged(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], minimal_effect: float
) -> PairedComparison:
    estimate = bootstrap_ratio(ours, theirs, confidence=level("paired_confidence"))
    p_value = mann_whitney(ours, theirs)
    rank_level = level("paired_rank_level")
    decision = decide(estimate, p_value, minimal_effect=minimal_effect, level=rank_level)
    return PairedComparison(estimate, p_value, decision)
