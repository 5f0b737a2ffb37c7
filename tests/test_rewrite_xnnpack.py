"""The rewritten encoder is NeMo's, for any depth, width, kernel, subsampling and padding."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from exporters.xnnpack.encoder_graph import DepthwiseConvolution, rewrite_encoder
from exporters.xnnpack.front_end import HalfEntry
from exporters.xnnpack.norms import RmsNormalize
from exporters.xnnpack.options import RewriteOptions, UnsupportedEncoderError
from tests.nemo_encoders import nemo_encoder

ONE_BY_ONE = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    error = (reference.double() - other.double()).square().sum()
    return float(10 * torch.log10(reference.double().square().sum() / error.clamp_min(1e-300)))


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.sampled_from([1, 2, 4]))
    return {
        "feat_in": draw(st.sampled_from([5, 37])),
        "n_layers": draw(st.integers(1, 3)),
        "n_heads": heads,
        "d_model": heads * draw(st.sampled_from([4, 6, 12])),
        "ff_expansion_factor": draw(st.integers(1, 4)),
        "subsampling": draw(st.sampled_from(["striding", "dw_striding"])),
        "subsampling_factor": draw(st.sampled_from([2, 4, 8])),
        "subsampling_conv_channels": draw(st.sampled_from([3, 8])),
        "conv_kernel_size": draw(st.sampled_from([3, 9, 25, 27, 31])),
        "untie_biases": draw(st.booleans()),
        "xscaling": draw(st.booleans()),
        "use_bias": draw(st.booleans()),
    }


@pytest.mark.slow
@ONE_BY_ONE
@given(config=configurations(), data=st.data())
def test_rewrite_equals_nemo_with_garbage_in_the_padding(
    config: dict[str, Any], data: st.DataObject
) -> None:
    frames = data.draw(st.integers(1, 45), label="T")
    length = data.draw(st.integers(1, frames), label="length")
    bound = data.draw(st.integers(max(frames, 2), 64), label="bound")
    encoder = nemo_encoder(**config)
    rewritten = rewrite_encoder(encoder, max_trace_len=bound)
    features, lengths = torch.randn(1, config["feat_in"], frames), torch.tensor([length])
    features[:, :, length:] = 1e3

    with torch.no_grad():
        reference, valid = encoder(audio_signal=features, length=lengths)
        encoded, encoded_lengths = rewritten(features, lengths)

    assert encoded.shape == reference.shape
    assert encoded_lengths.dtype == torch.int64
    assert encoded_lengths.tolist() == valid.tolist()
    count = int(valid)
    assert sqnr_db(reference[:, :, :count], encoded[:, :, :count]) >= 100.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        RewriteOptions(layer_norm="native"),
        RewriteOptions(layer_norm="native", fold_layer_norm=False),
        RewriteOptions(fold_layer_norm=False),
        RewriteOptions(fold_batch_norm=False),
        RewriteOptions(fold_constants=False),
        RewriteOptions(split_depthwise=False),
        RewriteOptions(compress_positions=False),
    ],
    ids=str,
)
def test_each_replacement_can_be_left_out(options: RewriteOptions) -> None:
    encoder = nemo_encoder(n_layers=2, conv_kernel_size=31)
    features, lengths = torch.randn(1, 37, 30), torch.tensor([30])
    rewritten = rewrite_encoder(encoder, max_trace_len=60, options=options)
    with torch.no_grad():
        reference, _ = encoder(audio_signal=features, length=lengths)
        assert sqnr_db(reference, rewritten(features, lengths)[0]) >= 100.0


@pytest.mark.slow
def test_rewrite_leaves_the_encoder_as_it_was() -> None:
    encoder = nemo_encoder()
    before = _fingerprint(encoder)
    rewritten = rewrite_encoder(encoder, max_trace_len=20)
    with torch.no_grad():
        for tensor in rewritten.parameters():
            tensor.zero_()
    assert _fingerprint(encoder) == before


@pytest.mark.slow
@pytest.mark.parametrize("peak", [1.0, 1e4, 1e6])
def test_half_precision_survives_any_acceleration(peak: float) -> None:
    encoder = nemo_encoder(n_layers=2, d_model=32)
    rewritten = rewrite_encoder(encoder, max_trace_len=40)
    rewritten.to_fp16()
    features, lengths = torch.rand(1, 37, 40), torch.tensor([40])
    features[:, 6:9] *= peak
    with torch.no_grad():
        reference, _ = encoder(audio_signal=features, length=lengths)
        encoded, _ = rewritten(features, lengths)
    assert sqnr_db(reference, encoded) >= 40.0


@given(
    seed=st.integers(0, 2**32 - 1),
    loudest=st.sampled_from([0.0, 1e-3, 1.0, 1e4, 1e9]),
    heard=st.sampled_from([0.001, 0.1, 1.0]),
)
def test_no_frame_overflows_where_it_enters_half_precision(
    seed: int, loudest: float, heard: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    out = nn.Linear(600, 8)
    nn.init.uniform_(out.weight, -0.04, 0.04, generator=generator)
    nn.init.uniform_(out.bias, -0.04, 0.04, generator=generator)
    entry = HalfEntry(out)
    x = loudest * torch.rand((1, 20, 600), generator=generator)
    x = x * (torch.rand(x.shape, generator=generator) < heard)
    x[0, 0] = loudest * (out.weight[0] == out.weight.abs().max())  # the worst that a frame can be
    with torch.no_grad():
        mask = torch.ones(1, 20, 1)
        mask[0, 13:] = 0.0
        gain = entry.gain(x, mask)
        scaled, valid = entry((x * gain).half(), gain.half())
        expected = out(x) * gain
    assert float(scaled.abs().max() / 16) ** 2 <= 65504
    assert (scaled - expected).norm() <= 2e-3 * expected.norm()
    assert torch.equal(valid.float(), mask)


@pytest.mark.slow
def test_an_encoder_of_another_kind_is_refused_by_name() -> None:
    for changes, named in (
        ({"subsampling": "vggnet"}, "pre_encode"),
        ({"conv_norm_type": "layer_norm"}, "LayerNorm"),
        ({"self_attention_model": "abs_pos"}, "self_attention_model"),
        ({"att_context_size": [4, 4]}, "att_context_size"),
    ):
        with pytest.raises(UnsupportedEncoderError, match=named):
            rewrite_encoder(nemo_encoder(**changes), max_trace_len=20)
    with pytest.raises(UnsupportedEncoderError, match="training"):
        rewrite_encoder(nemo_encoder().train(), max_trace_len=20)


@given(taps=st.sampled_from([1, 3, 25, 27, 31, 51]), frames=st.integers(1, 40))
def test_split_depthwise_convolution_equals_the_whole(taps: int, frames: int) -> None:
    generator = torch.Generator().manual_seed(taps)
    weight = torch.randn((3, 1, taps), generator=generator)
    bias, x = torch.randn(3, generator=generator), torch.randn((1, 3, 1, frames))
    split = DepthwiseConvolution(weight, bias, split=True)
    whole = DepthwiseConvolution(weight, bias, split=False)

    with torch.no_grad():
        torch.testing.assert_close(split(x), whole(x), atol=1e-4, rtol=1e-4)
    assert (split.odd is not None) == (taps > 25)


def test_rms_normalize_is_a_layer_norm_of_centred_input() -> None:
    x = torch.randn(1, 5, 24) * 30
    x = x - x.mean(dim=-1, keepdim=True)
    norm = RmsNormalize(24, eps=1e-5)
    expected = nn.functional.layer_norm(x, (24,), eps=1e-5)

    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)
    norm.scale_input(1 / 16)
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def _fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
