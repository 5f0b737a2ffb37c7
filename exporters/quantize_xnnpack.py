"""INT8 for XNNPACK, by PT2E or by torchao's ``quantize_``, and the smoothing that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from executorch.backends.transforms.duplicate_dynamic_quant_chain import (
    DuplicateDynamicQuantChainPass,
)
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from torch import Tensor, nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from exporters.folding import bias_of, linear_layer, weight_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.export import ExportedProgram

    from exporters.rewrite_xnnpack import XnnpackEncoder

SMOOTHING_ALPHA = 0.3
"""How much of a channel's range moves into the weights; from 0.8 on the weights are ruined."""
_GROUP = 32
"""Inputs that share a scale of 4-bit weights; XNNPACK wants a multiple of 32."""
_SMALLEST_PEAK = 0.01
"""Of the median: a channel that calibration hardly excites is scaled as if it were this loud."""


def smooth_front_end(encoder: XnnpackEncoder, calibration: Sequence[Tensor]) -> None:
    """Even out the channels that the front end's linear reads; its function stays the same.

    Accelerations of 1e3 to 1e6 and positions in [0, 1] share one scale when that input is
    quantized: alone, this linear costs 40 dB. Each channel is divided by
    ``s = peak ** a / weight_peak ** (1 - a)`` and its weights are multiplied by it (SmoothQuant,
    Xiao et al. 2022, equation 4).

    Args:
        encoder: Rewritten encoder; changed in place.
        calibration: Features of one swipe each, (1, F, T) float32.
    """
    front = encoder.front
    with torch.no_grad():
        peaks = [
            front.flattened(swipe, torch.tensor([float(swipe.shape[2])]))[0].abs().amax(dim=(0, 1))
            for swipe in calibration
        ]
    peak = torch.stack(peaks).amax(dim=0).double()
    peak = peak.clamp_min(_SMALLEST_PEAK * peak.median().clamp_min(1e-6))
    weight = weight_of(front.out)
    weight_peak = weight.abs().amax(dim=0).clamp_min(1e-6)
    scale = peak**SMOOTHING_ALPHA / weight_peak ** (1.0 - SMOOTHING_ALPHA)
    scale = scale / scale.log().mean().exp()
    front.smoothing = nn.Parameter((1.0 / scale).float(), requires_grad=False)
    front.out = linear_layer(weight * scale, bias_of(front.out))


def quantize_weights(module: nn.Module, *, small_feed_forwards: bool = False) -> None:
    """Quantize every linear in place by torchao: INT8 weights per channel, inputs at each call.

    Args:
        module: Rewritten encoder or step.
        small_feed_forwards: Give the feed-forwards, half of the encoder, 4-bit weights with a scale
            for each 32 inputs; where these do not divide by 32 they stay in INT8.
    """

    def is_small(layer: nn.Module, name: str) -> bool:
        return (
            small_feed_forwards
            and isinstance(layer, nn.Linear)
            and ".feed_forward" in name
            and layer.in_features % _GROUP == 0
        )

    def is_large(layer: nn.Module, name: str) -> bool:
        return isinstance(layer, nn.Linear) and not is_small(layer, name)

    for dtype, granularity, wanted in (
        (torch.int4, PerGroup(_GROUP), is_small),  # type: ignore[attr-defined]  # torch's stubs lack it
        (torch.int8, PerAxis(0), is_large),
    ):
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=dtype, weight_granularity=granularity
        )
        quantize_(module, config, filter_fn=wanted)


def quantize_by_pt2e(exported: ExportedProgram, inputs: tuple[Tensor, ...]) -> torch.fx.GraphModule:
    """Quantize every linear by PT2E: INT8 weights per channel, inputs at each call.

    Args:
        exported: The traced program.
        inputs: Any valid inputs: observers of weights want to see one call.
    """
    quantizer = XNNPACKQuantizer()
    quantizer.set_operator_type(
        torch.ops.aten.linear.default,
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True),
    )
    quantizer.set_filter_function(_is_matrix_product)
    prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
    prepared(*inputs)
    converted: torch.fx.GraphModule = convert_pt2e(prepared)
    # Linears that share an input would share its quantization, which XNNPACK cannot: the graph
    # would be cut between them.
    DuplicateDynamicQuantChainPass()(converted)
    return converted


def _is_matrix_product(node: torch.fx.Node) -> bool:
    """Leave out the linears of one output that stand for a mean."""
    if node.target != torch.ops.aten.linear.default:
        return True
    weight = node.args[1]
    if not isinstance(weight, torch.fx.Node):
        msg = f"the weight of {node} is {weight!r}, but should be a node"
        raise TypeError(msg)
    outputs: int = weight.meta["val"].shape[0]
    return outputs > 1
