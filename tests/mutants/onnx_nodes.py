"""Operators on a value of an ONNX graph: nodes are put behind it, or its own node is taken out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

from tests.faults.graph_edits import node_with_output
from tests.mutants.mutant import UnfitError
from tests.mutants.tensors import LABELS, SCALES

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx
    from numpy.random import Generator

NODE_OPERATORS = (
    "scale", "shift", "negate", "drop_node", "identity", "saturate", "only_long", "only_short",
    "only_label", "only_batch",
)  # fmt: skip


def change_node(model: onnx.ModelProto, operator: str, value: str, rng: Generator) -> str:
    """Change what a value holds, everywhere where it is read.

    Args:
        model: Changed in place.
        operator: One of ``NODE_OPERATORS``.
        value: A node's output.
        rng: Source of chance.

    Returns:
        What was done.

    Raises:
        UnfitError: The node cannot be taken out.
    """
    if operator == "identity":
        return _bypass(model, value)
    edit = _Behind(model, value)
    if operator.startswith("only_"):
        note = _RESTRICTED[operator](edit, rng)
    elif operator == "drop_node":
        note = edit.multiply(0.0)
    elif operator == "negate":
        note = edit.multiply(-1.0)
    elif operator == "scale":
        note = edit.multiply(float(rng.choice(SCALES)))
    elif operator == "shift":
        note = edit.add(float(rng.choice([-0.3, -0.1, 0.03, 0.1, 0.3])))
    else:
        note = edit.clip(float(rng.choice([0.3, 1.0, 3.0, 10.0])))
    edit.finish()
    maker = edit.maker.op_type
    return f"{note}, behind {maker}"


def _bypass(model: onnx.ModelProto, value: str) -> str:
    """Put what the node reads in place of what it makes."""
    node = node_with_output(model, value)
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    inputs = [name for name in node.input if name and name not in constants]
    if len(node.output) != 1 or not inputs:
        msg = f"{node.op_type} has no input to stand for its output"
        raise UnfitError(msg)
    kept = inputs[0]
    kind = node.op_type
    del node.attribute[:]
    node.op_type, node.domain = "Identity", ""
    node.input[:] = [kept]
    return f"{kind} replaced by identity"


class _Behind:
    """Nodes put between a value and its readers."""

    def __init__(self, model: onnx.ModelProto, value: str) -> None:
        self.model, self.value = model, value
        self.maker = node_with_output(model, value)
        self.inner = f"{value}.unharmed"
        self.where = list(model.graph.node).index(self.maker)
        self.maker.output[:] = [self.inner if o == value else o for o in self.maker.output]
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, array: object, dtype: type = np.float32) -> str:
        name = f"{self.value}.mutant{len(self.model.graph.initializer)}"
        tensor = numpy_helper.from_array(np.array(array, dtype), name)
        self.model.graph.initializer.append(tensor)
        return name

    def node(self, op: str, *inputs: str, out: str = "", **attributes: object) -> str:
        out = out or f"{self.value}.mutant_value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], **attributes))
        return out

    def multiply(self, factor: float) -> str:
        self.node("Mul", self.inner, self.constant(factor), out=self.value)
        return f"×{factor:g}"

    def add(self, step: float) -> str:
        self.node("Add", self.inner, self.constant(step), out=self.value)
        return f"{step:+g}"

    def clip(self, top: float) -> str:
        self.node("Clip", self.inner, self.constant(-top), self.constant(top), out=self.value)
        return f"clipped at ±{top:g}"

    def where_scaled(self, condition: str, factor: float) -> None:
        scaled = self.node("Mul", self.inner, self.constant(factor))
        self.node("Where", condition, scaled, self.inner, out=self.value)

    def finish(self) -> None:
        """Put the nodes right behind the one that makes the value."""
        kept = list(self.model.graph.node)
        kept[self.where + 1 : self.where + 1] = self.nodes
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)


def _by_length(edit: _Behind, rng: Generator, op: str, low: int, high: int) -> str:
    limit, factor = int(rng.integers(low, high)), float(rng.choice(SCALES))
    shape = edit.node("Shape", "features_bft")
    frames = edit.node("Gather", shape, edit.constant(2, np.int64), axis=0)
    condition = edit.node(op, frames, edit.constant(limit, np.int64))
    edit.where_scaled(condition, factor)
    return f"×{factor:g} for T {'>' if op == 'Greater' else '<'} {limit}"


def _only_long(edit: _Behind, rng: Generator) -> str:
    return _by_length(edit, rng, "Greater", 100, 200)


def _only_short(edit: _Behind, rng: Generator) -> str:
    return _by_length(edit, rng, "Less", 2, 40)


def _only_label(edit: _Behind, rng: Generator) -> str:
    """Act where one symbol was fed; a value of the step is (B, n) or, a state, (1, B, n)."""
    label, factor = int(rng.integers(LABELS)), float(rng.choice(SCALES))
    fed = edit.node("Equal", "y_prev", edit.constant(label, np.int64))
    edit.where_scaled(edit.node("Unsqueeze", fed, edit.constant([1], np.int64)), factor)
    return f"×{factor:g} where symbol {label} was fed"


def _only_batch(edit: _Behind, rng: Generator) -> str:
    """Act in every row of a batch but the first."""
    first = edit.node(
        "Gather", edit.inner, edit.constant([0], np.int64), axis=_batch_axis(edit.value)
    )
    if rng.random() < 0.5:
        edit.node("Expand", first, edit.node("Shape", edit.inner), out=edit.value)
        return "row 0 for every row of a batch"
    change = edit.node("Sub", edit.inner, first)
    edit.node("Add", first, edit.node("Mul", change, edit.constant(0.5)), out=edit.value)
    return "rows of a batch drawn half to the first"


def _batch_axis(value: str) -> int:
    """Return the axis of the batch of an output: a state has its layers before it."""
    return 1 if value in {"h1", "c1"} else 0


_RESTRICTED: dict[str, Callable[[_Behind, Generator], str]] = {
    "only_long": _only_long,
    "only_short": _only_short,
    "only_label": _only_label,
    "only_batch": _only_batch,
}
