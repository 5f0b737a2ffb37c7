"""Integer weights for XNNPACK: in modules or by PT2E, and the smoothing that they need."""

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
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from exporters.graphs.folding import bias_of, linear_layer, weight_of
from exporters.graphs.step import LabelEmbedding
from exporters.quantize.gptq import S4, S8, Codes, EncoderPlan, Gptq, MatrixCodes, rows_to_int8
from exporters.quantize.hessians import matrix_layers, observe_hessians
from exporters.quantize.smoothing import balance
from exporters.xnnpack.attention import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from exporters.recipes import LayerChoice, MixedRecipe
    from exporters.xnnpack.encoder_graph import XnnpackEncoder

SMOOTHING_ALPHA = 0.3
"""How much of a channel's range moves into the weights; from 0.8 on the weights are ruined."""
_GROUP = 32
"""Inputs that share a scale of 4-bit weights: XNNPACK wants a multiple of 32 that divides a layer's
inputs. Where none does, all inputs of a channel share one (qc4w)."""
_SMALLEST_STEP = 1e-12
"""Of weights: only channels of zeros have a smaller one."""
_SMALLEST_PEAK = 0.01
"""Of the median: a channel that calibration hardly excites is scaled as if it were this loud,
so that it is multiplied by 0.01 ** -SMOOTHING_ALPHA = 4 at most. Steps are per call: none clips."""


def plan_encoder(
    encoder: XnnpackEncoder, swipes: Sequence[NDArray[np.float32]], precisions: Iterable[str]
) -> EncoderPlan:
    """Decide what to quantize an encoder's weights to.

    Args:
        encoder: Rewritten encoder; its front end is smoothed, in place.
        swipes: (F, T) float32 each.
        precisions: ``int8``, ``int4`` or both.
    """
    smoothing, hessians = observe_encoder(encoder, swipes)
    return EncoderPlan(smoothing, round_layers(encoder, hessians, precisions))


def observe_encoder(
    encoder: XnnpackEncoder,
    swipes: Sequence[NDArray[np.float32]],
    alpha: float = SMOOTHING_ALPHA,
) -> tuple[NDArray[np.float32], dict[str, list[Tensor]]]:
    """Smooth the front end, in place; return by what, and the Hessians of all matrix layers."""
    # One at a time: there may be more features than memory.
    batches = (torch.from_numpy(swipe)[None] for swipe in swipes)
    smoothing = front_end_smoothing(encoder, batches, alpha)
    smooth_front_end(encoder, smoothing)

    def run() -> None:
        for swipe in swipes:
            encoder(torch.from_numpy(swipe)[None], torch.tensor([swipe.shape[1]]))

    return smoothing, observe_hessians(matrix_layers(encoder), run)


def front_end_smoothing(
    encoder: XnnpackEncoder, calibration: Iterable[Tensor], alpha: float = SMOOTHING_ALPHA
) -> NDArray[np.float32]:
    """Return by what to divide the channels that the front end's linear reads.

    Accelerations of 1e3 to 1e6 and positions in [0, 1] share one scale when that input is
    quantized: alone, this linear costs 40 dB. See ``smoothing``.

    Args:
        encoder: Rewritten encoder.
        calibration: Features of one swipe each, (1, F, T) float32.
        alpha: How much of a channel's range moves into the weights.
    """
    front = encoder.front
    with torch.no_grad():
        peaks = [
            front.flattened(swipe, torch.tensor([float(swipe.shape[2])]))[0].abs().amax(dim=(0, 1))
            for swipe in calibration
        ]
    peak = torch.stack(peaks).amax(dim=0).double()
    peak = peak.clamp_min(_SMALLEST_PEAK * peak.median().clamp_min(1e-6))
    return balance(peak, weight_of(front.out), alpha).float().numpy()


def smooth_front_end(encoder: XnnpackEncoder, smoothing: NDArray[np.float32]) -> None:
    """Divide the channels that the front end's linear reads, in place; its function stays."""
    front, scale = encoder.front, torch.from_numpy(smoothing).double()
    front.smoothing = nn.Parameter((1.0 / scale).float(), requires_grad=False)
    front.out = linear_layer(weight_of(front.out) * scale, bias_of(front.out))


def round_layers(
    module: nn.Module, hessians: dict[str, list[Tensor]], precisions: Iterable[str]
) -> dict[str, dict[str, MatrixCodes]]:
    """Return the integers of every matrix layer's weights, by precision and the layer's name.

    With ``int4``, 32 inputs share a step, or all where 32 does not divide them.

    Args:
        module: Rewritten encoder or step.
        hessians: From ``hessians.observe_hessians``, of all its matrix layers; emptied on the way.
        precisions: ``int8``, ``int4`` or both.
    """
    found: dict[str, dict[str, MatrixCodes]] = {precision: {} for precision in precisions}
    for name, layer in matrix_layers(module):
        gptq, weight = Gptq(hessians.pop(name)), layer.weight.detach()
        for precision, layers in found.items():
            codes, group = codes_of(precision, layer.in_features)
            layers[name] = gptq.round(weight, codes, group=group)
    return found


def plan_mixed(
    encoder: XnnpackEncoder, swipes: Sequence[NDArray[np.float32]], recipe: MixedRecipe
) -> tuple[NDArray[np.float32], dict[str, MatrixCodes]]:
    """Decide on the integers of a recipe: what ``smooth_front_end`` takes, and codes by layer.

    Args:
        encoder: Rewritten encoder; its front end is smoothed, in place.
        swipes: (F, T) float32 each.
        recipe: How each of its matrices is stored.

    Raises:
        RecipeError: It is another encoder's.
    """
    choices = recipe.checked({name: layer.in_features for name, layer in matrix_layers(encoder)})
    smoothing, hessians = observe_encoder(encoder, swipes, recipe.smoothing_alpha)
    found = {}
    for name, layer in matrix_layers(encoder):
        if choices[name].bits != 32:
            gptq = gptq_of(choices[name], hessians.pop(name))
            codes = codes_of_bits(choices[name].bits)
            found[name] = gptq.round(layer.weight.detach(), codes, group=choices[name].group)
    return smoothing, found


def gptq_of(choice: LayerChoice, hessian: list[Tensor]) -> Gptq:
    """Return what rounds a layer: without GPTQ, each weight by itself, as if none met another."""
    if not choice.gptq:
        hessian = [torch.eye(len(block), dtype=torch.float64) for block in hessian]
    return Gptq(hessian)


def codes_of_bits(bits: int) -> Codes:
    """Return the codes of 4 or 8 bits."""
    return S4 if bits == 4 else S8


def codes_of(precision: str, inputs: int) -> tuple[Codes, int | None]:
    """Return the codes of a matrix of so many inputs, and how many of them share a step."""
    codes = S4 if precision == "int4" else S8
    return codes, _group(codes, inputs)


def _group(codes: Codes, inputs: int) -> int | None:
    """Return how many inputs share a step; None for all."""
    return _GROUP if codes == S4 and inputs % _GROUP == 0 else None


def quantize_layers(module: nn.Module, codes: Mapping[str, MatrixCodes]) -> None:
    """Put quantized linears and tables into the places of a module's own.

    Args:
        module: Rewritten encoder or step.
        codes: From ``round_layers``, by the layer's name.
    """
    for name, weight in codes.items():
        linear: Any = module.get_submodule(name)
        module.set_submodule(name, _QuantizedLinear(linear, weight))
    for name, found in [*module.named_modules()]:
        if isinstance(found, Table):
            module.set_submodule(name, _QuantizedTable(found.values))
        elif isinstance(found, LabelEmbedding):
            module.set_submodule(name, _QuantizedEmbedding(found.weight.detach()))


class _QuantizedLinear(nn.Module):
    """A linear of integer weights, in the operators that XNNPACK's partitioner looks for.

    torchao's ``quantize_`` makes the same program of a tensor subclass; taking that apart at each
    of the backend's passes takes a third longer.
    """

    weight: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, linear: nn.Linear, weight: MatrixCodes) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.codes = weight.range
        self.group = weight.group or 0
        self.by_group = weight.group is not None
        scales = torch.from_numpy(weight.scales if self.by_group else weight.scales[:, 0])
        self.register_buffer("weight", torch.from_numpy(weight.codes))
        self.register_buffer("scales", scales)
        zeros = torch.zeros(scales.shape, dtype=torch.int8 if self.by_group else torch.int64)
        self.register_buffer("zeros", zeros)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return (…, out) of (…, in); each row of the input has a step of its own."""
        ops = torch.ops.quantized_decomposed
        grid = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
        rounded = ops.quantize_per_token(x, *grid, -128, 127, torch.int8)
        x = ops.dequantize_per_token(rounded, *grid, -128, 127, torch.int8, torch.float32)
        if self.by_group:
            weight = ops.dequantize_per_channel_group(
                *(self.weight, self.scales, self.zeros),
                *(S4.lowest, S4.highest, torch.int8, self.group, torch.float32),
            )
        else:
            weight = ops.dequantize_per_channel(
                *(self.weight, self.scales, self.zeros),
                *(0, self.codes.lowest, self.codes.highest, torch.int8),
            )
        return nn.functional.linear(x, weight, self.bias)


class _QuantizedTable(nn.Module):
    """A table in INT8 of one step: XNNPACK turns it to FP32 at each call, which is not felt."""

    codes: Tensor

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.step = max(float(values.abs().max()) / S8.highest, _SMALLEST_STEP)
        self.register_buffer("codes", (values / self.step).round().to(torch.int8))

    def forward(self) -> Tensor:
        """Return the table in FP32."""
        out: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(
            self.codes, self.step, 0, S8.lowest, S8.highest, torch.int8
        )
        return out


class _QuantizedEmbedding(nn.Module):
    """An embedding in INT8 of a step per label, in operators that every ExecuTorch build has."""

    codes: Tensor
    steps: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        codes, steps = rows_to_int8(table)
        self.register_buffer("codes", codes)
        self.register_buffer("steps", steps[:, None])

    def forward(self, labels: Tensor) -> Tensor:
        """Return (B, H) float32 of (B,) labels."""
        embedding = nn.functional.embedding
        return embedding(labels, self.codes).to(torch.float32) * embedding(labels, self.steps)


def quantize_by_pt2e(
    exported: ExportedProgram, inputs: tuple[Tensor, ...], codes: Mapping[str, MatrixCodes]
) -> torch.fx.GraphModule:
    """Quantize every linear by PT2E: INT8 weights per channel, inputs at each call.

    Args:
        exported: The traced program.
        inputs: Any valid inputs: observers of weights want to see one call.
        codes: From ``round_layers``, of what was traced: INT8.
    """
    quantizer = XNNPACKQuantizer()
    quantizer.set_operator_type(
        torch.ops.aten.linear.default,
        get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True),
    )
    quantizer.set_filter_function(_is_matrix_product)
    prepared = prepare_pt2e(exported.module(check_guards=False), quantizer)
    prepared(*inputs)
    _round_observed_weights(prepared, codes)
    converted: torch.fx.GraphModule = convert_pt2e(prepared)
    # Linears that share an input would share its quantization, which XNNPACK cannot: the graph
    # would be cut between them.
    DuplicateDynamicQuantChainPass()(converted)
    return converted


def _round_observed_weights(
    prepared: torch.fx.GraphModule, codes: Mapping[str, MatrixCodes]
) -> None:
    """Put weights on the grid of their codes: PT2E would round them to the nearest.

    Its observers take no step below 2**-12, where small weights would be left a few codes only.
    """
    for name, rounded in codes.items():
        (node,) = prepared.graph.find_nodes(op="get_attr", target=f"{name}.weight")
        (observer,) = node.users
        observing: Any = prepared.get_submodule(observer.target)
        observing.eps.fill_(_SMALLEST_STEP)
        weight = prepared.get_parameter(node.target)
        weight.data = torch.from_numpy(rounded.codes * rounded.scales)


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
