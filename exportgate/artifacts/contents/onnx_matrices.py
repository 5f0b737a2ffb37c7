"""Which constants of an ONNX graph are the matrices that it multiplies with."""

from __future__ import annotations

import re
from collections import Counter
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

_PRODUCT = re.compile(r"Gemm|MatMul|LSTM|GRU")
_INTEGERS = frozenset({2, 3, 21, 22})
"""uint8, int8, uint4 and int4 in ``TensorProto.DataType``."""
_SAME_WEIGHTS = frozenset(
    {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Operators behind which a constant is still the same weights, in another type or layout."""


def product_weights(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield each constant of two axes or more that a matrix product or an LSTM multiplies with.

    Tables that are looked up or cut into pieces (embeddings, positions) are none, and neither are
    biases and scales, which have one axis, nor filters of convolutions.
    """
    return (tensor for tensor, _ in _products(model))


def count_by_dtype(model: onnx.ModelProto) -> Counter[str]:
    """Return how many weights the matrices of a graph have, by the type that they are stored in."""
    import onnx  # noqa: PLC0415 - only ONNX audits pay for it

    counts: Counter[str] = Counter()
    for tensor in product_weights(model):
        dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        counts[{"float": "float32"}.get(dtype, dtype)] += prod(tensor.dims)
    return counts


def count_by_arithmetic(model: onnx.ModelProto) -> Counter[str]:
    """Return how many weights the matrices of a graph have, by the type that it computes in.

    A product that reads its integer weights through a DequantizeLinear or a Cast computes in
    floating point, whatever the file stores.

    Args:
        model: The graph that runs, as the runtime rewrote it.

    Returns:
        Weights by ``int8`` (a product takes the integers themselves) and ``float``.
    """
    counts: Counter[str] = Counter()
    for tensor, is_direct in _products(model):
        integers = is_direct and tensor.data_type in _INTEGERS
        counts["int8" if integers else "float"] += prod(tensor.dims)
    return counts


def _products(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, bool]]:
    """Yield each matrix once, and whether its product reads it as it is stored."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    seen: set[str] = set()
    for node in model.graph.node:
        if not _PRODUCT.search(node.op_type):
            continue
        for name in node.input:
            source = _source(name, producers)
            tensor = constants.get(source)
            if tensor is not None and source not in seen and _is_matrix(tensor):
                seen.add(source)
                yield tensor, name == source


def _is_matrix(tensor: onnx.TensorProto) -> bool:
    """Whether a constant has two axes of more than one element: an LSTM's bias is (1, 8 H)."""
    return len([size for size in tensor.dims if size > 1]) >= 2


def _source(name: str, producers: Mapping[str, onnx.NodeProto]) -> str:
    """Return the name of what a value is, changed in type and layout only."""
    while name in producers and producers[name].op_type in _SAME_WEIGHTS:
        name = producers[name].input[0]
    return name
