"""No larger, no slower and no worse than the released file, which is measured beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant
from harness.gate.baseline import counted_cost, paired_cost, read_baseline, released_accuracy
from harness.measure.paired import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.gate.baseline import Baseline
    from harness.run.context import RunContext


@pytest.fixture
def baseline(context: RunContext) -> Baseline:
    """Return the accepted files."""
    assert context.request.baseline is not None, "gates beside a baseline need --baseline"
    return read_baseline(context.request.baseline)


@pytest.mark.measures("baseline_size_ratio")
def test_size(
    artifact: str, context: RunContext, record: Callable[..., None], baseline: Baseline
) -> None:
    """Bytes of this file ÷ the released one's."""
    ours, theirs = context.files.sidecar(artifact).size_bytes, baseline.sidecar(artifact).size_bytes
    record("baseline_size_ratio", ours / theirs, f"{ours} bytes, released {theirs}")


@pytest.mark.measures("baseline_latency_ratio")
def test_latency(
    artifact: str, context: RunContext, record: Callable[..., None], baseline: Baseline
) -> None:
    """Processor time of this file ÷ the released one's, interleaved; 1 if nothing is proven."""
    # A call of the step takes microseconds: ten of them make a leg that the clock can see.
    plan = Plan() if variant(artifact).graph == "encoder" else Plan(runs=10)
    found, samples = paired_cost(context, baseline, artifact, plan)
    estimate = found.estimate
    detail = (
        f"{found.decision}: {estimate.ratio:.3f}, 99 % interval {estimate.low:.3f} to "
        f"{estimate.high:.3f}, p = {found.p_value:.2g}"
    )
    ratios = samples.candidate_cpu_s.min(axis=1) / samples.baseline_cpu_s.min(axis=1)
    record("baseline_latency_ratio", found.proven_ratio, detail, samples=ratios.tolist())


@pytest.mark.measures("baseline_accuracy_drop")
def test_words(
    artifact: str, context: RunContext, record: Callable[..., None], baseline: Baseline
) -> None:
    """Words decoded by the released encoder and its own step on the same swipes."""
    theirs, ours = released_accuracy(context, baseline, artifact), context.words.accuracy(artifact)
    detail = f"{ours:.4f} of the words, released {theirs:.4f}"
    record("baseline_accuracy_drop", theirs - ours, detail)


@pytest.mark.measures("baseline_sqnr_drop_db")
def test_fidelity(
    artifact: str, context: RunContext, record: Callable[..., None], baseline: Baseline
) -> None:
    """Signal to noise against NeMo, and what the released file's was when it was judged."""
    baseline.sidecar(artifact)
    then, now = baseline.value(artifact, "sqnr_db"), context.outputs.comparison(artifact).sqnr_db
    record("baseline_sqnr_drop_db", then - now, f"{now:.1f} dB, when released {then:.1f} dB")


@pytest.mark.measures("baseline_macs_ratio", "baseline_nodes_ratio")
def test_cost(
    artifact: str, context: RunContext, record: Callable[..., None], baseline: Baseline
) -> None:
    """Multiply-accumulates and nodes of the longest input ÷ the released file's, both counted."""
    ours = context.files.cost(artifact)
    theirs = context.files.cost_of(artifact, baseline.folder / artifact, baseline.sidecar(artifact))
    macs, released = sum(ours.macs.values()), sum(theirs.macs.values())
    record("baseline_macs_ratio", macs / released, f"{macs}, released {released}")
    detail = f"{ours.nodes}, released {theirs.nodes}"
    record("baseline_nodes_ratio", ours.nodes / theirs.nodes, detail)


@pytest.mark.measures("baseline_instruction_ratio", "instructions")
def test_instructions(
    artifact: str, context: RunContext, record: Callable[..., None], baseline: Baseline
) -> None:
    """Instructions of one inference ÷ the released file's, both counted under emulation."""
    ours, theirs = counted_cost(context, baseline, artifact)
    detail = f"{ours.instructions} instructions on {ours.guest}, released {theirs.instructions}"
    record("instructions", ours.instructions, ours.guest, samples=ours.each)
    record("baseline_instruction_ratio", ours.instructions / theirs.instructions, detail)
