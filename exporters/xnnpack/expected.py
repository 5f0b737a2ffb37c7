"""What the checkpoint says that a .pte must hold: see ``exporters.quantize.expected``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.graphs.step import StepGraph
from exporters.quantize.calibration import checked_features
from exporters.quantize.expected import ExpectedFile, Rounding
from exporters.quantize.gptq import EncoderPlan
from exporters.quantize.hessians import matrix_layers, observe_hessians
from exporters.quantize.step_calibration import observe_steps
from exporters.variants import is_quantized
from exporters.xnnpack.encoder_graph import rewrite_encoder
from exporters.xnnpack.to_pte import (
    lowered_payload,
    prepare_encoder,
    prepare_step,
    quantization,
    quiet_and_reproducible,
)
from exportgate.contract import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.quantize.gptq import MatrixCodes
    from exporters.recipes import MixedRecipe, Quantizer
    from exporters.variants import Precision
    from exporters.xnnpack.options import RewriteOptions
    from exportgate.contract import Interface


def expected_encoder(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    quantizer: Quantizer,
    max_trace_len: int,
    calibration: Sequence[NDArray[np.float32]] | None,
    options: RewriteOptions,
    mixed: MixedRecipe | None = None,
    interface: Interface = OURS,
) -> ExpectedFile:
    """Return what an encoder must hold; arguments as those of ``encoder_to_pte``."""
    roundings: Mapping[str, Rounding] = {}
    plan = None
    if is_quantized(precision):
        encoder = rewrite_encoder(
            checkpoint.model.encoder, max_trace_len=max_trace_len, options=options
        )
        swipes = checked_features(calibration, encoder.front.feature_dim, longest=max_trace_len)
        with quiet_and_reproducible():
            alpha = mixed.smoothing_alpha if mixed else quantization().SMOOTHING_ALPHA
            smoothing, hessians = quantization().observe_encoder(encoder, swipes, alpha)
        roundings = (
            _mixed_roundings(encoder, hessians, mixed)
            if mixed
            else _roundings(encoder, hessians, precision)
        )
        plan = EncoderPlan(smoothing, {precision: _nearest(roundings)}, mixed)
    prepared = prepare_encoder(
        checkpoint,
        precision=precision,
        calibration=calibration,
        max_trace_len=max_trace_len,
        options=options,
        plan=plan,
        interface=interface,
    )
    return ExpectedFile(lowered_payload(prepared, quantizer), roundings)


def expected_step(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[NDArray[np.float32]] | None,
    interface: Interface = OURS,
) -> ExpectedFile:
    """Return what a step must hold; arguments as those of ``step_to_pte``."""
    prepared = prepare_step(checkpoint, precision="fp32", calibration=None, interface=interface)
    if not is_quantized(precision):
        return ExpectedFile(lowered_payload(prepared), {})
    swipes = checked_features(calibration, checkpoint.spec.feature_dim)
    step = StepGraph(checkpoint.model).eval()
    steps = observe_steps(checkpoint, step, swipes)
    hessians = observe_hessians(matrix_layers(step), lambda: step(*steps))
    roundings = _roundings(step, hessians, precision)
    prepared = replace(prepared, precision=precision, codes=_nearest(roundings))
    return ExpectedFile(lowered_payload(prepared), roundings)


def _roundings(
    module: nn.Module, hessians: dict[str, list[Tensor]], precision: Precision
) -> dict[str, Rounding]:
    return {
        name: Rounding.of(
            layer, hessians.pop(name), *quantization().codes_of(precision, layer.in_features)
        )
        for name, layer in matrix_layers(module)
    }


def _mixed_roundings(
    module: nn.Module, hessians: dict[str, list[Tensor]], mixed: MixedRecipe
) -> dict[str, Rounding]:
    layers = dict(matrix_layers(module))
    choices = mixed.checked({name: layer.in_features for name, layer in layers.items()})
    return {
        name: Rounding(
            layers[name].weight.detach().clone(),
            quantization().gptq_of(choice, hessians.pop(name)),
            quantization().codes_of_bits(choice.bits),
            choice.group,
        )
        for name, choice in choices.items()
        if choice.bits != 32
    }


def _nearest(roundings: Mapping[str, Rounding]) -> dict[str, MatrixCodes]:
    return {name: rounding.nearest() for name, rounding in roundings.items()}
