"""Weights of an ONNX file whose integer products depend on the machine.

An x86 without VNNI multiplies u8 activations by s8 weights in pairs of neighbouring inputs and adds
the two products in 16 bits, saturating (``vpmaddubsw``); processors with VNNI, ARM and wasm add in
32. For two weights of one sign, ``255 * |a + b|`` has to stay below 2**15. ONNX Runtime names the
problem and offers ``reduce_range`` (its documentation, "Quantize ONNX Models").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx
    from numpy.typing import NDArray

_LARGEST_PAIR = (2**15 - 1) // 255

_INTEGER_PRODUCTS = {
    # Operator to the places of its weights.
    "MatMulInteger": (1,),
    "MatMulIntegerToFloat": (1,),
    "DynamicQuantizeMatMul": (1,),
    "DynamicQuantizeLSTM": (1, 2),
    "QLinearMatMul": (3,),
    "QGemm": (3,),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
}
_FLOAT_PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Run in integers where both factors come out of a DequantizeLinear."""


def saturating_pairs(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many pairs of neighbouring s8 weights may saturate, by the constant's name.

    Of a convolution, where the kernel decides which are neighbours, each weight is counted that is
    above half of the largest sum.
    """
    from onnx import numpy_helper  # noqa: PLC0415 - only audits pay for it

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node, name in _products(model):
        if name in constants and constants[name].data_type == constants[name].INT8:
            weights = numpy_helper.to_array(constants[name]).astype(np.int32)
            pairs = int((_sums(node, weights) > _LARGEST_PAIR).sum())
            if pairs:
                found[name] = pairs
    return found


def _products(model: onnx.ModelProto) -> Iterator[tuple[onnx.NodeProto, str]]:
    """Yield each integer product and the name of its weights."""
    dequantized = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }
    for node in model.graph.node:
        for place in _INTEGER_PRODUCTS.get(node.op_type, ()):
            yield node, node.input[place]
        if node.op_type in _FLOAT_PRODUCTS and node.input[0] in dequantized:
            yield node, dequantized.get(node.input[1], "")


def _sums(node: onnx.NodeProto, weights: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the largest magnitude, in activations of 1, of each sum that is made in 16 bits."""
    if "Conv" in node.op_type:
        return 2 * np.abs(weights)
    if not _is_transposed(node):
        weights = np.swapaxes(weights, -1, -2)
    weights = np.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, weights.shape[-1] % 2)])
    first, second = weights[..., 0::2], weights[..., 1::2]
    positive = np.maximum(first, 0) + np.maximum(second, 0)
    sums: NDArray[np.int32] = np.maximum(positive, np.maximum(-first, 0) + np.maximum(-second, 0))
    return sums


def _is_transposed(node: onnx.NodeProto) -> bool:
    attributes: Mapping[str, int] = {item.name: item.i for item in node.attribute}
    return bool(attributes.get("transB", 0))
