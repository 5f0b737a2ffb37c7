"""Mutants of an ONNX file: its constants, its values, its nodes' attributes.

Places are named ``const NAME`` (an initializer or a Constant node), ``value NAME`` (a node's
output), ``attr NODE-OUTPUT.ATTRIBUTE`` and, for exchanges, ``const NAME~OTHER``.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from tests.faults.graph_edits import node_with_output
from tests.mutants.mutant import Harm, MutantError, UnfitError
from tests.mutants.onnx_nodes import NODE_OPERATORS, change_node
from tests.mutants.tensors import TENSOR_OPERATORS, change_tensor, fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from tests.mutants.mutant import Mutant

_REAL = {TensorProto.FLOAT, TensorProto.FLOAT16}
_REAL_OPS = {
    "Conv", "FusedConv", "Gemm", "MatMul", "LayerNormalization", "Sigmoid", "Tanh", "Relu",
    "Softmax", "DequantizeLinear", "QuickGelu", "QGemm",
}  # fmt: skip
_LIKE_INPUT = {
    "Add", "Sub", "Mul", "Div", "Transpose", "Reshape", "Slice", "Split", "Concat", "Unsqueeze",
    "Gather", "Where",
}  # fmt: skip
_COUNTS = {"pads", "strides", "dilations", "axis", "transA", "transB", "group", "start"}
_FACTORS = {"epsilon", "alpha", "beta"}


class OnnxSource:
    """See ``mutant.Source``."""

    def __init__(self, name: str, data: bytes, bound: int) -> None:
        """Read a file.

        Args:
            name: The file's name.
            data: Its bytes.
            bound: Longest trace that it takes.
        """
        self._data, self._bound = data, bound
        self.name = name

    @cached_property
    def _model(self) -> onnx.ModelProto:
        return onnx.load_from_string(self._data)

    def places(self) -> dict[str, list[str]]:
        """See ``mutant.Source.places``."""
        found: dict[str, list[str]] = defaultdict(list)
        arrays = {name: numpy_helper.to_array(t) for name, t in _constants(self._model)}
        for name, array in arrays.items():
            for operator in TENSOR_OPERATORS:
                if fits(operator, array, self._bound):
                    found[operator].append(f"const {name}")
        found["swap_tensors"] += list(_twins(arrays))
        outputs = {value.name for value in self._model.graph.output}
        inputs = [value.name for value in self._model.graph.input]
        for value in self._real_values():
            for operator in NODE_OPERATORS:
                if operator == "only_batch" and value not in outputs:
                    continue
                if operator in {"only_long", "only_short"} and "features_bft" not in inputs:
                    continue
                if operator == "only_label" and "y_prev" not in inputs:
                    continue
                found[operator].append(f"value {value}")
        for operator, place in self._attributes():
            found[operator].append(place)
        return dict(found)

    def harm(self, mutant: Mutant) -> Harm:
        """See ``mutant.Source.harm``."""
        model = onnx.load_from_string(self._data)
        kind, _, where = mutant.place.partition(" ")
        change = {"const": _change_constant, "value": change_node, "attr": _change_attribute}
        if kind not in change:
            msg = f"{mutant.name}: {kind!r} is no kind of place; known: {', '.join(change)}"
            raise MutantError(msg)
        note = change[kind](model, mutant.operator, where, mutant.rng())
        payload = model.SerializeToString()
        if payload == self._data:
            msg = f"{mutant.name} leaves the file as it is"
            raise UnfitError(msg)
        return Harm(note, payload=payload)

    def _real_values(self) -> Iterator[str]:
        """Yield the values that are real numbers, by propagating what each operator gives."""
        kinds = {t.name: t.data_type for t in self._model.graph.initializer}
        kinds |= {v.name: v.type.tensor_type.elem_type for v in self._model.graph.input}
        for node in self._model.graph.node:
            kind = _kind(node, kinds)
            for output in node.output:
                kinds[output] = kind
                if kind in _REAL and output and node.op_type != "Constant":
                    yield output

    def _attributes(self) -> Iterator[tuple[str, str]]:
        for node in self._model.graph.node:
            for attribute in node.attribute:
                place = f"attr {node.output[0]}.{attribute.name}"
                if attribute.name in _COUNTS:
                    yield "off_by_one", place
                elif attribute.name in _FACTORS and attribute.f:
                    yield "scale", place
                elif attribute.name == "perm":
                    yield "permute_axes", place


def _kind(node: onnx.NodeProto, kinds: dict[str, int]) -> int:
    """Return the element type of a node's outputs; 0 where this does not follow it."""
    attributes = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type == "Constant" and "value" in attributes:
        return int(attributes["value"].t.data_type)
    if node.op_type == "Cast":
        return int(attributes["to"].i)
    if node.op_type in _REAL_OPS:
        return int(TensorProto.FLOAT)
    if node.op_type in _LIKE_INPUT:
        inputs = node.input[1:] if node.op_type == "Where" else node.input
        return next((kinds[name] for name in inputs if kinds.get(name)), 0)
    return 0


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            yield node.output[0], node.attribute[0].t


def _twins(arrays: dict[str, np.ndarray]) -> Iterator[str]:
    """Yield pairs of neighbouring constants of one shape and dtype."""
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, array in arrays.items():
        if array.dtype.kind == "f" or array.size > 8:
            groups[array.shape, array.dtype].append(name)
    for names in groups.values():
        for one, two in pairwise(names):
            yield f"const {one}~{two}"


def _change_constant(model: onnx.ModelProto, operator: str, where: str, rng: Generator) -> str:
    tensors = dict(_constants(model))
    if operator == "swap_tensors":
        one, two = where.split("~")
        first, second = (numpy_helper.to_array(tensors[name]) for name in (one, two))
        if first.tobytes() == second.tobytes():
            msg = f"{one} and {two} are equal"
            raise UnfitError(msg)
        _replace(tensors[one], second)
        _replace(tensors[two], first)
        return "exchanged"
    changed, note = change_tensor(operator, numpy_helper.to_array(tensors[where]), rng)
    _replace(tensors[where], changed)
    return note


def _replace(tensor: onnx.TensorProto, value: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), tensor.name))


def _change_attribute(model: onnx.ModelProto, operator: str, where: str, rng: Generator) -> str:
    output, _, name = where.rpartition(".")
    node = node_with_output(model, output)
    attribute = next(found for found in node.attribute if found.name == name)
    if operator == "scale":
        factor = float(rng.choice([0.1, 0.5, 0.9, 1.1, 2.0, 10.0, 100.0]))
        attribute.f *= factor
        return f"{node.op_type} {name} ×{factor:g}"
    if operator == "permute_axes":
        one, two = (int(i) for i in rng.choice(len(attribute.ints), 2, replace=False))
        perm = list(attribute.ints)
        perm[one], perm[two] = perm[two], perm[one]
        attribute.ints[:] = perm
        return f"{node.op_type} perm {perm}"
    step = 1 if rng.random() < 0.5 else -1
    if name in {"transA", "transB"}:
        attribute.i = 1 - attribute.i
    elif len(attribute.ints):
        attribute.ints[int(rng.integers(len(attribute.ints)))] += step
    else:
        attribute.i += step
    return f"{node.op_type} {name} {list(attribute.ints) or attribute.i}"
