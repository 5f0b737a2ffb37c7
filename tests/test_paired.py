"""Blocks are interleaved and pinned, and real extra work is found on a busy machine."""

from __future__ import annotations

import gc
import os
import time

import numpy as np
import pytest

from exportgate.runtime.session import Elapsed, elapsed_of
from harness.measure.paired import (
    PairedLatency,
    PairedSamples,
    Plan,
    compare_samples,
    measure_blocks,
    undisturbed,
)
from harness.measure.statistics import Decision, StatisticsError


def test_a_block_is_mirrored_and_the_warmup_is_dropped() -> None:
    order = ""

    def leg(name: str) -> Elapsed:
        nonlocal order
        order += name
        return Elapsed(1.0, 1.0)

    samples = measure_blocks(lambda: leg("A"), lambda: leg("B"), Plan(blocks=3, warmup=2))
    assert order == "ABBABAAB" * 5
    assert samples.candidate_cpu_s.shape == samples.baseline_wall_s.shape == (3, 4)


def test_the_process_is_pinned_and_released() -> None:
    before = os.sched_getaffinity(0)
    with undisturbed() as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_is_collected_afterwards_if_it_was_before(collecting: bool) -> None:
    was = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        with undisturbed():
            assert not gc.isenabled()
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if was else gc.disable)()


def test_waiting_costs_wall_clock_but_no_processor_time() -> None:
    samples = measure_blocks(
        lambda: elapsed_of(lambda: time.sleep(2e-3)),
        lambda: elapsed_of(lambda: time.sleep(0)),
        Plan(8, 0),
    )
    assert samples.candidate_wall_s.min() >= 2e-3
    assert np.median(samples.candidate_cpu_s) < 1e-3


def spin(rounds: int) -> None:
    total = 0
    for number in range(rounds):
        total += number * number


def paired_spin(extra: float) -> PairedSamples:
    rounds = 6000
    return measure_blocks(
        lambda: elapsed_of(lambda: spin(round(rounds * (1 + extra)))),
        lambda: elapsed_of(lambda: spin(rounds)),
        Plan(40, 2),
    )


@pytest.mark.parametrize(("extra", "expected"), [(0.4, Decision.SLOWER), (-0.4, Decision.FASTER)])
def test_more_work_is_slower_and_less_is_faster(extra: float, expected: Decision) -> None:
    found = compare_samples(paired_spin(extra), minimal_effect=0.05)
    assert found.decision is expected
    assert found.proven_ratio == found.estimate.ratio


def test_no_difference_proves_no_ratio() -> None:
    ones = np.full((10, 4), 1e-3)
    samples = PairedSamples(ones, ones, ones, ones, core=None)
    found = compare_samples(samples, minimal_effect=0.05)
    assert (found.decision, found.proven_ratio) == (Decision.NO_DIFFERENCE, 1.0)


def rounds(slower: float, noise: float, seed: int = 0) -> PairedLatency:
    """Return 40 rounds on a machine whose load doubles what some of them take."""
    rng = np.random.default_rng(seed)
    load = 1.0 + rng.exponential(0.5, 40)
    ours, theirs = (1e-3 * load * rng.lognormal(0.0, noise, 40) for _ in range(2))
    return PairedLatency(tuple(slower * ours), tuple(theirs))


def test_a_speedup_is_proven_or_one() -> None:
    assert rounds(1.2, 0.05).proven_speedup == pytest.approx(1 / 1.2, abs=0.05)
    assert rounds(0.8, 0.05).proven_speedup == pytest.approx(1 / 0.8, abs=0.05)
    # As noisy as a page's clock beside two busy neighbours.
    wrong = [rounds(1.0, 0.3, seed).proven_speedup < 1 for seed in range(200)]
    assert sum(wrong) <= 2


def test_a_clock_that_stands_still_proves_nothing() -> None:
    with pytest.raises(StatisticsError, match="a clock too coarse"):
        _ = PairedLatency((0.0,) * 40, (1e-3,) * 40).proven_speedup
