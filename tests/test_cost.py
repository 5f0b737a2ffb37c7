"""Multiply-accumulates are counted as anybody would by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.inspect.cost import CostError, node_macs, static_cost

if TYPE_CHECKING:
    from pathlib import Path


def a_model(
    path: Path, op: str, shape: list[int], weight: np.ndarray | list[int], **attributes: object
) -> dict[str, np.ndarray]:
    """Write a model of one product of x and a weight, or of x and a second input."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    constants = []
    feeds = {"x": np.ones(shape, np.float32)}
    if isinstance(weight, list):
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weight))
        feeds["w"] = np.ones(weight, np.float32)
    else:
        constants.append(numpy_helper.from_array(weight, "w"))
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], **attributes)],
        "one",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return feeds


@pytest.mark.parametrize(
    ("op", "shape", "weight", "attributes", "macs"),
    [
        ("MatMul", [3, 16], np.ones((16, 20), np.float32), {}, 3 * 16 * 20),
        ("MatMul", [2, 3, 16], np.ones((16, 20), np.float32), {}, 2 * 3 * 16 * 20),
        ("MatMul", [2, 4, 3, 16], [2, 4, 16, 5], {}, 2 * 4 * 3 * 16 * 5),
        ("Gemm", [3, 16], np.ones((20, 16), np.float32), {"transB": 1}, 3 * 16 * 20),
        ("Gemm", [16, 3], np.ones((16, 20), np.float32), {"transA": 1}, 3 * 16 * 20),
        (
            "Conv", [1, 8, 10], np.ones((8, 1, 3), np.float32),
            {"group": 8, "pads": [1, 1]}, 8 * 10 * 3,
        ),
        (
            "Conv", [1, 4, 8, 8], np.ones((6, 4, 3, 3), np.float32),
            {"strides": [2, 2], "pads": [1, 1, 1, 1]}, 6 * 4 * 4 * 4 * 3 * 3,
        ),
    ],
)  # fmt: skip
def test_products_of_known_size(
    tmp_path: Path,
    op: str,
    shape: list[int],
    weight: np.ndarray | list[int],
    attributes: dict[str, object],
    macs: int,
) -> None:
    path = tmp_path / "model.onnx"
    found = static_cost(path, a_model(path, op, shape, weight, **attributes))
    assert sum(found.macs.values()) == macs
    assert found.int8_mac_share == 0.0
    assert found.nodes >= 1


def test_an_lstm_multiplies_input_and_state_at_each_point() -> None:
    weights = [[2, 3, 8], [1, 20, 8], [1, 20, 5], [1, 40], [1, 3, 5], [1, 3, 5]]
    shapes = [{"float": shape} for shape in weights]
    node = {"op_name": "LSTM", "input_type_shape": shapes}
    node["output_type_shape"] = [{"float": [2, 1, 3, 5]}]
    assert node_macs(node) == ("float", 2 * 3 * (20 * 8 + 20 * 5))


def test_an_unknown_product_is_an_error_and_not_nothing() -> None:
    shapes = [{"float": [1, 2, 3]}, {"float": [4, 5, 6]}]
    with pytest.raises(CostError, match="Attention multiplies"):
        node_macs({"op_name": "Attention", "input_type_shape": shapes, "output_type_shape": shapes})
