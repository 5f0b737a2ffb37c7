"""What static quantizers clip is counted against what they round."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from harness.measure.clipping import clipping

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = onnx.TensorProto.FLOAT


def quantizing(path: Path, step: np.ndarray, zero: np.ndarray, axis: int = 1) -> Path:
    nodes = [
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("QuantizeLinear", ["doubled", "step", "zero"], ["codes"], axis=axis),
        helper.make_node("DequantizeLinear", ["codes", "step", "zero"], ["y"], axis=axis),
    ]
    graph = helper.make_graph(
        nodes,
        "one quantizer",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.array(2, np.float32), "two"),
            numpy_helper.from_array(step, "step"),
            numpy_helper.from_array(zero, "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("zero", [np.array(0, np.int8), np.array(128, np.uint8)])
def test_noise_of_clipping_beside_noise_of_rounding(tmp_path: Path, zero: np.ndarray) -> None:
    path = quantizing(tmp_path / "a.onnx", np.array(0.5, np.float32), zero)
    feeds = [{"x": np.array([[31.0, -31.0]], np.float32)}, {"x": np.ones((1, 2), np.float32)}]
    (inside,) = clipping(path, feeds)
    assert (inside.noise_ratio, inside.largest) == (0.0, 0.0)
    # 2 · 32.75 is 2 beyond the largest code, 127 · 0.5.
    (beyond,) = clipping(path, [*feeds, {"x": np.array([[32.75, 0.0]], np.float32)}])
    assert beyond.noise_ratio == pytest.approx(2.0**2 / (6 * 0.25 / 12))
    assert beyond.largest == 4.0


def test_each_channel_has_its_range(tmp_path: Path) -> None:
    steps, zeros = np.array([1.0, 0.01], np.float32), np.zeros(2, np.int8)
    path = quantizing(tmp_path / "a.onnx", steps, zeros, axis=-1)
    (wide,) = clipping(path, [{"x": np.array([[60.0, 0.5]], np.float32)}])
    (narrow,) = clipping(path, [{"x": np.array([[0.5, 60.0]], np.float32)}])
    assert (wide.noise_ratio, narrow.noise_ratio > 1) == (0.0, True)


def test_half_a_step_beyond_is_rounding(tmp_path: Path) -> None:
    path = quantizing(tmp_path / "a.onnx", np.array(1.0, np.float32), np.array(0, np.int8))
    (found,) = clipping(path, [{"x": np.array([[63.7, -64.2]], np.float32)}])
    assert found.clip_noise == 0.0
