"""Layer by layer: small faults are named where they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from harness.measure.layers import (
    LayerError,
    LayersError,
    Rounding,
    first_bad,
    layer_error,
    layer_errors,
    sentence,
)

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = onnx.TensorProto.FLOAT
RNG = np.random.default_rng(0)
FIRST, SECOND = (RNG.standard_normal((8, 8)).astype(np.float32) for _ in range(2))
FEEDS = [{"x": RNG.standard_normal((5, 8)).astype(np.float32)} for _ in range(4)]


def two_layers(path: Path, first: np.ndarray, second: np.ndarray, *, suffix: str = "") -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], [f"hidden{suffix}"]),
        helper.make_node("Tanh", [f"hidden{suffix}"], [f"bent{suffix}"]),
        helper.make_node("MatMul", [f"bent{suffix}", "w2"], [f"y{suffix}"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two layers",
        [helper.make_tensor_value_info("x", FLOAT, ["N", 8])],
        [helper.make_tensor_value_info(f"y{suffix}", FLOAT, ["N", second.shape[1]])],
        [numpy_helper.from_array(first, "w1"), numpy_helper.from_array(second, "w2")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("layer", "name"), [(0, "hidden"), (1, "y")])
def test_the_layer_and_its_channel_are_named(tmp_path: Path, layer: int, name: str) -> None:
    weights = [FIRST.copy(), SECOND.copy()]
    weights[layer][:, 3] *= 1.05
    sound = two_layers(tmp_path / "a.onnx", FIRST, SECOND)
    found, missing = layer_errors(two_layers(tmp_path / "b.onnx", *weights), sound, "fp32", FEEDS)
    assert missing == []
    bad = first_bad(found, "fp32")
    assert bad is not None
    assert (bad.name, bad.gain_channel) == (name, 3)
    assert bad.gain_error == pytest.approx(0.05, rel=1e-3)
    assert f"first bad layer: {name}" in sentence(bad)


@pytest.mark.parametrize("gain", [1.0, 1.05])
def test_a_convolution_that_took_its_relu_in_is_found_behind_it(
    tmp_path: Path, gain: float
) -> None:
    weight = RNG.standard_normal((4, 2, 3)).astype(np.float32)
    sound, rectified = tmp_path / "a.onnx", tmp_path / "b.onnx"
    for path, factor in ((sound, 1.0), (tmp_path / "c.onnx", gain)):
        changed = weight.copy()
        changed[2] *= factor
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w"], ["sum"], pads=[1, 1]),
                helper.make_node("Relu", ["sum"], ["y"]),
            ],
            "one layer",
            [helper.make_tensor_value_info("x", FLOAT, ["N", 2, 9])],
            [helper.make_tensor_value_info("y", FLOAT, ["N", 4, 9])],
            [numpy_helper.from_array(changed, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.save(model, path)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(rectified)
    onnxruntime.InferenceSession(tmp_path / "c.onnx", options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(rectified).graph.node] == ["FusedConv"]

    feeds = [{"x": RNG.standard_normal((1, 2, 9)).astype(np.float32)}]
    (found,), missing = layer_errors(rectified, sound, "fp32", feeds)
    assert missing == []
    assert (found.name, found.gain_error > 0.04) == ("sum", gain > 1.0)


def test_equal_files_have_no_bad_layer(tmp_path: Path) -> None:
    sound = two_layers(tmp_path / "a.onnx", FIRST, SECOND)
    found, _ = layer_errors(sound, sound, "fp32", FEEDS)
    assert first_bad(found, "fp32") is None
    assert "the export itself" in sentence(None)


def test_a_hidden_channel_fault_of_an_int8_file_is_seen() -> None:
    sound = LayerError("a", 44.0, 0.01, 0.8, 0, 0.01, 0.9, 0)
    off = LayerError("b", 43.9, 0.05, 3.0, 7, 0.01, 0.9, 0)
    assert first_bad([sound, off], "int8") is off
    assert first_bad([sound, sound], "int8") is None


def test_a_nan_is_the_worst_there_is(tmp_path: Path) -> None:
    broken = FIRST.copy()
    broken[0, 0] = np.nan
    sound = two_layers(tmp_path / "a.onnx", FIRST, SECOND)
    found, _ = layer_errors(two_layers(tmp_path / "b.onnx", broken, SECOND), sound, "fp32", FEEDS)
    bad = first_bad(found, "fp32")
    assert bad is not None
    assert (bad.name, bad.gain_error) == ("hidden", float("inf"))


def test_what_cannot_be_compared_is_an_error(tmp_path: Path) -> None:
    sound = two_layers(tmp_path / "a.onnx", FIRST, SECOND)
    other = two_layers(tmp_path / "b.onnx", FIRST, SECOND, suffix="_renamed")
    with pytest.raises(LayersError, match="not the same graph"):
        layer_errors(other, sound, "fp32", FEEDS)
    wider = two_layers(tmp_path / "c.onnx", FIRST, SECOND[:, :4])
    with pytest.raises(LayersError, match="but in the FP32 file"):
        layer_errors(wider, sound, "fp32", FEEDS)


def noisy(rng: np.random.Generator, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what 8 channels of very different size give, and that rounded to one step."""
    sizes = np.array([0.0, 1e-9, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0])
    exact = rng.standard_normal((400, 8)) * sizes
    exact[:, 6] = 1.3 * step  # a channel that does not move is rounded the same way each time
    return exact, np.rint(exact / step) * step


@pytest.mark.parametrize("seed", range(20))
def test_silent_and_constant_channels_are_no_fault(seed: int) -> None:
    exact, rounded = noisy(np.random.default_rng(seed), step=0.08)
    found = layer_error("layer", exact, rounded, Rounding.of_values("int8"))
    assert max(found.gain_excess, found.shift_excess) <= 1.0


@pytest.mark.parametrize(("channel", "gain", "shift"), [(7, 1.05, 0), (5, 0.93, 0), (5, 1, 0.08)])
def test_a_fault_beside_them_is(channel: int, gain: float, shift: float) -> None:
    exact, rounded = noisy(np.random.default_rng(0), step=0.08)
    rounded[:, channel] = rounded[:, channel] * gain + shift
    found = layer_error("layer", exact, rounded, Rounding.of_values("int8"))
    named = found.gain_channel if shift == 0 else found.shift_channel
    assert named == channel
    assert max(found.gain_excess, found.shift_excess) > 1.0


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("inputs", [9, 40, 640])
def test_rounded_weights_are_judged_by_their_own_step(bits: int, inputs: int) -> None:
    rng = np.random.default_rng(bits * inputs)
    exact = rng.standard_normal((inputs, 300)) * np.exp(rng.standard_normal(300))
    step = np.abs(exact).max(axis=0) / (2 ** (bits - 1) - 1)
    rounded = np.rint(exact / step) * step
    rounding = Rounding.of_weights(f"int{bits}")
    found = layer_error("layer", exact, rounded, rounding)
    assert max(found.gain_excess, found.shift_excess) <= 1.0
    rounded[:, 17] += step[17]  # the zero point is off by one
    found = layer_error("layer", exact, rounded, rounding)
    assert (found.shift_channel, found.shift_excess > 1.0) == (17, True)
