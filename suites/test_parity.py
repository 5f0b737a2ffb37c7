"""Outputs are NeMo's, on real swipes, at every length, whatever stands in the padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant
from exportgate.levels import level
from harness.measure import parity
from harness.measure.compare import SQNR_OF_EQUAL_DB

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures(
    "max_abs_error", "max_error_ratio", "sqnr_db", "worst_sqnr_db", "worst_channel_sqnr_db",
    "channel_noise_p", "low_cosine", "nonfinite", "encoded_length_mismatches",
)  # fmt: skip
def test_outputs(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Valid frames of the encoder, or logits of the step along whole words, are NeMo's."""
    found = context.outputs.comparison(artifact)
    if variant(artifact).graph == "encoder":
        wrong = parity.encoded_length_mismatches(
            context.nemo.reference().encoded, context.outputs.encoder(artifact).encoded
        )
        record("encoded_length_mismatches", len(wrong), "; ".join(wrong[:5]))
    word = context.words.meant()[found.worst_index]
    worst = f"worst: swipe {found.worst_index + 1} of the manifest, {word!r}"
    if found.nonfinite or found.sqnr_db < level("suspect_db", variant(artifact).precision):
        worst = f"{worst}; {context.layers.first_bad(artifact)}".rstrip("; ")
    record("max_abs_error", found.max_abs_error, worst)
    record("max_error_ratio", found.max_error_ratio, worst)
    far = found.farthest_channel
    lowest = found.channel_db[far.index] if found.channel_db else -SQNR_OF_EQUAL_DB
    record("worst_channel_sqnr_db", lowest, f"channel {far.index}")
    record("channel_noise_p", far.p_value, far.sentence(f"channel {far.index}"))
    record("sqnr_db", found.sqnr_db, worst)
    record("worst_sqnr_db", found.worst_sqnr_db, worst, samples=found.sqnr_each_db)
    record("low_cosine", found.low_cosine)
    record("nonfinite", found.nonfinite, worst)


@pytest.mark.measures("worst_bucket_sqnr_db", "length_buckets")
def test_length_buckets(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Short and long swipes alike."""
    buckets = parity.bucket_sqnr_db(
        context.nemo.reference().encoded,
        context.outputs.encoder(artifact).encoded,
        [len(swipe.points) for swipe in context.swipes.all()],
    )
    detail = ", ".join(f"{name} points {value:.1f} dB" for name, value in buckets.items())
    record("worst_bucket_sqnr_db", min(buckets.values()), detail)
    record("length_buckets", len(buckets), detail)


@pytest.mark.measures("shape_failures", "length_noise_p", "overlong_accepted")
def test_shapes(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Every trace length from 1 to the bound is judged like a swipe; one more is refused."""
    sweep = context.outputs.shape_sweep(artifact)
    record("shape_failures", len(sweep.failures), "; ".join(sweep.failures[:5]))
    length, far = context.outputs.farthest_length(artifact)
    record("length_noise_p", far.p_value, far.sentence(f"T={length}"))
    bound = context.request.max_trace_len
    record("overlong_accepted", int(sweep.overlong_accepted), f"a trace of {bound + 1} points")


@pytest.mark.measures("state_max_error_ratio", "normalised_logits", "logit_shift")
def test_states(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """States rolled out over whole words stay NeMo's, and logits are no log-probabilities."""
    found = context.outputs.rollouts(artifact)
    record("state_max_error_ratio", found.states.max_error_ratio)
    record("normalised_logits", found.normalised)
    record("logit_shift", found.shift, f"symbol {found.shifted_symbol}")


@pytest.mark.measures("layer_gain_excess", "layer_shift_excess", "unmatched_layers")
def test_layers(
    artifact: str,
    context: RunContext,
    record: Callable[..., None],
    show: Callable[..., None],
) -> None:
    """Every layer gives what the FP32 file's does: small faults show where they are made."""
    found, missing = context.layers.of(artifact)
    show("layers", [{"layer": layer.name, "sqnr_db": layer.sqnr_db} for layer in found])
    gain = max(found, key=lambda layer: layer.gain_excess)
    where = f"channel {gain.gain_channel} of {gain.name} is off by {gain.gain_error:.1%}"
    record("layer_gain_excess", gain.gain_excess, where)
    shift = max(found, key=lambda layer: layer.shift_excess)
    where = f"channel {shift.shift_channel} of {shift.name} by {shift.shift:.1%} of its RMS"
    record("layer_shift_excess", shift.shift_excess, where)
    record("unmatched_layers", len(missing), ", ".join(missing[:5]))
