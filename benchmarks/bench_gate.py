"""How often does the latency comparison cry wolf, and how often is it blind? Measured.

``python -m benchmarks.bench_gate [--comparisons 100] [--out benchmarks/results/bench_gate.txt]``

With a busy loop on each core, a file is compared with itself (each difference that is reported is
a false alarm) and with itself made 10 % slower (11 inferences instead of 10 in each leg: each
comparison that does not say "slower" is a miss). Beside the rule of
``harness.measure.statistics.decide``, on processor time and on wall time, stands what
``pytest --benchmark-compare-fail=median:5%`` would
have said of the same wall-clock samples: compared within the session, which flatters it, and with
the samples stored in the comparison before, which is how it is used.

Exit status 1 if there is more than 1 false alarm or fewer than 95 detections in 100, or a
comparison takes more than 60 seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar, write_text
from exportgate.errors import ExportGateError
from exportgate.runtime.inputs import step_inputs
from exportgate.runtime.isolate import Worker
from harness.devices.host import HOST
from harness.measure.environment import environment
from harness.measure.paired import PairedSamples, Plan, compare_samples, measure_files
from harness.measure.statistics import Decision

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

from harness.measure.paired import Clock

RUNS = 10
SLOWED_RUNS = 11
PLAN = Plan(runs=RUNS)
MINIMAL_EFFECT = 0.05
PYTEST_BENCHMARK_LIMIT = 1.05
MAX_FALSE_ALARMS, MIN_DETECTED, MAX_SECONDS = 0.01, 0.95, 60.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One comparison: its samples and how long it took."""

    samples: PairedSamples
    seconds: float


@contextmanager
def busy_cores() -> Iterator[int]:
    """Run a busy loop for each core; yields their number."""
    command = [sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield len(loops)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_trials(artifact: Path, comparisons: int) -> dict[int, list[Trial]]:
    """Compare a file with itself, and with itself slowed, alternately.

    Returns:
        Trials by the candidate's runs in a leg.
    """
    inputs = [step_inputs(read_sidecar(artifact).contract)]
    trials: dict[int, list[Trial]] = {RUNS: [], SLOWED_RUNS: []}
    with busy_cores(), Worker("timing") as worker:
        for number in range(comparisons):
            for runs, found in trials.items():
                start = time.perf_counter()
                samples = worker.call(measure_files, HOST, artifact, artifact, inputs, PLAN, runs)
                found.append(Trial(samples, time.perf_counter() - start))
            if number % 10 == 9:
                print(f"  {number + 1} of {comparisons}", file=sys.stderr, flush=True)
    return trials


def our_alarms(trials: Sequence[Trial], clock: Clock) -> tuple[int, int]:
    """Return how many trials our rule calls slower, and how many it calls faster."""
    decisions = [
        compare_samples(trial.samples, minimal_effect=MINIMAL_EFFECT, clock=clock).decision
        for trial in trials
    ]
    return decisions.count(Decision.SLOWER), decisions.count(Decision.FASTER)


def benchmark_alarms(trials: Sequence[Trial], baselines: Sequence[Trial], stored: int) -> int:
    """Return how often pytest-benchmark's rule fails a candidate.

    Args:
        trials: Whose candidates are judged.
        baselines: Whose baselines they are judged by.
        stored: 0: the baseline of the same comparison; 1: of the one before.
    """
    medians = [
        (np.median(t.samples.candidate_wall_s), np.median(b.samples.baseline_wall_s))
        for t, b in zip(trials[stored:], baselines[: len(baselines) - stored], strict=True)
    ]
    return sum(bool(ours > PYTEST_BENCHMARK_LIMIT * theirs) for ours, theirs in medians)


def table(trials: dict[int, list[Trial]]) -> tuple[list[str], bool]:
    """Return the report's lines, and whether our rule keeps its promise."""
    same, slowed = trials[RUNS], trials[SLOWED_RUNS]
    count = len(same)
    longest = max(trial.seconds for trial in [*same, *slowed])
    lines = [f"{'rule':58} {'false alarms':>14} {'detected':>12}"]
    for clock in ("cpu", "wall"):
        slower, faster = our_alarms(same, clock)
        detected, _ = our_alarms(slowed, clock)
        if clock == "cpu":
            kept = slower + faster <= MAX_FALSE_ALARMS * count and detected >= MIN_DETECTED * count
        name = f"paired blocks, bootstrap and Mann-Whitney, {clock} time"
        name += " (the gate)" if clock == "cpu" else ""
        lines.append(_row(name, slower + faster, detected, count, count))
    for stored, how in ((0, "same session"), (1, "stored run")):
        lines.append(
            _row(
                f"pytest-benchmark median:5%, {how}",
                benchmark_alarms(same, same, stored),
                benchmark_alarms(slowed, same, stored),
                count - stored,
                count - stored,
            )
        )
    ratios = [np.sort([_ratio(trial) for trial in group]) for group in (same, slowed)]
    lines += [
        "",
        (
            f"ratio A ÷ A: {ratios[0][0]:.3f} to {ratios[0][-1]:.3f}; "
            f"slowed by 10 %: {ratios[1][0]:.3f} to {ratios[1][-1]:.3f}"
        ),
        (
            f"seconds a comparison: median {np.median([t.seconds for t in same]):.1f}, "
            f"longest {longest:.1f}"
        ),
    ]
    return lines, kept and longest <= MAX_SECONDS


def save_samples(trials: dict[int, list[Trial]], path: Path) -> None:
    """Save seconds of each leg as (trials, blocks, 4) by side, clock and runs in a leg."""
    arrays = {
        f"{side}_{clock}_{runs}": np.stack([t.samples.legs(clock)[place] for t in found])
        for runs, found in trials.items()
        for clock in ("cpu", "wall")
        for place, side in enumerate(("candidate", "baseline"))
    }
    np.savez_compressed(path, allow_pickle=False, **arrays)


def _ratio(trial: Trial) -> float:
    return compare_samples(trial.samples, minimal_effect=MINIMAL_EFFECT).estimate.ratio


def _row(name: str, alarms: int, detected: int, of_alarms: int, of_detected: int) -> str:
    return f"{name:58} {f'{alarms} of {of_alarms}':>14} {f'{detected} of {of_detected}':>12}"


def _exported(folder: Path) -> Path:
    """Export the golden checkpoint's step, or take it from the gate's cache."""
    command = [sys.executable, "-m", "exporters.release", "--checkpoint", "golden/golden.nemo"]
    command += ["--variant", "step_fp32.onnx"]
    command += ["--out", str(folder), "--cache", "build/gate/cache"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "step_fp32.onnx"


def main() -> int:
    """Run the command line; 0 if the rates are kept."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench_gate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--comparisons", type=int, default=100, help="of each kind (default 100)")
    parser.add_argument("--artifact", type=Path, help="a step to time; default: export the golden")
    parser.add_argument("--out", type=Path, help="file to save the table in as well")
    parser.add_argument("--samples", type=Path, help="file (.npz) to save the raw samples in")
    args = parser.parse_args()
    if args.comparisons < 2:
        parser.error("--comparisons should be at least 2")
    load = os.getloadavg()[0]
    artifact = args.artifact or _exported(Path("build/bench-gate"))
    trials = run_trials(artifact, args.comparisons)
    if args.samples:
        save_samples(trials, args.samples)
    lines, kept = table(trials)
    env = environment()
    lines = [
        (
            f"{args.comparisons} comparisons of each kind, {artifact.name}, {RUNS} calls a leg, "
            f"{PLAN.openings} × {PLAN.blocks} blocks, minimal effect {MINIMAL_EFFECT:.0%}"
        ),
        (
            f"{env.cpu}, {env.cores} cores, a busy loop on each; load {load:.1f} before, "
            f"{os.getloadavg()[0]:.1f} after"
        ),
        "",
        *lines,
    ]
    print("\n".join(lines))
    if args.out:
        write_text(args.out, "\n".join(lines) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ExportGateError as error:
        sys.exit(f"error: {error}")
