"""Counting of delegated operators: quantize and dequantize are told apart, sizes never fixed."""

from __future__ import annotations

import re

import pytest

from exporters.xnnpack.delegation import Delegation
from exportgate.artifacts.operators import is_dequantize, is_quantize


def counts(inside: dict[str, int], outside: dict[str, int]) -> Delegation:
    return Delegation(1, inside, outside, delegated_macs=90, undelegated_macs=10)


@pytest.mark.parametrize(
    "name",
    [
        "quantized_decomposed.quantize_per_tensor.tensor",  # a traced graph
        "torchao.quantize_affine.default",
        "quantized_decomposed::quantize_per_tensor.out",  # a program's kernel
        "quantizeLinear",
    ],
)
def test_quantize_is_not_dequantize(name: str) -> None:
    other = re.sub(r"\bquantize(?!d_)", "dequantize", name)
    assert is_quantize(name)
    assert not is_dequantize(name)
    assert is_dequantize(other)
    assert not is_quantize(other)


@pytest.mark.parametrize(
    "name", ["quantized_decomposed::choose_qparams.Tensor_out", "MatMulInteger", "aten::mul.out"]
)
def test_a_namespace_quantizes_nothing(name: str) -> None:
    assert not is_quantize(name)
    assert not is_dequantize(name)


def test_dynamic_quantization_is_quantization() -> None:
    assert is_quantize("DynamicQuantizeLinear")
    assert not is_quantize("DequantizeLinear")


def test_quantization_inside_a_delegate_does_not_flatter_the_ratio() -> None:
    plain = counts({"aten.linear.default": 4}, {"aten.native_layer_norm.default": 4})
    quantized = counts(
        {"aten.linear.default": 4, "quantized_decomposed.dequantize_per_tensor.tensor": 100},
        {"aten.native_layer_norm.default": 4},
    )
    assert plain.node_ratio == quantized.node_ratio == 0.5
    assert quantized.to_json()["dequantize_ops"] == {
        "inside_delegates": 100,
        "outside_delegates": 0,
    }


def test_quantization_outside_a_delegate_counts_against_it() -> None:
    leaked = counts(
        {"aten.linear.default": 3}, {"quantized_decomposed.quantize_per_tensor.default": 1}
    )
    assert leaked.node_ratio == 0.75
    assert leaked.to_json()["quantize_ops"]["outside_delegates"] == 1


def test_shapes_and_casts_are_no_compute() -> None:
    lowered = counts(
        {"aten.bmm.default": 3, "aten.view_copy.default": 5},
        {
            "sym_size.int": 1,
            "dim_order_ops._to_dim_order_copy.default": 1,
            "aten.slice_copy.Tensor": 1,
            "aten.softmax.int": 1,
        },
    )
    assert lowered.compute_ratio == 0.75
    assert lowered.node_ratio == 8 / 12
    assert lowered.mac_ratio == 0.9
