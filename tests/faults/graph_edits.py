"""Change one thing in an ONNX file: constants, nodes, declared inputs and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from tests.faults.run import Workspace

Change = "Callable[[onnx.ModelProto], None]"


def operate(name: str, *changes: Callable[[onnx.ModelProto], None], **claims: Any) -> Any:
    """Return an injection that changes a file, and its sidecar only as far as hash and claims."""

    def inject(workspace: Workspace) -> None:
        model = onnx.load(workspace.path(name))
        for change in changes:
            change(model)
        workspace.rewrite(name, model.SerializeToString(), **claims)

    return inject


def constant(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    """Return the constant whose name is, or else ends with, ``name``."""
    tensors = model.graph.initializer
    found = [t for t in tensors if t.name == name] or [t for t in tensors if t.name.endswith(name)]
    if not found:
        msg = f"no constant {name}; there are {', '.join(t.name for t in tensors)}"
        raise KeyError(msg)
    return found[0]


def change_constant(
    name: str, change: Callable[[NDArray[Any]], NDArray[Any]]
) -> Callable[[onnx.ModelProto], None]:
    """Return a change that replaces a constant by a function of it, shape and dtype kept."""

    def apply(model: onnx.ModelProto) -> None:
        tensor = constant(model, name)
        value = numpy_helper.to_array(tensor)
        changed = np.asarray(change(value.copy()), value.dtype).reshape(value.shape)
        if np.array_equal(changed, value):
            msg = f"the change leaves {tensor.name} as it is: no fault"
            raise ValueError(msg)
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    return apply


def scale_part(name: str, part: slice | int, factor: float) -> Callable[[onnx.ModelProto], None]:
    """Return a change that multiplies rows of a constant."""

    def change(value: NDArray[Any]) -> NDArray[Any]:
        value[part] = value[part] * factor
        return value

    return change_constant(name, change)


def add_constant(model: onnx.ModelProto, name: str, value: NDArray[Any]) -> str:
    """Add a constant and return its name."""
    model.graph.initializer.append(numpy_helper.from_array(value, name))
    return name


def add_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto], *, first: bool = False) -> None:
    """Add nodes at the end, or before all others."""
    kept = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept] if first else [*kept, *nodes])


def node_with_output(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """Return the node that makes a value."""
    return next(node for node in model.graph.node if output in node.output)


def before_output(
    output: str, op: str, *inputs: str, **attributes: object
) -> Callable[[onnx.ModelProto], None]:
    """Return a change that puts an operator between the graph and one of its outputs."""

    def apply(model: onnx.ModelProto) -> None:
        inner = f"{output}.inner{len(model.graph.node)}"  # another one each time
        for node in model.graph.node:
            node.output[:] = [inner if name == output else name for name in node.output]
            node.input[:] = [inner if name == output else name for name in node.input]
        add_nodes(model, [helper.make_node(op, [inner, *inputs], [output], **attributes)])

    return apply


def after_input(
    name: str, op: str, *inputs: str, **attributes: object
) -> Callable[[onnx.ModelProto], None]:
    """Return a change that puts an operator between an input and the graph."""

    def apply(model: onnx.ModelProto) -> None:
        inner = f"{name}.inner"
        for node in model.graph.node:
            node.input[:] = [inner if used == name else used for used in node.input]
        new = helper.make_node(op, [name, *inputs], [inner], **attributes)
        add_nodes(model, [new], first=True)

    return apply


def after_value(
    name: str, op: str, *inputs: str, **attributes: object
) -> Callable[[onnx.ModelProto], None]:
    """Return a change that puts an operator behind an inner value."""

    def apply(model: onnx.ModelProto) -> None:
        nodes = list(model.graph.node)
        where = nodes.index(node_with_output(model, name))
        inner = f"{name}.inner"
        nodes[where].output[:] = [inner if out == name else out for out in nodes[where].output]
        nodes.insert(where + 1, helper.make_node(op, [inner, *inputs], [name], **attributes))
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    return apply


def put(name: str, value: NDArray[Any]) -> Callable[[onnx.ModelProto], None]:
    """Return a change that adds a constant."""
    return lambda model: add_constant(model, name, value) and None


def redeclare(name: str, dtype: int, shape: list[int | str]) -> Callable[[onnx.ModelProto], None]:
    """Return a change of what an input or output is declared to be."""

    def apply(model: onnx.ModelProto) -> None:
        for value in [*model.graph.input, *model.graph.output]:
            if value.name == name:
                value.CopyFrom(helper.make_tensor_value_info(name, dtype, shape))
        del model.graph.value_info[:]

    return apply


def rename(old: str, new: str) -> Callable[[onnx.ModelProto], None]:
    """Return a change of a value's name."""

    def apply(model: onnx.ModelProto) -> None:
        for value in [*model.graph.input, *model.graph.output]:
            value.name = new if value.name == old else value.name
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return apply


def swap_names(one: str, two: str) -> Callable[[onnx.ModelProto], None]:
    """Return a change that exchanges two values."""

    def apply(model: onnx.ModelProto) -> None:
        names = {one: two, two: one}
        for node in model.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]

    return apply


def drop_activation_quantizers(model: onnx.ModelProto) -> None:
    """Feed each Gemm the real values: INT8 in storage, FP32 in arithmetic."""
    makers = {output: node for node in model.graph.node for output in node.output}
    real: dict[str, str] = {}
    for node in model.graph.node:
        source = makers.get(node.input[0]) if node.input else None
        is_pair = source is not None and source.op_type == "QuantizeLinear"
        if node.op_type == "DequantizeLinear" and is_pair:
            real[node.output[0]] = source.input[0]
    for node in model.graph.node:
        node.input[:] = [real.get(name, name) for name in node.input]
    kept = [
        node
        for node in model.graph.node
        if node.op_type != "QuantizeLinear" and not set(node.output) & real.keys()
    ]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def dequantize_stored(model: onnx.ModelProto, *, keep: int = 0) -> None:
    """Store weight matrices in FP32 again, all but the first ``keep``."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    done = 0
    kept = []
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or not node.input[0].endswith("weight.codes"):
            kept.append(node)
            continue
        done += 1
        if done <= keep:
            kept.append(node)
            continue
        codes, scale = (numpy_helper.to_array(tensors[name]) for name in node.input[:2])
        value = (codes.astype(np.float32) * scale[:, None]).astype(np.float32)
        add_constant(model, node.output[0], value)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    left = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
