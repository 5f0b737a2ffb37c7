"""A torch module to an ONNX model whose inputs and outputs are those of a contract.

The TorchScript exporter at opset 17 is used on purpose: the ``torch.export`` one makes files that
are 1 to 7 % larger and up to 10 % slower here, takes six times as long, and cannot write opset 17.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import torch

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exportgate.contract import IoContract, TensorSpec

OPSET = 17


class OnnxExportError(ExportGateError, RuntimeError):
    """The exported graph is not what its contract or its recipe promises."""


def trace_to_onnx(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], contract: IoContract
) -> onnx.ModelProto:
    """Export a module whose positional arguments and results are the contract's, in order.

    Args:
        module: In evaluation mode; it is not changed.
        example: One tensor per input; each dynamic axis should be longer than 1, lest the tracer
            takes the axis for a broadcast one.
        contract: Names, element types and axes.

    Returns:
        A checked model without traces of the machine that made it: no source paths, no versions.
        Every parameter and buffer that the graph reads is an initializer of its own, however many
        others are equal to it.

    Raises:
        OnnxExportError: Inputs or outputs of the graph differ from the contract.
    """
    specs = (*contract.inputs, *contract.outputs)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # The exporter announces its successor, which does not fit here (see the module's text).
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            module,
            example,
            path,
            dynamo=False,
            opset_version=OPSET,
            # The exporter merges constants of equal values otherwise, and each is to be found by
            # its own name and changed without changing another.
            keep_initializers_as_inputs=True,
            input_names=[spec.name for spec in contract.inputs],
            output_names=[spec.name for spec in contract.outputs],
            dynamic_axes={
                spec.name: {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
                for spec in specs
            },
        )
        model = onnx.load(path)
    _leave_only_data_as_inputs(model.graph)
    _strip_provenance(model)
    _share_constants(model.graph)
    _declare(model.graph.input, contract.inputs)
    _declare(model.graph.output, contract.outputs)
    onnx.checker.check_model(model)
    return model


def _leave_only_data_as_inputs(graph: onnx.GraphProto) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    data = [value for value in graph.input if value.name not in constants]
    del graph.input[:]
    graph.input.extend(data)


def _strip_provenance(model: onnx.ModelProto) -> None:
    model.producer_name, model.producer_version, model.doc_string = "", "", ""
    model.graph.name, model.graph.doc_string = "graph", ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    del model.graph.value_info[:]


def _share_constants(graph: onnx.GraphProto) -> None:
    """Leave one node of all that state the same constant: the tracer writes one for each use."""
    first: dict[bytes, str] = {}
    other: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            kept = first.setdefault(node.attribute[0].SerializeToString(), node.output[0])
            if kept != node.output[0]:
                other[node.output[0]] = kept
                continue
        node.input[:] = [other.get(name, name) for name in node.input]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _declare(values: Iterable[onnx.ValueInfoProto], specs: tuple[TensorSpec, ...]) -> None:
    """Check names, element types and fixed axes, and give the dynamic ones their names."""
    found = [(value.name, value.type.tensor_type.elem_type) for value in values]
    expected = [(spec.name, _element_type(spec)) for spec in specs]
    if found != expected:
        msg = f"the exported graph has {found}, but its contract says {expected}"
        raise OnnxExportError(msg)
    for value, spec in zip(values, specs, strict=True):
        shape = value.type.tensor_type.shape
        fixed = [dim.dim_value for dim in shape.dim]
        if len(fixed) != len(spec.shape) or any(
            size and isinstance(axis, int) and size != axis
            for size, axis in zip(fixed, spec.shape, strict=True)
        ):
            msg = f"{spec.name} has axes {fixed}, but its contract says {list(spec.shape)}"
            raise OnnxExportError(msg)
        value.CopyFrom(
            onnx.helper.make_tensor_value_info(spec.name, _element_type(spec), spec.shape)
        )


def _element_type(spec: TensorSpec) -> int:
    return int(getattr(onnx.TensorProto, {"float32": "FLOAT"}.get(spec.dtype, spec.dtype.upper())))
