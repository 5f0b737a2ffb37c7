"""An ONNX program as an application wants to call it: int32 lengths, log-probabilities.

Nodes are put in front of inputs and behind outputs; everything between them stays as it was, so
that a file of another interface holds the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx
from onnx import helper

from exporters.ort.trace import OnnxExportError
from exportgate.contract import LOG_PROBS

if TYPE_CHECKING:
    from exportgate.artifacts.sidecar import Program
    from exportgate.contract import IoContract, TensorSpec

_INNER = "plain_"
"""Before the name of what an input or output was, where another takes its place."""


def present(program: Program, contract: IoContract) -> Program:
    """Return a program with the inputs and outputs of another contract.

    Args:
        program: An ``.onnx`` program, as ours are called.
        contract: Differs in integer types, or has ``log_probs`` in the place of ``logits``.

    Raises:
        OnnxExportError: The contract differs in something else.
    """
    if contract == program.contract:
        return program
    model = onnx.load_from_string(program.payload)
    for before, after in zip(program.contract.inputs, contract.inputs, strict=True):
        if before != after:
            _check(before, after, before.name)
            _convert_input(model.graph, before, after)
    for before, after in zip(program.contract.outputs, contract.outputs, strict=True):
        if before != after:
            _check(before, after, LOG_PROBS if before.name == "logits" else before.name)
            _convert_output(model.graph, before, after)
    onnx.checker.check_model(model)
    payload = model.SerializeToString(deterministic=True)
    return replace(program, payload=payload, contract=contract)


def _check(before: TensorSpec, after: TensorSpec, name: str) -> None:
    integers = {"int32", "int64"}
    fits = before.shape == after.shape and after.name == name
    if not fits or (before.dtype != after.dtype and not {before.dtype, after.dtype} <= integers):
        msg = (
            f"{before} cannot be presented as {after}: only int32 for int64, {LOG_PROBS} for logits"
        )
        raise OnnxExportError(msg)


def _convert_input(graph: onnx.GraphProto, before: TensorSpec, after: TensorSpec) -> None:
    inner = _INNER + before.name
    for node in graph.node:
        node.input[:] = [inner if name == before.name else name for name in node.input]
    node = helper.make_node("Cast", [before.name], [inner], to=_type(before))
    graph.node.insert(0, node)
    _declare(graph.input, before.name, after)


def _convert_output(graph: onnx.GraphProto, before: TensorSpec, after: TensorSpec) -> None:
    inner = _INNER + before.name
    for node in graph.node:
        node.input[:] = [inner if name == before.name else name for name in node.input]
        node.output[:] = [inner if name == before.name else name for name in node.output]
    if before.dtype != after.dtype:
        node = helper.make_node("Cast", [inner], [after.name], to=_type(after))
    else:
        node = helper.make_node("LogSoftmax", [inner], [after.name], axis=-1)
    graph.node.append(node)
    _declare(graph.output, before.name, after)


def _declare(values: list[onnx.ValueInfoProto], name: str, spec: TensorSpec) -> None:
    value = next(item for item in values if item.name == name)
    value.CopyFrom(helper.make_tensor_value_info(spec.name, _type(spec), spec.shape))


def _type(spec: TensorSpec) -> int:
    name = {"float32": "FLOAT"}.get(spec.dtype, spec.dtype.upper())
    return int(getattr(onnx.TensorProto, name))
