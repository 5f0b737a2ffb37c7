"""How an ONNX model's constants are stored, and a small editor to change that.

Storage is not computation: a constant kept in FP16 or INT8 is turned to FP32 by a Cast or
DequantizeLinear in the graph, which ONNX Runtime does once, when it opens the file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from exporters.ort.trace import OnnxExportError
from exporters.quantize.gptq import rows_to_int8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

_LARGEST_EXPONENT = 14
"""Constants are scaled to at most 2**14: a factor of 4 below FP16's largest value."""


class GraphEditor:
    """A copy of a model whose constants and nodes are exchanged; ``finish`` returns it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Copy the model."""
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._replacements: dict[str, list[onnx.NodeProto]] = {}
        self._front: list[onnx.NodeProto] = []

    @property
    def nodes(self) -> tuple[onnx.NodeProto, ...]:
        """The nodes of the original, in order."""
        return tuple(self._model.graph.node)

    def constants(self) -> list[str]:
        """Return the names of the constants, in the file's order."""
        return list(self._constants)

    def constant(self, name: str) -> NDArray[np.generic]:
        """Return a constant's value."""
        array: NDArray[np.generic] = numpy_helper.to_array(self._constants[name])
        return array

    def put(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant, and return its name."""
        self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def remove(self, name: str) -> None:
        """Remove a constant."""
        del self._constants[name]

    def put_first(self, node: onnx.NodeProto) -> None:
        """Add a node before all others: it may take constants only."""
        self._front.append(node)

    def replace(self, node: onnx.NodeProto, nodes: Sequence[onnx.NodeProto]) -> None:
        """Put nodes in the place of one of the originals."""
        self._replacements[node.output[0]] = list(nodes)

    def finish(self) -> onnx.ModelProto:
        """Return the changed copy, checked."""
        graph = self._model.graph
        nodes = list(self._front)
        for node in self.nodes:
            nodes += self._replacements.get(node.output[0], [node])
        constants = list(self._constants.values())
        del graph.node[:], graph.initializer[:]
        graph.node.extend(nodes)
        graph.initializer.extend(constants)
        onnx.checker.check_model(self._model)
        return self._model


def store_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with FP32 matrices kept in FP16; all arithmetic stays in FP32.

    Biases and kernels of one input channel stay FP32: they are 1 % of a model and, measured, a
    third of the noise. Weights of accelerations are small enough (their inputs reach 1e6) to lose
    their digits to FP16's subnormal numbers: such constants are kept times a power of two.
    """
    editor = GraphEditor(model)
    for name in editor.constants():
        value = editor.constant(name)
        if value.dtype != np.float32 or value.ndim < 2 or value.shape[1] == 1:
            continue
        exponent = _fp16_exponent(value)
        editor.remove(name)
        stored = editor.put(f"{name}.fp16", np.ldexp(value, exponent).astype(np.float16))
        scaled = name if exponent == 0 else f"{name}.scaled"
        editor.put_first(
            helper.make_node("Cast", [stored], [scaled], f"{name}.cast", to=onnx.TensorProto.FLOAT)
        )
        if exponent:
            factor = editor.put(f"{name}.unscale", np.array(2.0**-exponent, dtype=np.float32))
            editor.put_first(helper.make_node("Mul", [scaled, factor], [name], f"{name}.rescale"))
    return editor.finish()


def _fp16_exponent(value: NDArray[np.generic]) -> int:
    """Return 0, or the power of two that keeps every input channel's weights in FP16's range."""
    by_input = np.abs(value).max(axis=(0, *range(2, value.ndim)))
    used = by_input[by_input > 0]
    smallest, largest = np.finfo(np.float16).smallest_normal, 2.0**_LARGEST_EXPONENT
    if used.size == 0 or (used.min() >= smallest and used.max() <= largest):
        return 0
    return _LARGEST_EXPONENT - 1 - int(np.floor(np.log2(used.max())))


def store_gathered_int8(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a copy with a constant table (rows, columns) to look up kept in INT8, a step per row.

    Args:
        model: The model.
        name: Of the table.

    Raises:
        OnnxExportError: The table is used otherwise than by one Gather of rows.
    """
    editor = GraphEditor(model)
    users = [node for node in editor.nodes if name in node.input]
    if [node.op_type for node in users] != ["Gather"] or users[0].input[0] != name:
        msg = f"{name} is used by {[node.op_type for node in users]}, but should be by a Gather"
        raise OnnxExportError(msg)
    codes, steps = rows_to_int8(torch.from_numpy(editor.constant(name).copy()))
    editor.remove(name)
    parts = {"codes": codes.numpy(), "step": steps[:, None].numpy()}
    labels, output = users[0].input[1], users[0].output[0]
    nodes = [
        helper.make_node(
            "Gather",
            [editor.put(f"{name}.{part}", value), labels],
            [f"{name}.{part}.of_label"],
            f"{name}.{part}.gather",
        )
        for part, value in parts.items()
    ]
    found = f"{name}.codes.of_label"
    nodes += [
        helper.make_node("Cast", [found], [f"{found}.float"], f"{name}.cast", to=1),
        helper.make_node("Mul", [f"{found}.float", f"{name}.step.of_label"], [output], name),
    ]
    editor.replace(users[0], nodes)
    return editor.finish()


def store_sliced_int8(model: onnx.ModelProto, *, wanted: Callable[[str], bool]) -> onnx.ModelProto:
    """Return a copy with constant tables (rows, columns) kept in INT8, one scale per row.

    Each is read through a Slice over its columns, behind which it is dequantised: only the part in
    use, at each call.

    Args:
        model: The model.
        wanted: Tells by its name whether a constant is such a table.

    Raises:
        OnnxExportError: A wanted constant is used otherwise.
    """
    editor = GraphEditor(model)
    for name in filter(wanted, editor.constants()):
        users = [node for node in editor.nodes if name in node.input]
        if [node.op_type for node in users] != ["Slice"]:
            msg = f"{name} is used by {[node.op_type for node in users]}, but should be by a Slice"
            raise OnnxExportError(msg)
        table = editor.constant(name).astype(np.float32)
        scale = np.maximum(np.abs(table).max(axis=1) / 127, 1e-12).astype(np.float32)
        codes = np.rint(table / scale[:, None]).clip(-127, 127).astype(np.int8)
        editor.remove(name)
        slice_node = onnx.NodeProto()
        slice_node.CopyFrom(users[0])
        part = f"{users[0].output[0]}.codes"
        slice_node.input[0], slice_node.output[0] = editor.put(f"{name}.codes", codes), part
        inputs = [
            part,
            editor.put(f"{name}.scale", scale),
            editor.put(f"{name}.zero_point", np.zeros(len(scale), dtype=np.int8)),
        ]
        dequantize = helper.make_node(
            "DequantizeLinear", inputs, [users[0].output[0]], f"{name}.dequantize", axis=0
        )
        editor.replace(users[0], [slice_node, dequantize])
    return editor.finish()
