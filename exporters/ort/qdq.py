"""The ONNX nodes of a quantised model: QDQ Gemms for an encoder, dynamic matrices for a step.

QDQ around a Gemm with float output is what ONNX Runtime fuses to an integer Gemm, and what any
other runtime can execute as written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from exporters.ort.storage import GraphEditor
from exporters.ort.trace import OnnxExportError
from exporters.quantize.static_config import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from exporters.quantize.static_config import GemmConfig

_MIDDLE = 128
"""The u8 code of 0.0 where positive and negative values are alike."""


def quantize_gemms(model: onnx.ModelProto, configs: Mapping[str, GemmConfig]) -> onnx.ModelProto:
    """Return a copy of the model in which each configured layer's Gemm is quantised.

    Args:
        model: Its Gemms take ``<layer>.weight`` (out, in) transposed, and ``<layer>.bias``.
        configs: By layer.

    Raises:
        OnnxExportError: A configured layer has no such Gemm, or a bias does not fit its 32 bits.
    """
    editor = GraphEditor(model)
    gemms = {node.input[1]: node for node in editor.nodes if node.op_type == "Gemm"}
    for layer, config in configs.items():
        node = gemms.get(f"{layer}.weight")
        if node is None:
            msg = f"the graph has no Gemm with {layer}.weight; the exporter named it otherwise"
            raise OnnxExportError(msg)
        editor.replace(node, _GemmBuilder(editor, layer, config).build(node))
    return editor.finish()


class _GemmBuilder:
    """Collects the nodes that take the place of one layer's Gemm."""

    def __init__(self, editor: GraphEditor, layer: str, config: GemmConfig) -> None:
        self._editor, self._layer, self._config = editor, layer, config
        self._nodes: list[onnx.NodeProto] = []
        bias = editor.constant(f"{layer}.bias").astype(np.float64)
        editor.remove(f"{layer}.weight")
        editor.remove(f"{layer}.bias")
        self._weight = self._constant("weight", config.codes, config.weight_scale)
        self._bias = self._bias_constant(bias)

    def build(self, gemm: onnx.NodeProto) -> list[onnx.NodeProto]:
        config, x, y = self._config, gemm.input[0], gemm.output[0]
        first_scale = np.float32(config.activation_scale)
        first = self._quantize("first", x, first_scale, config.zero_point)
        if not config.residual:
            self._gemm("gemm", self._dequantize("x", first), [self._weight, self._bias], y)
            return self._nodes
        rounded = self._dequantize("rounded", first)
        rest = self._node("Sub", "difference", [x, rounded])
        second = self._quantize("second", rest, first_scale / np.float32(STEPS), _MIDDLE)
        # Each Gemm dequantises for itself: a DequantizeLinear with two readers is not fused.
        self._gemm("gemm", self._dequantize("x", first), [self._weight], f"{y}.first")
        # The bias goes where the steps are finer.
        rest_codes = self._dequantize("x_rest", second)
        self._gemm("gemm_rest", rest_codes, [self._weight, self._bias], f"{y}.second")
        self._node("Add", "sum", [f"{y}.first", f"{y}.second"], y)
        return self._nodes

    def _gemm(self, name: str, x: str, constants: list[tuple[str, ...]], output: str) -> None:
        arguments = [x]
        for kind, constant in zip(("weight", "bias"), constants, strict=False):
            arguments.append(
                self._node("DequantizeLinear", f"{name}.{kind}", list(constant), axis=0)
            )
        self._node("Gemm", name, arguments, output, transB=1)

    def _quantize(self, name: str, x: str, scale: np.float32, zero_point: int) -> tuple[str, ...]:
        grid = (
            self._put(f"{name}.step", scale),
            self._put(f"{name}.zero_point", np.uint8(zero_point)),
        )
        return (self._node("QuantizeLinear", name, [x, *grid]), *grid)

    def _dequantize(self, name: str, codes: tuple[str, ...]) -> str:
        return self._node("DequantizeLinear", name, list(codes))

    def _constant(
        self, name: str, codes: NDArray[np.generic], scale: NDArray[np.float32]
    ) -> tuple[str, ...]:
        zeros = np.zeros(len(scale), dtype=codes.dtype)
        return (
            self._put(f"{name}.codes", codes),
            self._put(f"{name}.scale", scale),
            self._put(f"{name}.zero_point", zeros),
        )

    def _bias_constant(self, bias: NDArray[np.float64]) -> tuple[str, ...]:
        """Keep the bias in steps of the integer products, as the integer Gemm adds it."""
        step = np.float32(self._config.activation_scale)
        if self._config.residual:
            step = step / np.float32(STEPS)
        scale = step * self._config.weight_scale
        codes = np.rint(bias / scale)
        if np.abs(codes).max() > np.iinfo(np.int32).max:
            msg = (
                f"{self._layer}: its bias is over 2**31 steps of its products, so the layer does "
                "nothing but add it; is the checkpoint trained?"
            )
            raise OnnxExportError(msg)
        return self._constant("bias", codes.astype(np.int32), scale)

    def _put(self, name: str, value: NDArray[np.generic] | np.generic) -> str:
        return self._editor.put(f"{self._layer}.{name}", np.asarray(value))

    def _node(
        self, op_type: str, name: str, inputs: list[str], output: str = "", **attributes: int
    ) -> str:
        full_name = f"{self._layer}.{name}"
        output = output or f"{full_name}.out"
        self._nodes.append(helper.make_node(op_type, inputs, [output], full_name, **attributes))
        return output


@dataclass(frozen=True, slots=True)
class MatrixConfig:
    """How one matrix of a step is computed, its inputs quantised at each call.

    Attributes:
        codes: (out, in) int8 weights.
        weight_scale: (out,) float32.
        residual: A second u8 code of the input holds the first one's rounding error.
    """

    codes: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    residual: bool


def quantize_matrices(
    model: onnx.ModelProto, configs: Mapping[str, MatrixConfig]
) -> onnx.ModelProto:
    """Return a copy in which each configured layer is an integer product, its inputs u8 per call.

    The nodes are the sequence that ONNX Runtime fuses to one integer product with float output. It
    stands with one scale, and a multiplication after it brings each channel's share of that: the
    fused product would append each channel's scale to a vector, one by one and at each call, which
    takes 11 % of a full-size step.

    Args:
        model: Its Gemms and MatMuls bear the layers' names, as ``/joint/enc/Gemm``.
        configs: By layer.

    Raises:
        OnnxExportError: A configured layer has no node.
    """
    editor = GraphEditor(model)
    products = {
        node.name.strip("/").rpartition("/")[0].replace("/", "."): node
        for node in editor.nodes
        if node.op_type in ("Gemm", "MatMul")
    }
    for layer, config in configs.items():
        node = products.get(layer)
        if node is None:
            msg = f"the graph has no matrix product named {layer}; the exporter named it otherwise"
            raise OnnxExportError(msg)
        editor.replace(node, _MatrixBuilder(editor, layer, config).build(node))
    return editor.finish()


class _MatrixBuilder:
    """Collects the nodes that take the place of one matrix product of a step."""

    def __init__(self, editor: GraphEditor, layer: str, config: MatrixConfig) -> None:
        self._editor, self._layer, self._config = editor, layer, config
        self._nodes: list[onnx.NodeProto] = []
        self._codes = self._put("codes", config.codes.T)
        largest = config.weight_scale.max()
        self._shares = config.weight_scale / largest
        self._scale = self._put("scale", largest)

    def build(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        x, weight, *bias = node.input
        self._editor.remove(weight)
        first = self._quantize("first", x)
        products = [self._product("first", first)]
        if self._config.residual:
            rounded = self._node("DequantizeLinear", "rounded", first)
            rest = self._node("Sub", "difference", [x, rounded])
            products.append(self._product("rest", self._quantize("rest", rest)))
        total = products.pop()
        for name in bias:  # directly after a product, where it is fused with it
            value = self._editor.constant(name) / self._shares
            self._editor.remove(name)
            total = self._node("Add", "biased", [total, self._put("bias", value)])
        for product in products:
            total = self._node("Add", "sum", [total, product])
        self._node("Mul", "shared", [total, self._put("shares", self._shares)])
        self._nodes[-1].output[0] = node.output[0]
        return self._nodes

    def _put(self, name: str, value: NDArray[np.generic]) -> str:
        return self._editor.put(f"{self._layer}.{name}", value)

    def _quantize(self, name: str, x: str) -> list[str]:
        """Return codes, step and zero point of an input."""
        outputs = [f"{self._layer}.{name}.{part}" for part in ("codes", "step", "zero_point")]
        self._nodes.append(
            helper.make_node("DynamicQuantizeLinear", [x], outputs, f"{self._layer}.{name}")
        )
        return outputs

    def _product(self, name: str, quantized: list[str]) -> str:
        codes, step, zero_point = quantized
        int32 = self._node("MatMulInteger", f"{name}.int32", [codes, self._codes, zero_point])
        number = self._node("Cast", f"{name}.float", [int32], to=onnx.TensorProto.FLOAT)
        scale = self._node("Mul", f"{name}.scale", [step, self._scale])
        return self._node("Mul", f"{name}.product", [number, scale])

    def _node(self, op_type: str, name: str, inputs: list[str], **attributes: int) -> str:
        full_name = f"{self._layer}.{name}"
        self._nodes.append(
            helper.make_node(op_type, inputs, [f"{full_name}.out"], full_name, **attributes)
        )
        return f"{full_name}.out"
