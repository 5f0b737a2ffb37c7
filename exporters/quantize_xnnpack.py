"""INT8 for XNNPACK, by PT2E or by torchao's ``quantize_``, and the smoothing that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
from exporters.rounding import S4, S8, matrix_layers, observe_grams, round_weights
from exporters.smoothing import balance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from exporters.rewrite_xnnpack import XnnpackEncoder

SMOOTHING_ALPHA = 0.3
"""How much of a channel's range moves into the weights; from 0.8 on the weights are ruined."""
_GROUP = 32
"""Inputs that share a scale of 4-bit weights; XNNPACK wants a multiple of 32."""
_SMALLEST_PEAK = 0.01
"""Of the median: a channel that calibration hardly excites is scaled as if it were this loud."""


def prepare(encoder: XnnpackEncoder, swipes: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
    """Smooth the front end, in place, and return what ``rounding.observe_grams`` sees afterwards.

    Args:
        encoder: Rewritten encoder.
        swipes: (F, T) float32 each.
    """
    calibration = [torch.from_numpy(swipe)[None] for swipe in swipes]
    smooth_front_end(encoder, calibration)

    def run() -> None:
        for swipe in calibration:
            encoder(swipe, torch.tensor([swipe.shape[2]]))

    return observe_grams(matrix_layers(encoder), run)


def smooth_front_end(encoder: XnnpackEncoder, calibration: Sequence[Tensor]) -> None:
    """Even out the channels that the front end's linear reads; its function stays the same.

    Accelerations of 1e3 to 1e6 and positions in [0, 1] share one scale when that input is
    quantized: alone, this linear costs 40 dB. See ``smoothing``.

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
    scale = balance(peak, weight, SMOOTHING_ALPHA)
    front.smoothing = nn.Parameter((1.0 / scale).float(), requires_grad=False)
    front.out = linear_layer(weight * scale, bias_of(front.out))


def quantize_weights(
    module: nn.Module, grams: Mapping[str, Tensor], *, four_bits: bool = False
) -> None:
    """Quantize every linear in place by torchao: INT8 weights per channel, inputs at each call.

    Args:
        module: Rewritten encoder or step.
        grams: From ``rounding.observe_grams``, of all its matrix layers.
        four_bits: Give weights 4 bits, with a step for each 32 inputs; layers whose inputs do not
            divide by 32 stay in INT8.
    """
    layers = dict(matrix_layers(module))
    small = {
        name for name, layer in layers.items() if four_bits and layer.in_features % _GROUP == 0
    }
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    for dtype, granularity, names in (
        (torch.int4, PerGroup(_GROUP), small),  # type: ignore[attr-defined]  # torch's stubs lack it
        (torch.int8, PerAxis(0), layers.keys() - small),
    ):
        config = Int8DynamicActivationIntxWeightConfig(
            weight_dtype=dtype, weight_granularity=granularity
        )
        quantize_(module, config, filter_fn=lambda _layer, name, names=names: name in names)
    for name, layer in layers.items():
        # torchao rounds to the nearest; its steps are kept, its codes are not.
        held: Any = layer.weight
        codes = S4 if name in small else S8
        held.qdata.copy_(round_weights(weights[name], grams[name], held.scale, codes))


def quantize_by_pt2e(
    exported: ExportedProgram, inputs: tuple[Tensor, ...], grams: Mapping[str, Tensor]
) -> torch.fx.GraphModule:
    """Quantize every linear by PT2E: INT8 weights per channel, inputs at each call.

    Args:
        exported: The traced program.
        inputs: Any valid inputs: observers of weights want to see one call.
        grams: From ``rounding.observe_grams``, of all matrix layers of what was traced.
    """
    quantizer = XNNPACKQuantizer()
    quantizer.set_operator_type(
        torch.ops.aten.linear.default,
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True),
    )
    quantizer.set_filter_function(_is_matrix_product)
    prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
    prepared(*inputs)
    _round_observed_weights(prepared, grams)
    converted: torch.fx.GraphModule = convert_pt2e(prepared)
    # Linears that share an input would share its quantization, which XNNPACK cannot: the graph
    # would be cut between them.
    DuplicateDynamicQuantChainPass()(converted)
    return converted


def _round_observed_weights(prepared: torch.fx.GraphModule, grams: Mapping[str, Tensor]) -> None:
    """Put weights on the grid that their observers chose: PT2E would round them to the nearest."""
    for name, gram in grams.items():
        (node,) = prepared.graph.find_nodes(op="get_attr", target=f"{name}.weight")
        (observer,) = node.users
        chosen: Any = prepared.get_submodule(observer.target)
        scales, _ = chosen.calculate_qparams()
        weight = prepared.get_parameter(node.target)
        scales = scales.float()[:, None]
        weight.data = round_weights(weight.detach(), gram, scales, S8) * scales


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
