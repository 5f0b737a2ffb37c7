"""Speed beside the FP32 file, interleaved in one process: a ratio, never a wall-clock limit.

What the clock on the wall says of a file alone is recorded, and not judged.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant
from harness.measure.paired import PairedLatency

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from harness.run.context import RunContext

ROUNDS, WARMUP = 40, 5


@pytest.mark.measures("speedup", "proven_speedup", "latency_ms")
def test_latency(
    artifact: str, context: RunContext, record: Callable[..., None], benchmark: BenchmarkFixture
) -> None:
    """INT8 is no slower than FP32 on the same machine, in the same minute."""
    rounds: list[tuple[float, float]] = []

    def a_round() -> None:
        rounds.append(context.timing.paired_round(artifact))

    benchmark.pedantic(a_round, rounds=ROUNDS, warmup_rounds=WARMUP)
    # The plugin stops after one where it is disabled (--benchmark-disable, a worker of xdist).
    while len(rounds) < WARMUP + ROUNDS:
        a_round()
    timed = rounds[-ROUNDS:]
    found = PairedLatency(tuple(a for a, _ in timed), tuple(b for _, b in timed))
    benchmark.extra_info.update(
        candidate_s=found.candidate_s, baseline_s=found.baseline_s, speedup=found.speedup
    )
    ours, theirs = median(found.candidate_s) * 1e3, median(found.baseline_s) * 1e3
    detail = f"{ours:.3f} ms, {variant(artifact).baseline} {theirs:.3f} ms, medians of {ROUNDS}"
    ratios = [b / a for a, b in timed]
    record("speedup", found.speedup, detail, samples=ratios)
    record("proven_speedup", found.proven_speedup, f"{detail}; measured {found.speedup:.2f} ×")
    record("latency_ms", ours, detail, samples=[a * 1e3 for a, _ in timed])


@pytest.mark.measures(
    "latency_p50_ms", "latency_p90_ms", "latency_p99_ms", "first_run_ms", "load_ms",
    "peak_memory_bytes",
)  # fmt: skip
def test_alone(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """What a user waits for and pays, in a process that runs nothing else."""
    found = context.timing.alone(artifact)
    detail = f"{len(found.run_ms)} runs on one input, one thread, {len(found.load_ms)} openings"
    record("latency_p50_ms", found.percentile_ms(50), detail, samples=found.run_ms)
    record("latency_p90_ms", found.percentile_ms(90), detail)
    record("latency_p99_ms", found.percentile_ms(99), detail)
    record("first_run_ms", median(found.first_run_ms), samples=found.first_run_ms)
    record("load_ms", median(found.load_ms), samples=found.load_ms)
    record("peak_memory_bytes", found.peak_memory_bytes)
