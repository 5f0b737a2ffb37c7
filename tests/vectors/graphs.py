"""Build exported files: ONNX models with their weights elsewhere, and ExecuTorch programs.

``seed.pte`` is ``tests.test_pte_file.lowered(quantized=False)``: a linear layer in XNNPACK and an
operator outside of it.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

SEED_PTE = Path(__file__).with_name("seed.pte")
_DATA = "weights.bin"


def _model() -> onnx.ModelProto:
    """A product of two matrices whose weights lie in ``weights.bin``."""
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((16, 16), np.float32), "w")
    weight.raw_data = b""
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", _DATA), ("offset", "0"), ("length", "1024")):
        weight.external_data.add(key=key, value=value)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])]
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", inputs, outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_file(folder: Path, steps: list[list[Any]]) -> Path:
    path = folder / "model.onnx"
    (folder / _DATA).write_bytes(np.ones(256, np.float32).tobytes())
    model = _model()
    data: bytes | None = None
    for name, *arguments in steps:
        if name in _FILES:
            _FILES[name](folder, *arguments)
        elif name in _BYTES:
            data = _BYTES[name](model.SerializeToString() if data is None else data, *arguments)
        else:
            _MODELS[name](model, *arguments)
    if not path.exists():  # a step may have put something else there
        path.write_bytes(model.SerializeToString() if data is None else data)
    return path


def _entry(model: onnx.ModelProto, key: str, value: str) -> None:
    tensor = model.graph.initializer[0]
    found = [entry for entry in tensor.external_data if entry.key == key]
    entry = found[0] if found else tensor.external_data.add(key=key)
    entry.value = value


def _inline(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.raw_data = np.ones(256, np.float32).tobytes()
    tensor.data_location = 0
    del tensor.external_data[:]


def _dims(model: onnx.ModelProto, dims: list[int]) -> None:
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)


def _many(model: onnx.ModelProto, count: int) -> None:
    """Let so many tensors be the same bytes of one file."""
    first = model.graph.initializer[0]
    for number in range(count):
        again = model.graph.initializer.add()
        again.CopyFrom(first)
        again.name = f"w{number}"


def _sparse(model: onnx.ModelProto, location: str) -> None:
    """Name a file where few look: in the values of a sparse initialiser."""
    from onnx import TensorProto

    sparse = model.graph.sparse_initializer.add()
    sparse.dims.extend([16, 16])
    sparse.values.CopyFrom(model.graph.initializer[0])
    sparse.values.name = "s"
    for entry in sparse.values.external_data:
        if entry.key == "location":
            entry.value = location
    sparse.indices.data_type = TensorProto.INT64


def _function(model: onnx.ModelProto, location: str) -> None:
    """Name a file in a constant of a local function."""
    function = model.functions.add(name="F", domain="local")
    node = function.node.add(op_type="Constant", output=["c"])
    attribute = node.attribute.add(name="value", type=4)
    attribute.t.CopyFrom(model.graph.initializer[0])
    attribute.t.external_data[0].value = location


def _nested(model: onnx.ModelProto, depth: int) -> None:
    graph = model.graph
    for _ in range(depth):
        node = graph.node.add(op_type="If")
        attribute = node.attribute.add(name="then_branch", type=5)
        graph = attribute.g


def _fill(model: onnx.ModelProto, elements: int) -> None:
    """Let the graph itself make a tensor of so many elements out of one."""
    from onnx import TensorProto, helper

    _inline(model)
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [elements])
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["big"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["big"], ["sum"]))
    model.graph.node[2].output[0] = "z"
    model.graph.node.append(helper.make_node("Add", ["z", "sum"], ["y"]))


def _operator(model: onnx.ModelProto, domain: str, operator: str) -> None:
    _inline(model)
    model.graph.node[0].domain, model.graph.node[0].op_type = domain, operator
    model.opset_import.add(domain=domain, version=1)


_MODELS = {
    "entry": _entry, "inline": _inline, "dims": _dims, "many": _many, "sparse": _sparse,
    "function": _function, "nested": _nested, "fill": _fill, "operator": _operator,
    "type": lambda model, number: setattr(model.graph.initializer[0], "data_type", number),
    "without_graph": lambda model: model.ClearField("graph"),
}  # fmt: skip
_BYTES = {
    "cut": lambda data, kept: data[:kept],
    "overwrite": lambda data, at, text: data[:at] + text.encode() + data[at + len(text) :],
    "text": lambda _, text, times=1: text.encode() * times,
}


def _link(folder: Path, name: str, target: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(target)


def _hard_link(folder: Path, name: str, target: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.link(target, folder / name)


def _pipe(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


def _size(folder: Path, name: str, count: int) -> None:
    """Make a file of so many zeros that takes no room."""
    with (folder / name).open("wb") as file:
        file.truncate(count)


_FILES = {"link": _link, "hard_link": _hard_link, "pipe": _pipe, "size": _size}


# -- ExecuTorch ------------------------------------------------------------------------------


def pte_file(folder: Path, steps: list[list[Any]]) -> Path:
    path = folder / "model.pte"
    data = bytearray(SEED_PTE.read_bytes())
    for name, *arguments in steps:
        if name == "number":  # little-endian at a place, of a width
            at, width, value = arguments
            data[at : at + width] = int(value).to_bytes(width, "little")
        elif name == "cut":
            del data[arguments[0] :]
        elif name == "text":
            data = bytearray(arguments[0].encode() * (arguments[1] if arguments[1:] else 1))
        elif name == "fill":
            at, count, value = arguments
            data[at : at + count] = bytes([value]) * count
        elif name == "root":  # the offset of the flatbuffer's root table
            data[0:4] = struct.pack("<I", arguments[0])
        else:
            raise KeyError(name)
    path.write_bytes(data)
    return path
