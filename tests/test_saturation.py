"""Pairs of weights that saturate are found in every operator that multiplies integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exportgate.artifacts.contents.saturation import saturating_pairs

ROWS, INPUTS = 3, 7


def model_of(weights: np.ndarray, nodes: list[helper.NodeProto]) -> helper.ModelProto:
    """Return a model that is read, never run."""
    graph = helper.make_graph(nodes, "g", [], [], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph)


def product(op_type: str, *, transposed: bool) -> list[helper.NodeProto]:
    place = {"QGemm": 3, "MatMulInteger": 1, "Gemm": 1, "MatMul": 1}[op_type]
    inputs = ["x"] * place + ["w"]
    if op_type in ("Gemm", "MatMul"):
        inputs = ["x.real", "w.real"]
    node = helper.make_node(op_type, inputs, ["y"])
    if transposed:
        node.attribute.append(helper.make_attribute("transB", 1))
    both = [helper.make_node("DequantizeLinear", [n, "s"], [f"{n}.real"]) for n in ("x", "w")]
    return [*both, node]


@pytest.mark.parametrize(
    ("op_type", "transposed"),
    [
        ("QGemm", True),
        ("QGemm", False),
        ("MatMulInteger", False),
        ("Gemm", True),
        ("MatMul", False),
    ],
)
@given(seed=st.integers(0, 999), reach=st.integers(50, 127))
def test_it_finds_what_vpmaddubsw_saturates(
    op_type: str, *, transposed: bool, seed: int, reach: int
) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.integers(-reach, reach, (ROWS, INPUTS), endpoint=True)
    first, second = np.pad(weights, ((0, 0), (0, 1))).reshape(ROWS, -1, 2).transpose(2, 0, 1)
    sums = np.stack([x * first + y * second for x in (0, 255) for y in (0, 255)])
    limits = np.iinfo(np.int16)
    saturates = (sums < limits.min) | (sums > limits.max)
    stored = (weights if transposed else weights.T).astype(np.int8)
    found = sum(
        saturating_pairs(model_of(stored, product(op_type, transposed=transposed))).values()
    )
    assert found == int(saturates.any(axis=0).sum())


def test_weights_that_meet_real_numbers_do_not_count() -> None:
    weights = np.full((ROWS, INPUTS), 127, np.int8)
    stored_only = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["w.real"]),
        helper.make_node("Gemm", ["x", "w.real"], ["y"], transB=1),
    ]
    assert saturating_pairs(model_of(weights, stored_only)) == {}
    unsigned = model_of(weights.astype(np.uint8), product("QGemm", transposed=True))
    assert unsigned.graph.initializer[0].data_type == TensorProto.UINT8
    assert saturating_pairs(unsigned) == {}


def test_both_matrices_of_an_lstm_count() -> None:
    weights = np.full((1, 4, 8), 100, np.int8)
    node = helper.make_node("DynamicQuantizeLSTM", ["x", "other", "w"], ["y"])
    assert saturating_pairs(model_of(weights, [node])) == {"w": 16}


def test_a_convolution_counts_single_weights() -> None:
    weights = np.array([64, -64, 65, -127], np.int8).reshape(1, 1, 2, 2)
    node = helper.make_node("ConvInteger", ["x", "w"], ["y"])
    assert saturating_pairs(model_of(weights, [node])) == {"w": 2}
