"""The graph of one XNNPACK delegate: its nodes, and every constant in it as real numbers.

Layout, from ``backends/xnnpack/serialization`` of ExecuTorch: a header (XH00), a flatbuffer of the
graph (identifier XN01), and constant data for weights that have no name; the others lie in
segments of the .pte, by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.contents.flatbuffer import cut, decompile, unsigned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

_NO_OFFSET = 2**64 - 1
_XNN_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""XNNPACK's names of plain types; the quantized ones (qcint8, qcint4, …) keep theirs."""
_STORED = {
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": "<u2",
    "int32": "<i4",
    "qint32": "<i4",
    "qcint32": "<i4",
    "qint8": "i1",
    "quint8": "u1",
    "qcint8": "i1",
}
FOUR_BITS = ("qcint4", "qbint4")
"""Types of two codes in a byte, the lower bits first, each 8 above its value."""
_VALUE_FIELDS = ("input_id", "filter_id", "bias_id", *(f"input{n}_id" for n in range(1, 6)))
_ABSENT = 2**32 - 1
_SCALARS = ("padding_value", "alpha", "negative_slope")


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a program as real numbers.

    Attributes:
        node: Kind of the first node that reads it, ``XNNFullyConnected``; the operator's name for
            one outside delegates.
        role: The node's argument that it is: ``filter``, ``bias``, ``input2``, …; ``min`` and
            ``max`` are the bounds of its output.
        dtype: How it is stored.
        values: float64, in the file's own shape.
    """

    node: str
    role: str
    dtype: str
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class XnnGraph:
    """The graph of one XNNPACK delegate.

    Attributes:
        graph: The flatbuffer's values.
        constant_data: Of constants without a name.
    """

    graph: dict[str, Any]
    constant_data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> XnnGraph:
        """Read a delegate's payload.

        Raises:
            ValueError: It is none, or cut off.
        """
        if payload[4:8] != b"XH00":
            msg = f"a delegate's header is {payload[4:8]!r}, should be XH00"
            raise ValueError(msg)
        offset, size = unsigned(payload, 10, 4), unsigned(payload, 14, 4)
        graph = decompile(cut(payload, offset, size, "delegate's graph"), "schema.fbs")
        data_offset, data_size = unsigned(payload, 18, 4), unsigned(payload, 22, 8)
        return cls(graph, cut(payload, data_offset, data_size, "delegate's constants"))

    def operators(self) -> Iterator[str]:
        """Yield the kind of each node."""
        for node in self.graph["xnodes"]:
            yield node["xnode_union_type"]

    def weighted_ops(self) -> Iterator[tuple[str, str]]:
        """Yield kind and type of weights of each node with a constant filter."""
        for kind, tensor, _ in self._filters():
            yield kind, xnn_type(tensor)

    def matrix_weights(self) -> Iterator[tuple[str, int]]:
        """Yield type and number of the weights of each matrix.

        Matrices of one output stand for a mean; no precision is meant for them.
        """
        for kind, tensor, _ in self._filters():
            if kind == "XNNFullyConnected" and tensor["dims"][0] > 1:
                yield xnn_type(tensor), prod(tensor["dims"])

    def macs(self) -> Iterator[tuple[str, int]]:
        """Yield type of the weights and multiply-accumulates of each node that multiplies.

        A filter is (outputs, …, inputs) or (1, …, outputs) and is used once at each place of the
        output, whose last axis is the channels; a product of activations sums over the last axis.
        """
        values = {value["id_out"]: value for value, _ in self.tensors()}
        for node in self.graph["xnodes"]:
            union = node["xnode_union"]
            if "filter_id" in union:
                weight, out = values[union["filter_id"]], values[union["output_id"]]["dims"]
                yield xnn_type(weight), prod(weight["dims"]) * prod(out[:-1])
            elif node["xnode_union_type"] == "XNNBatchMatrixMultiply":
                first = values[union["input1_id"]]
                out = values[union["output_id"]]["dims"]
                yield xnn_type(first), prod(out) * first["dims"][-1]

    def filters(self, named: Mapping[str, bytes]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield kind and real values, (outputs, all else), of each node's constant filter."""
        for kind, tensor, quantization in self._filters():
            real = self._real(tensor, quantization, named)
            if "Depthwise" in kind:
                real = np.moveaxis(real, -1, 0)
            yield kind, real.reshape(len(real), -1).astype(np.float32)

    def constants(self, named: Mapping[str, bytes]) -> Iterator[Constant]:
        """Yield every constant that a node reads, in the nodes' order, each once; then its bounds.

        Bounds of an output, paddings and slopes are numbers in the node itself.
        """
        values = {value["id_out"]: (value, quantization) for value, quantization in self.tensors()}
        seen: set[int] = set()
        for node in self.graph["xnodes"]:
            kind, union = node["xnode_union_type"], node["xnode_union"]
            for field in _VALUE_FIELDS:
                index = union.get(field, _ABSENT)
                tensor, quantization = values.get(index, ({}, {}))
                if tensor.get("constant_buffer_idx", 0) == 0 or index in seen:
                    continue
                seen.add(index)
                real = self._real(tensor, quantization, named)
                yield Constant(kind, field.removesuffix("_id"), xnn_type(tensor), real)
            for role, number in _numbers(node):
                yield Constant(kind, role, "float32", np.array(number, np.float64))

    def weights(self, named: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
        """Yield name (or nothing), type and bytes of each constant."""
        seen: set[int] = set()
        for value, _ in self.tensors():
            index = value["constant_buffer_idx"]
            if index > 0 and index not in seen:
                seen.add(index)
                key, size = self._constant(index, named)
                yield key, xnn_type(value), size

    def scales(self, named: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Yield name (or nothing) and bytes of each table of scales."""
        for _, quantization in self.tensors():
            index = quantization.get("scale_buffer_idx", 0)
            if index > 0:
                yield self._constant(index, named)

    def tensors(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each value's tensor and its quantization parameters."""
        for value in self.graph["xvalues"]:
            union = value["xvalue_union"]
            if value["xvalue_union_type"] == "XNNQuantizedTensorValue":
                yield union["tensor_value"], union["quant_params"]
            else:
                yield union, {}

    def stored(self, index: int, named: Mapping[str, bytes]) -> bytes:
        """Return the bytes of a constant by its number."""
        constant = self.graph["constant_data"][index]
        if key := constant.get("named_key", ""):
            return cut(named[key], 0, constant["size"], f"constant {key[:12]}…")
        return cut(self.constant_data, constant["offset"], constant["size"], f"constant {index}")

    def _filters(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield kind, tensor and quantization of each node's constant filter."""
        values = {value["id_out"]: (value, quantization) for value, quantization in self.tensors()}
        for node in self.graph["xnodes"]:
            filter_id = node["xnode_union"].get("filter_id")
            if filter_id is not None and values[filter_id][0]["constant_buffer_idx"] > 0:
                yield node["xnode_union_type"], *values[filter_id]

    def _real(
        self, tensor: dict[str, Any], quantization: dict[str, Any], named: Mapping[str, bytes]
    ) -> NDArray[np.float64]:
        """Return a constant's real numbers in its own shape."""
        found, kind = self.stored(tensor["constant_buffer_idx"], named), xnn_type(tensor)
        dims = tuple(tensor["dims"])
        if kind == "bfloat16":
            return widened(found).astype(np.float64).reshape(dims)
        codes = _four_bit_codes(found, dims) if kind in FOUR_BITS else _plain(found, kind, dims)
        if not quantization:
            return codes.astype(np.float64)
        if "scale_buffer_idx" not in quantization:  # one step for the whole tensor
            zero_point = float(quantization["zero_point"])
            return (codes.astype(np.float64) - zero_point) * float(quantization["scale"])
        steps = _steps(self.stored(quantization["scale_buffer_idx"], named), quantization)
        return codes.astype(np.float64) * _spread(steps, quantization, dims)

    def _constant(self, index: int, named: Mapping[str, int]) -> tuple[str, int]:
        constant = self.graph["constant_data"][index]
        key, size = constant.get("named_key", ""), constant["size"]
        if key:
            if named[key] < size:
                msg = f"constant {key[:12]}… has {named[key]} bytes, but its delegate wants {size}"
                raise ValueError(msg)
        elif constant["offset"] == _NO_OFFSET or (
            constant["offset"] + size > len(self.constant_data)
        ):
            msg = f"constant {index} of a delegate lies outside its data"
            raise ValueError(msg)
        return key, size


def xnn_type(tensor: dict[str, Any]) -> str:
    """Return the name of a tensor's stored type."""
    name: str = tensor["datatype"].removeprefix("xnn_datatype_")
    return _XNN_TYPES.get(name, name)


def widened(stored: bytes) -> NDArray[np.float32]:
    """Return bfloat16 numbers in FP32."""
    wide = np.frombuffer(stored, "<u2").astype("<u4") << 16
    return wide.view("<f4")


def _plain(stored: bytes, kind: str, dims: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(stored, _STORED[kind]).reshape(dims)


def _four_bit_codes(stored: bytes, dims: tuple[int, ...]) -> NDArray[np.int8]:
    pairs = np.frombuffer(stored, "u1")
    codes = np.stack([pairs & 15, pairs >> 4], axis=-1).astype("i1") - np.int8(8)
    # A row of an odd number of codes ends in one that stands for nothing.
    return codes.reshape(dims[0], -1)[:, : prod(dims[1:])].reshape(dims)


def _steps(stored: bytes, quantization: dict[str, Any]) -> NDArray[np.float32]:
    """Return all steps in a row: of groups of inputs they are bfloat16, else FP32.

    The kind of quantization decides, not the number of bytes: two groups of a channel take as many
    as one FP32 step.
    """
    steps = widened(stored) if "group_size" in quantization else np.frombuffer(stored, "<f4")
    if len(steps) != quantization["num_scales"]:
        msg = f"{len(steps)} steps, but its parameters say {quantization['num_scales']}"
        raise ValueError(msg)
    return steps


def _spread(
    steps: NDArray[np.float32], quantization: dict[str, Any], dims: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return steps in a shape that multiplies a tensor's codes."""
    if group := quantization.get("group_size"):
        return steps.astype(np.float64).reshape(dims[0], -1).repeat(group, axis=1).reshape(dims)
    shape = [1] * len(dims)
    shape[quantization["channel_dim"]] = -1
    return steps.astype(np.float64).reshape(shape)


def _numbers(node: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers that a node holds itself."""
    bounds = node.get("output_min_max") or {}
    for role, name in (("min", "output_min"), ("max", "output_max")):
        if name in bounds:
            yield role, float(bounds[name])
    for name in _SCALARS:
        if name in node["xnode_union"]:
            yield name, float(node["xnode_union"][name])
