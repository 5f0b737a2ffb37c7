"""Which constants of an ONNX graph count as the matrices that it multiplies with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exportgate.artifacts.contents.onnx_matrices import count_by_dtype
from exportgate.artifacts.contents.reading import read_contents, stored_bytes

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def graph(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", 32])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, stored))


def matrix(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.integers(-9, 9, shape).astype(dtype)


def quantized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["w.real"], axis=0),
        helper.make_node("Transpose", ["w.real"], ["w.t"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "w.t"], ["a"]),
        helper.make_node("MatMul", ["a", "w.real"], ["b"]),
        helper.make_node("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["b", "wide", "bias"], ["y"]),
    ]
    return graph(
        nodes,
        w=matrix(16, 32, dtype=np.int8),
        s=matrix(16),
        z=matrix(16, dtype=np.int8),
        half=matrix(32, 8, dtype=np.float16),
        bias=matrix(8),
    )


def test_a_matrix_is_found_behind_casts_and_transposes_and_counted_once(tmp_path: Path) -> None:
    model = quantized()
    assert count_by_dtype(model) == {"int8": 16 * 32, "float16": 32 * 8}
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    found = read_contents(path)
    assert found.int8_matrix_share == 512 / 768
    assert found.matrix_bytes == 512 + 2 * 256


def test_tables_that_are_looked_up_or_cut_are_no_matrices() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["row"]),
        helper.make_node("Slice", ["positions", "from", "to"], ["piece"]),
        helper.make_node("MatMul", ["row", "piece"], ["y"]),
    ]
    model = graph(
        nodes,
        table=matrix(30, 32),
        positions=matrix(32, 100),
        rows=np.array([0]),
        **{"from": np.array([0]), "to": np.array([32])},
    )
    assert count_by_dtype(model) == {}


def test_an_lstms_bias_is_no_matrix() -> None:
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=8)
    model = graph([node], w=matrix(1, 32, 32), r=matrix(1, 32, 8), b=matrix(1, 64))
    assert count_by_dtype(model) == {"float32": 32 * 32 + 32 * 8}


def test_a_file_without_matrices_has_no_share(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(graph([helper.make_node("Relu", ["x"], ["y"])]), path)
    assert read_contents(path).int8_matrix_share == 0.0
    assert read_contents(path).matrix_bytes == 0


def test_what_weights_need_follows_from_the_name() -> None:
    sizes = {"fp32": 400, "fp16": 200, "int8": 100, "int4": 50}
    assert {name: stored_bytes(100, name) for name in ("fp32", "fp16", "int8", "int4")} == sizes
