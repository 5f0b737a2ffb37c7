"""What an ONNX file's INT8 and FP16 are made of: configs, smoothing, storage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from exporters.nemo.checkpoint import quiet_nemo
from exporters.ort.encoder_graph import OrtEncoder
from exporters.ort.qdq import MatrixConfig, quantize_gemms, quantize_matrices
from exporters.ort.storage import store_fp16, store_sliced_int8
from exporters.ort.trace import OnnxExportError
from exporters.quantize.smoothing import ChannelRange, _scale, observe, smooth
from exporters.quantize.static_config import (
    HEADROOM,
    GemmConfig,
    activation_grid,
    configure_gemms,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def encoder() -> OrtEncoder:
    from nemo.collections.asr.modules import ConformerEncoder

    torch.manual_seed(0)
    with quiet_nemo():
        nemo = ConformerEncoder(
            feat_in=9, n_layers=2, d_model=16, n_heads=2, subsampling_conv_channels=4
        )
    return OrtEncoder(nemo.eval(), max_trace_len=40)


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


def test_a_grid_reaches_a_quarter_beyond_the_lowest_and_the_highest_value() -> None:
    channels = ChannelRange(torch.tensor([-1.0, 0.5]), torch.tensor([0.0, 4.0]))
    scale, zero_point = activation_grid(channels, residual=False)
    assert scale == pytest.approx(HEADROOM * 5 / 255)
    assert zero_point == 51
    wide, same_zero = activation_grid(channels, residual=True)
    assert wide > 2 * scale
    assert same_zero == 51


@pytest.mark.parametrize(("residual", "least_db"), [(False, 36.0), (True, 75.0)])
def test_a_quantised_gemm_computes_what_its_codes_say(*, residual: bool, least_db: float) -> None:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((50, 32), dtype=np.float32)
    codes = generator.integers(-64, 64, (8, 32), endpoint=True).astype(np.int8)
    scale = generator.uniform(0.01, 0.02, 8).astype(np.float32)
    bias = generator.standard_normal(8, dtype=np.float32)
    channels = ChannelRange(torch.from_numpy(x.min(0)), torch.from_numpy(x.max(0)))
    config = GemmConfig(codes, scale, *activation_grid(channels, residual=residual), residual)
    exact = codes * scale[:, None]
    model = quantize_gemms(_gemm_model(exact, bias), {"a": config})
    expected = torch.from_numpy(x @ exact.T + bias)
    assert _sqnr_db(expected, torch.from_numpy(_run(model, x))) >= least_db


def test_a_plan_for_a_layer_that_is_not_there_is_an_error() -> None:
    model = _gemm_model(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    config = GemmConfig(np.ones((2, 3), np.int8), np.ones(2, np.float32), 1.0, 0, residual=False)
    with pytest.raises(OnnxExportError, match=r"no Gemm with b\.weight"):
        quantize_gemms(model, {"b": config})


def test_a_bias_beyond_32_bits_is_an_error() -> None:
    model = _gemm_model(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    steps = np.full(2, 1e-10, np.float32)
    config = GemmConfig(np.ones((2, 3), np.int8), steps, 1e-10, 0, residual=False)
    with pytest.raises(OnnxExportError, match=r"its bias is over 2\*\*31 steps"):
        quantize_gemms(model, {"a": config})


@pytest.mark.parametrize(("residual", "least_db"), [(False, 40.0), (True, 80.0)])
def test_dynamic_product_computes_what_its_codes_say(*, residual: bool, least_db: float) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(-64, 64, (8, 32), endpoint=True).astype(np.int8)
    scale = generator.uniform(0.01, 0.02, 8).astype(np.float32)
    exact = codes * scale[:, None]
    model = _gemm_model(exact, generator.standard_normal(8, dtype=np.float32))
    model.graph.node[0].name = "/a/Gemm"
    before = model.SerializeToString()
    quantized = quantize_matrices(model, {"a": MatrixConfig(codes, scale, residual)})
    x = generator.standard_normal((5, 32), dtype=np.float32)
    found, wanted = (torch.from_numpy(_run(m, x)) for m in (quantized, model))
    assert _sqnr_db(wanted, found) >= least_db
    assert model.SerializeToString() == before


def test_a_matrix_that_is_not_there_is_an_error() -> None:
    model = _gemm_model(np.ones((2, 3), np.float32), np.ones(2, np.float32))
    config = MatrixConfig(np.ones((2, 3), np.int8), np.ones(2, np.float32), residual=False)
    with pytest.raises(OnnxExportError, match="no matrix product named b"):
        quantize_matrices(model, {"b": config})


def test_smoothing_changes_no_output_and_predicts_the_ranges(
    encoder: OrtEncoder, swipes: list[NDArray[np.float32]]
) -> None:
    smoothed, ranges = smooth(encoder, observe(encoder, swipes))
    features, lengths = torch.from_numpy(swipes[2])[None], torch.tensor([40])
    with torch.inference_mode():
        outputs = [each(features, lengths)[0] for each in (encoder, smoothed)]
    assert _sqnr_db(*outputs) >= 90.0
    for name, observed in observe(smoothed, swipes).items():
        assert ranges[name].of_tensor() == pytest.approx(observed.of_tensor(), rel=1e-3, abs=1e-5)


def test_smoothing_narrows_what_accelerations_spread(
    encoder: OrtEncoder, swipes: list[NDArray[np.float32]]
) -> None:
    ranges = observe(encoder, swipes)
    _, narrowed = smooth(encoder, ranges)
    spread, less = (
        float(side["front_end.out"].absmax.max() / side["front_end.out"].absmax.median())
        for side in (ranges, narrowed)
    )
    assert less < spread, (less, spread)


@given(
    st.integers(0, 999),
    st.integers(3, 40),
    st.floats(0.0, 0.4),
    st.sampled_from([0.0, 1e-9, 1e-3]),
)
def test_a_channel_silent_in_calibration_is_not_amplified(
    seed: int, width: int, silent: float, level: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    absmax = torch.rand(width, generator=generator) + 0.5
    quiet = torch.rand(width, generator=generator) < silent
    quiet[0] = True
    if level > 1e-6:  # whatever most channels are is what is typical of them
        quiet[(width - 1) // 2 :] = False
    quiet[-2:] = False
    assume(level == 0.0 or 2 * int(quiet.sum()) < width)  # else the quiet ones are the typical
    absmax[quiet] = level
    scale = _scale(absmax, torch.ones(4, width), 0.5)
    typical = float(scale[~quiet].min())
    assert float(scale[quiet].min()) >= typical * 0.1**0.5 * 0.5


def test_every_linear_layer_is_planned(
    encoder: OrtEncoder, swipes: list[NDArray[np.float32]]
) -> None:
    configs = configure_gemms(*smooth(encoder, observe(encoder, swipes)), swipes)
    shapes = {name: tuple(layer.weight.shape) for name, layer in encoder.linears()}
    assert {name: config.codes.shape for name, config in configs.items()} == shapes


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
