"""What an ONNX file's INT8 and FP16 are made of: rounding, plans, smoothing, storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from exporters.checkpoint import quiet_nemo
from exporters.gemm_plan import (
    ACTIVATION_SQNR_DB,
    GemmPlan,
    activation_grid,
    noisy_layers,
    plan_gemms,
)
from exporters.onnx_storage import store_fp16, store_sliced_int8
from exporters.quantize_onnx import quantize_gemms, quantize_matrices
from exporters.rewrite_onnx import LeanEncoder
from exporters.rounding import LARGEST_CODE, round_weights
from exporters.smoothing import ChannelRange, observe, smooth
from exporters.trace_onnx import OnnxExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def encoder() -> LeanEncoder:
    from nemo.collections.asr.modules import ConformerEncoder

    torch.manual_seed(0)
    with quiet_nemo():
        nemo = ConformerEncoder(
            feat_in=9, n_layers=2, d_model=16, n_heads=2, subsampling_conv_channels=4
        )
    return LeanEncoder(nemo.eval(), max_trace_len=40)


@pytest.fixture(scope="module")
def swipes() -> list[NDArray[np.float32]]:
    generator = np.random.default_rng(0)
    swipes = [generator.standard_normal((9, n), dtype=np.float32) for n in (11, 25, 40, 33)]
    for swipe in swipes:
        swipe[6:9] *= 1e4  # channels like accelerations
    return swipes


def _sqnr_db(reference: torch.Tensor, other: torch.Tensor) -> float:
    error = (reference.double() - other.double()).square().sum()
    return float(10 * torch.log10(reference.double().square().sum() / error))


def _run(model: onnx.ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    output: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return output


def _gemm_model(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> onnx.ModelProto:
    outputs, inputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["y"], "gemm", transB=1)],
        "graph",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", inputs])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", outputs])],
        [numpy_helper.from_array(weight, "a.weight"), numpy_helper.from_array(bias, "a.bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), inputs=st.integers(1, 150), outputs=st.integers(1, 6))
def test_codes_are_within_seven_bits_and_a_step_of_small_layers(
    seed: int, inputs: int, outputs: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    codes, scales = round_weights(weight, torch.eye(inputs, dtype=torch.float64))
    assert codes.dtype == np.int8
    assert scales.dtype == np.float32
    assert np.abs(codes).max() <= LARGEST_CODE
    # Uncorrelated channels have nothing to make up for: this is rounding to the nearest.
    assert np.abs(codes * scales[:, None] - weight.numpy()).max() <= scales.max() * 0.5001


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_rounding_makes_up_for_errors_in_correlated_channels(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 160, generator=generator)
    x = torch.randn(500, 6, generator=generator) @ mixing
    x += 0.05 * torch.randn(x.shape, generator=generator)
    weight = torch.randn(8, 160, generator=generator)
    codes, scales = round_weights(weight, (x.T @ x).double())
    nearest = np.rint(weight.numpy() / scales[:, None]) * scales[:, None]
    rounded = torch.from_numpy(codes * scales[:, None])
    error, nearest_error = (
        float((x @ (w - weight).T).square().sum()) for w in (rounded, torch.from_numpy(nearest))
    )
    assert error <= 0.5 * nearest_error


def test_a_layer_of_zeros_is_rounded_to_zeros() -> None:
    codes, scales = round_weights(torch.zeros(3, 4), torch.zeros(4, 4, dtype=torch.float64))
    assert not codes.any()
    assert (scales > 0).all()


@given(st.dictionaries(st.text("ab", max_size=4), st.floats(0, 1e-2), max_size=8))
def test_the_noisiest_layers_get_a_second_code_and_no_more_than_needed(
    noise: dict[str, float],
) -> None:
    allowed = 10 ** (-ACTIVATION_SQNR_DB / 10)
    chosen = noisy_layers(noise)
    rest = {name: value for name, value in noise.items() if name not in chosen}
    assert sum(rest.values()) <= allowed * 1.000001
    if chosen:
        least = min(noise[name] for name in chosen)
        assert sum(rest.values()) + least > allowed
        assert least >= max(rest.values(), default=0.0)


def test_a_grid_reaches_from_the_lowest_to_the_highest_value() -> None:
    channels = ChannelRange(torch.tensor([-1.0, 0.5]), torch.tensor([0.0, 4.0]))
    scale, zero_point = activation_grid(channels, two_codes=False)
    assert scale == pytest.approx(5 / 255)
    assert zero_point == 51
    wide, same_zero = activation_grid(channels, two_codes=True)
    assert wide > 2 * scale
    assert same_zero == 51


@pytest.mark.parametrize(("two_codes", "least_db"), [(False, 36.0), (True, 75.0)])
def test_a_quantised_gemm_computes_what_its_codes_say(*, two_codes: bool, least_db: float) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((50, 32), dtype=np.float32)
    codes = generator.integers(-LARGEST_CODE, LARGEST_CODE + 1, (8, 32)).astype(np.int8)
    scale = generator.uniform(0.01, 0.02, 8).astype(np.float32)
    bias = generator.standard_normal(8, dtype=np.float32)
    channels = ChannelRange(torch.from_numpy(x.min(0)), torch.from_numpy(x.max(0)))
    plan = GemmPlan(codes, scale, *activation_grid(channels, two_codes=two_codes), two_codes)
    exact = codes * scale[:, None]
    model = quantize_gemms(_gemm_model(exact, bias), {"a": plan})
    expected = torch.from_numpy(x @ exact.T + bias)
    assert _sqnr_db(expected, torch.from_numpy(_run(model, x))) >= least_db


def test_a_plan_for_a_layer_that_is_not_there_is_an_error() -> None:
    model = _gemm_model(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    plan = GemmPlan(np.ones((2, 3), np.int8), np.ones(2, np.float32), 1.0, 0, two_codes=False)
    with pytest.raises(OnnxExportError, match=r"no Gemm with b\.weight"):
        quantize_gemms(model, {"b": plan})


def test_a_bias_beyond_32_bits_is_an_error() -> None:
    model = _gemm_model(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    steps = np.full(2, 1e-10, np.float32)
    plan = GemmPlan(np.ones((2, 3), np.int8), steps, 1e-10, 0, two_codes=False)
    with pytest.raises(OnnxExportError, match=r"its bias is over 2\*\*31 steps"):
        quantize_gemms(model, {"a": plan})


def test_dynamic_product_is_close_and_leaves_the_original_alone() -> None:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((8, 32), dtype=np.float32)
    model = _gemm_model(weight, generator.standard_normal(8, dtype=np.float32))
    before = model.SerializeToString()
    quantized = quantize_matrices(model)
    x = generator.standard_normal((5, 32), dtype=np.float32)
    assert _sqnr_db(torch.from_numpy(_run(model, x)), torch.from_numpy(_run(quantized, x))) >= 34.0
    assert model.SerializeToString() == before
    assert "Gemm" not in {node.op_type for node in quantized.graph.node}


def test_smoothing_changes_no_output_and_predicts_the_ranges(
    encoder: LeanEncoder, swipes: list[NDArray[np.float32]]
) -> None:
    smoothed, ranges = smooth(encoder, observe(encoder, swipes))
    features, lengths = torch.from_numpy(swipes[2])[None], torch.tensor([40])
    with torch.inference_mode():
        outputs = [each(features, lengths)[0] for each in (encoder, smoothed)]
    assert _sqnr_db(*outputs) >= 90.0
    for name, observed in observe(smoothed, swipes).items():
        assert ranges[name].of_tensor() == pytest.approx(observed.of_tensor(), rel=1e-3, abs=1e-5)


def test_smoothing_narrows_what_accelerations_spread(
    encoder: LeanEncoder, swipes: list[NDArray[np.float32]]
) -> None:
    ranges = observe(encoder, swipes)
    _, narrowed = smooth(encoder, ranges)
    spread, less = (
        float(side["front_end.out"].reach.max() / side["front_end.out"].reach.median())
        for side in (ranges, narrowed)
    )
    assert less < spread, (less, spread)


def test_every_linear_layer_is_planned(
    encoder: LeanEncoder, swipes: list[NDArray[np.float32]]
) -> None:
    plans = plan_gemms(*smooth(encoder, observe(encoder, swipes)), swipes)
    shapes = {name: tuple(layer.weight.shape) for name, layer in encoder.linears()}
    assert {name: plan.codes.shape for name, plan in plans.items()} == shapes


@pytest.mark.parametrize("magnitude", [1e-7, 1e-3, 1.0, 1e5])
def test_fp16_storage_keeps_eleven_bits_of_small_weights_too(magnitude: float) -> None:
    generator = np.random.default_rng(0)
    weight = generator.uniform(1, 100, (40, 30)).astype(np.float32) * np.float32(magnitude)
    stored = store_fp16(_gemm_model(weight, np.zeros(40, np.float32)))
    assert {t.name: t.data_type for t in stored.graph.initializer}["a.weight.fp16"] == 10
    back = _run(stored, np.eye(30, dtype=np.float32)).T
    assert np.abs(back / weight - 1).max() <= 2.0**-11


def test_a_table_that_is_not_sliced_is_not_stored_in_int8() -> None:
    model = _gemm_model(np.ones((2, 3), np.float32), np.zeros(2, np.float32))
    with pytest.raises(OnnxExportError, match=r"used by \['Gemm'\]"):
        store_sliced_int8(model, wanted=lambda name: name == "a.weight")
