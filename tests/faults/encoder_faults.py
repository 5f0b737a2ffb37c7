"""Faults of ONNX encoders: the graph, the weights, the quantization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.faults.fault import Fault
from tests.faults.graph_edits import (
    add_nodes,
    after_input,
    before_output,
    change_constant,
    constant,
    dequantize_stored,
    drop_activation_quantizers,
    node_with_output,
    operate,
    put,
    redeclare,
    rename,
    scale_part,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.faults.run import Workspace

FP32, INT8, FP16 = "encoder_fp32.onnx", "encoder_int8.onnx", "encoder_fp16.onnx"
WEB = "encoder_int8_web.onnx"
FLOAT, INT32 = TensorProto.FLOAT, TensorProto.INT32


def fp32(name: str, row: int | None, what: str, gate: str, *changes: Any) -> Fault:
    return Fault(name, row, what, (FP32,), f"{FP32} {gate}", operate(FP32, *changes))


def int8(name: str, row: int | None, what: str, gate: str, *changes: Any) -> Fault:
    return Fault(name, row, what, (INT8,), f"{INT8} {gate}", operate(INT8, *changes))


def zero_part(name: str, part: slice) -> Callable[[onnx.ModelProto], None]:
    return scale_part(name, part, 0.0)


def retype(output: str, op: str) -> Callable[[onnx.ModelProto], None]:
    """Return a change of an operator's type, its inputs kept."""

    def apply(model: onnx.ModelProto) -> None:
        node_with_output(model, output).op_type = op

    return apply


def set_operand(output: str, place: int, value: object) -> Callable[[onnx.ModelProto], None]:
    """Return a change of one operator's constant, which stands in a node that others use too."""

    def apply(model: onnx.ModelProto) -> None:
        node = node_with_output(model, output)
        tensor = node_with_output(model, node.input[place]).attribute[0].t
        before = numpy_helper.to_array(tensor)
        put("operand.changed", np.asarray(value, before.dtype))(model)
        node.input[place] = "operand.changed"

    return apply


def lengths_ignored(model: onnx.ModelProto) -> None:
    """Take the number of frames for the length of each swipe."""
    for node in model.graph.node:
        node.input[:] = ["lengths.full" if name == "lengths" else name for name in node.input]
    nodes = [
        helper.make_node("Shape", ["features_bft"], ["frames"], start=2, end=3),
        helper.make_node("Shape", ["lengths"], ["batch"]),
        helper.make_node("Expand", ["frames", "batch"], ["lengths.full"]),
    ]
    add_nodes(model, nodes, first=True)


def convolution_unmasked(model: onnx.ModelProto) -> None:
    """Let what stands in the padding into a block's depthwise convolution."""
    node = next(n for n in model.graph.node if "/Reshape_1_output_0" in n.input)
    node.op_type = "Identity"
    node.input.remove("/Reshape_1_output_0")


def dequantized_off_by_one(layer: str) -> Callable[[onnx.ModelProto], None]:
    """Return a change of the zero point behind a layer's quantizer, not of the quantizer's own."""

    def apply(model: onnx.ModelProto) -> None:
        own = f"{layer}.first.zero_point"
        value = numpy_helper.to_array(constant(model, own))
        put("zero_point.off", np.asarray(value + 1, value.dtype))(model)
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear" and own in node.input:
                node.input[2] = "zero_point.off"

    return apply


def squared_in_fp16(model: onnx.ModelProto) -> None:
    """Add 0 × x² to a value x of some thousands, the square taken in FP16."""
    name = "/front_end/convs.1/Conv_output_0"
    nodes = list(model.graph.node)
    where = nodes.index(node_with_output(model, name))
    nodes[where].output[:] = ["x"]
    put("none", np.zeros((), np.float32))(model)
    nodes[where + 1 : where + 1] = [
        helper.make_node("Mul", ["x", "x"], ["square.wide"]),
        helper.make_node("Cast", ["square.wide"], ["square.half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["square.half"], ["square"], to=FLOAT),
        helper.make_node("Mul", ["square", "none"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], [name]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def residual_dropped(model: onnx.ModelProto) -> None:
    node = node_with_output(model, "/blocks.1/Add_7_output_0")
    node.op_type = "Identity"
    del node.input[0]


def halves_swapped(value: NDArray[Any]) -> NDArray[Any]:
    return np.roll(value, len(value) // 2, axis=0)


def clipped_positions(value: NDArray[Any]) -> NDArray[Any]:
    """Repeat the outermost quarter's first column, as a table cut to half its length does."""
    quarter = value.shape[1] // 4
    value[:, :quarter] = value[:, quarter : quarter + 1]
    value[:, -quarter:] = value[:, -quarter - 1 : -quarter]
    return value


def four_bits(value: NDArray[Any]) -> NDArray[Any]:
    return (np.rint(value / 8.0) * 8.0).clip(-63, 63)


def random_like(value: NDArray[Any]) -> NDArray[Any]:
    noise = np.random.default_rng(1).standard_normal(value.shape)
    return value + 0.01 * np.abs(value).mean() * noise


def every_weight(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Any:
    def apply(model: onnx.ModelProto) -> None:
        for tensor in list(model.graph.initializer):
            value = numpy_helper.to_array(tensor)
            if value.dtype == np.float32 and value.size > 256:
                changed = change(value.copy()).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    return apply


def noise_at_each_run(model: onnx.ModelProto) -> None:
    """Leave a random operator in the graph, as an export in training mode does."""
    inner = node_with_output(model, "encoded_bdt")
    inner.output[:] = ["encoded_bdt.clean"]
    nodes = [
        helper.make_node("RandomNormalLike", ["encoded_bdt.clean"], ["dropout"], scale=0.01),
        helper.make_node("Add", ["encoded_bdt.clean", "dropout"], ["encoded_bdt"]),
    ]
    add_nodes(model, nodes)


def unfused(model: onnx.ModelProto) -> None:
    """Put between each product and what it dequantises an operator that no kernel takes in.

    It is a maximum with the least of all numbers, so that outputs stay as they are. The runtime
    then dequantises weights and inputs at each run and multiplies in FP32: slower than FP32 itself.
    """
    put("least", np.array(np.finfo(np.float32).min, np.float32))(model)
    made = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type in {"Gemm", "MatMul"} and node.input[0] in made:
            held = f"{node.output[0]}.held"
            nodes.append(helper.make_node("Max", [node.input[0], "least"], [held]))
            node.input[0] = held
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def int8_scales_swapped(model: onnx.ModelProto) -> None:
    one, two = (constant(model, f"blocks.{i}.ff1_in.weight.scale") for i in (0, 1))
    values = numpy_helper.to_array(one).copy(), numpy_helper.to_array(two).copy()
    one.CopyFrom(numpy_helper.from_array(values[1], one.name))
    two.CopyFrom(numpy_helper.from_array(values[0], two.name))


def hardware_layouts(workspace: Workspace) -> None:
    """Save what ONNX Runtime optimised for the processor at hand."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    out = workspace.folder / "optimised.tmp"
    options.optimized_model_filepath = str(out)
    path = workspace.path(FP32)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model = onnx.load(out)
    out.unlink()
    if not any("nchwc" in node.domain for node in model.graph.node):
        # A processor without such layouts: an operator that stands for them.
        model.graph.node[0].domain = "com.microsoft.nchwc"
    workspace.rewrite(FP32, model.SerializeToString())


SWAPPED_DIMS: list[int | str] = ["B", "T_out", 96]

ENCODER_FAULTS = (
    fp32("encoder is (B,T,D)", 4, "the output is transposed and declared so",
         "contract_mismatches_max", before_output("encoded_bdt", "Transpose", perm=[0, 2, 1]),
         redeclare("encoded_bdt", FLOAT, SWAPPED_DIMS)),
    fp32("encoder labelled (B,T,D)", 4, "(B,D,T) values under a (B,T,D) declaration and name",
         "contract_mismatches_max", rename("encoded_bdt", "encoded_btf"),
         redeclare("encoded_btf", FLOAT, SWAPPED_DIMS)),
    fp32("fixed T", 8, "the example's 100 frames are baked in", "shape_failures_max",
         redeclare("features_bft", FLOAT, ["B", 37, 100])),
    fp32("batch of one baked in", 8, "the batch axis is 1", "contract_mismatches_max",
         redeclare("features_bft", FLOAT, [1, 37, "T"])),
    fp32("attention unmasked", 9, "padding takes part in the attention",
         "padding_noise_ratio_max", set_operand("/Mul_output_0", 1, 0.0)),
    fp32("mask off by one", 9, "the first padded frame counts as valid",
         "padding_noise_ratio_max", retype("/front_end/Less_2_output_0", "LessOrEqual")),
    fp32("convolution unmasked", 9, "one block's convolution reads the padding",
         "padding_noise_ratio_max", convolution_unmasked),
    fp32("lengths ignored", 19, "all frames of a padded batch count as valid",
         "padding_noise_ratio_max", lengths_ignored),
    fp32("encoded length rounds down", 19, "T' = floor(T / 2) in the first halving",
         "encoded_length_mismatches_max", set_operand("/front_end/Add_output_0", 1, 0)),
    fp32("int32 lengths", None, "lengths come as int32", "contract_mismatches_max",
         after_input("lengths", "Cast", to=TensorProto.INT64), redeclare("lengths", INT32, ["B"])),
    fp32("input renamed", None, "features_bft is called audio_signal", "contract_mismatches_max",
         rename("features_bft", "audio_signal")),
    fp32("right on noise only", 14, "features are clipped at ±10, which randn never reaches",
         "max_error_ratio_max", put("low", np.array(-10, np.float32)),
         put("high", np.array(10, np.float32)), after_input("features_bft", "Clip", "low", "high")),
    fp32("channel scale 5 % off", 22, "one output channel of one Gemm", "max_error_ratio_max",
         scale_part("blocks.1.ff1_out.weight", 7, 1.05)),
    fp32("one weight perturbed", 22, "one of 800 000 weights is 1 % off",
         "constant_mismatches_max",
         change_constant("blocks.0.qkv.weight", lambda w: perturbed_one(w, 0.01))),
    fp32("one LayerNorm gain 5 % off", 22, "one gain of the last norm", "max_error_ratio_max",
         scale_part("blocks.2.norm_out.weight", 3, 1.05)),
    fp32("attention head zeroed", None, "the values of one of four heads", "max_error_ratio_max",
         zero_part("blocks.1.qkv.weight", slice(192, 216)),
         zero_part("blocks.1.qkv.bias", slice(192, 216))),
    fp32("query and key exchanged", None, "in the fused projection of one block",
         "max_error_ratio_max", change_constant(
             "blocks.0.qkv.weight", lambda w: np.concatenate([w[96:192], w[:96], w[192:]]))),
    fp32("GLU halves exchanged", None, "the gate gates the gate", "max_error_ratio_max",
         change_constant("blocks.0.pointwise1.weight", halves_swapped)),
    fp32("residual dropped", None, "one block's attention replaces its input",
         "max_error_ratio_max", residual_dropped),
    fp32("half step forgotten", None, "the feed-forward's 0.5 is applied twice",
         "max_error_ratio_max", scale_part("blocks.2.ff2_out.weight", slice(None), 0.5)),
    fp32("relative positions shifted", None, "the position table is one column off",
         "max_error_ratio_max", change_constant("blocks.0.positions", lambda p: np.roll(p, 1, 1))),
    fp32("position table clipped", None, "positions beyond half the bound repeat",
         "max_error_ratio_max", change_constant("blocks.0.positions", clipped_positions),
         change_constant("blocks.1.positions", clipped_positions)),
    fp32("BatchNorm not folded", None, "the depthwise convolution lacks its bias",
         "max_error_ratio_max", zero_part("blocks.1.depthwise.bias", slice(None))),
    fp32("every weight 1 % off", None, "noise on all weights", "max_error_ratio_max",
         every_weight(random_like)),
    fp32("dropout left on", None, "exported in training mode", "max_error_ratio_max",
         noise_at_each_run),
    Fault("optimised for this processor", 23, "ONNX Runtime's nchwc operators are baked in",
          (FP32,), f"{FP32} unportable_ops_max", hardware_layouts),
    int8("INT8 zero point + 1", 22, "one layer quantises and dequantises with different ones",
         "layer_shift_excess_max", dequantized_off_by_one("blocks.1.ff2_in")),
    int8("INT8 channel scale 5 % off", 22, "one row of a Gemm's weights", "layer_gain_excess_max",
         scale_part("blocks.2.ff2_out.weight.scale", 7, 1.05)),
    int8("layer not recognised", None, "one product has another name than in the FP32 file",
         "unmatched_layers_max", rename("/blocks.1/qkv/Gemm_output_0", "fused")),
    int8("INT8 scales of two layers exchanged", 22, "the weight scales of two blocks",
         "sqnr_db_min", int8_scales_swapped),
    int8("activation outlier", 15, "one swipe of calibration stretched a layer's range × 16",
         "layer_shift_excess_max", scale_part("blocks.0.ff1_out.first.step", slice(None), 16.0),
         scale_part("blocks.0.ff1_out.bias.scale", slice(None), 16.0),
         change_constant("blocks.0.ff1_out.bias.codes", lambda b: b // 16)),
    int8("front end quantised with one scale", 15, "accelerations and positions share 256 codes",
         "sqnr_db_min", change_constant("front_end.out.second.step", lambda s: s * 4096)),
    int8("weights over the full range of INT8", 16, "right here, wrong on an x86 without VNNI",
         "saturating_pairs_max",
         change_constant("blocks.1.ff1_in.weight.codes", lambda w: np.clip(w * 1.5, -127, 127)),
         scale_part("blocks.1.ff1_in.weight.scale", slice(None), 1 / 1.5),
         scale_part("blocks.1.ff1_in.bias.scale", slice(None), 1 / 1.5),
         change_constant("blocks.1.ff1_in.bias.codes", lambda b: b * 1.5)),
    int8("weights of 4 bits", 15, "under an INT8 name", "sqnr_db_min",
         *(change_constant(f"blocks.{i}.{part}.weight.codes", four_bits)
           for i in range(3) for part in ("ff1_in", "ff1_out", "ff2_in", "ff2_out"))),
    int8("INT8 in storage only", 11, "only DequantizeLinear is left: arithmetic is FP32",
         "quantize_ops_min", drop_activation_quantizers),
    int8("half of INT8 fell back", 10, "all but six layers are FP32 again",
         "int8_matrix_share_min", lambda model: dequantize_stored(model, keep=6)),
    int8("INT8 slower than FP32", 17, "as QDQ that no kernel fuses", "int8_compute_share_min",
         unfused),
    Fault("FP16 overflow", 13, "one norm squares its input in FP16, which ends at 65504", (FP16,),
          f"{FP16} nonfinite_max", operate(FP16, squared_in_fp16)),
)  # fmt: skip


def perturbed_one(value: NDArray[Any], share: float) -> NDArray[Any]:
    """Change the largest weight of a matrix by a share of itself."""
    where = np.unravel_index(np.abs(value).argmax(), value.shape)
    value[where] *= 1 + share
    return value
