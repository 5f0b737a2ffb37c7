"""The encoder rewritten for ONNX Runtime is NeMo's, whatever the configuration and the padding."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from exporters.ort.encoder_graph import OrtEncoder, OrtRewriteOptions
from exporters.ort.trace import trace_to_onnx
from exportgate.contract import IoContract, TensorSpec
from tests import nemo_encoders

if TYPE_CHECKING:
    import onnx

BOUND = 48


def sqnr_db(reference: Tensor, other: Tensor) -> float:
    error = (reference.double() - other.double()).square().sum()
    return float(10 * torch.log10(reference.double().square().sum() / error.clamp_min(1e-300)))


def nemo_encoder(**changes: object) -> Any:
    """Build a small encoder of nine channels."""
    return nemo_encoders.nemo_encoder(**({"feat_in": 9, "pos_emb_max_len": 24} | changes))


def traced(encoder: OrtEncoder, feature_dim: int = 9, width: int = 16) -> onnx.ModelProto:
    bft = TensorSpec("features_bft", "float32", ("B", feature_dim, "T"))
    bdt = TensorSpec("encoded_bdt", "float32", ("B", width, "T_out"))
    lengths = [TensorSpec(name, "int64", ("B",)) for name in ("lengths", "encoded_lengths")]
    contract = IoContract((bft, lengths[0]), (bdt, lengths[1]))
    example = (torch.zeros(2, feature_dim, BOUND), torch.tensor([BOUND, 9]))
    return trace_to_onnx(encoder, example, contract)


def fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256(str(module.training).encode())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        digest.update(f"{name} {tensor.requires_grad}".encode())
        digest.update(tensor.detach().numpy().tobytes())
    return digest.hexdigest()


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
        "conv_kernel_size": draw(st.sampled_from([1, 3, 9, 31])),
        "untie_biases": draw(st.booleans()),
        "xscaling": draw(st.booleans()),
        "use_bias": draw(st.booleans()),
    }


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=configurations(), data=st.data())
def test_rewrite_equals_nemo_on_a_padded_batch(config: dict[str, Any], data: st.DataObject) -> None:
    batch = data.draw(st.integers(1, 3), label="B")
    lengths = torch.tensor(
        data.draw(st.lists(st.integers(1, BOUND), min_size=batch, max_size=batch))
    )
    encoder = nemo_encoder(**config)
    rewritten = OrtEncoder(encoder, max_trace_len=BOUND)
    features = torch.randn(batch, config["feat_in"], int(lengths.max()))
    features[torch.arange(features.shape[2]) >= lengths[:, None, None].expand(features.shape)] = 1e3

    with torch.no_grad():
        reference, valid = encoder(audio_signal=features, length=lengths)
        encoded, encoded_lengths = rewritten(features, lengths)

    assert encoded.shape == reference.shape
    assert encoded_lengths.dtype == torch.int64
    assert encoded_lengths.tolist() == valid.tolist()
    for row, frames in enumerate(valid.tolist()):
        assert sqnr_db(reference[row, :, :frames], encoded[row, :, :frames]) >= 100.0


def each_left_out() -> list[OrtRewriteOptions]:
    return [
        OrtRewriteOptions(**{field.name: False}) for field in dataclasses.fields(OrtRewriteOptions)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("options", each_left_out(), ids=str)
def test_each_replacement_can_be_left_out(options: OrtRewriteOptions) -> None:
    encoder = nemo_encoder(n_layers=2)
    features, lengths = torch.randn(2, 9, 30), torch.tensor([30, 21])
    rewritten = OrtEncoder(encoder, max_trace_len=BOUND, options=options)
    with torch.no_grad():
        reference, valid = encoder(audio_signal=features, length=lengths)
        encoded, _ = rewritten(features, lengths)
    for row, frames in enumerate(valid.tolist()):
        assert sqnr_db(reference[row, :, :frames], encoded[row, :, :frames]) >= 100.0
    whole = traced(OrtEncoder(encoder, max_trace_len=BOUND))
    assert traced(rewritten).graph.node != whole.graph.node, "the switch changes nothing"


@pytest.mark.slow
def test_padding_changes_nothing_even_if_it_is_nan() -> None:
    encoder = OrtEncoder(nemo_encoder(n_layers=2), max_trace_len=BOUND)
    features, lengths = torch.randn(1, 9, 21), torch.tensor([21])
    padded = torch.nn.functional.pad(features, (0, 20), value=float("nan"))
    with torch.no_grad():
        alone, frames = encoder(features, lengths)
        beside, _ = encoder(padded, lengths)
    torch.testing.assert_close(beside[:, :, : int(frames)], alone, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("bound", [2, 5, 8, 31])
def test_a_trace_is_encoded_up_to_the_bound_and_refused_behind_it(bound: int, factor: int) -> None:
    encoder = nemo_encoder(subsampling_factor=factor)
    rewritten = OrtEncoder(encoder, max_trace_len=bound)
    features, length = torch.randn(1, 9, bound + 1), torch.tensor([bound])
    with torch.no_grad():
        reference, _ = encoder(audio_signal=features[:, :, :bound], length=length)
        assert sqnr_db(reference, rewritten(features[:, :, :bound], length)[0]) >= 100.0
        with pytest.raises(RuntimeError, match=r"invalid for input of size|must match the size"):
            rewritten(features, length + 1)


@pytest.mark.slow
def test_positions_beyond_nemos_own_buffer_are_made() -> None:
    encoder = nemo_encoder(subsampling_factor=2, pos_emb_max_len=8)
    before = encoder.pos_enc.pe.shape
    rewritten = OrtEncoder(encoder, max_trace_len=64)
    assert encoder.pos_enc.pe.shape == before
    features, lengths = torch.randn(1, 9, 64), torch.tensor([64])
    with torch.no_grad():
        # NeMo extends its buffer when it meets the longer trace.
        reference, _ = encoder(audio_signal=features, length=lengths)
        assert sqnr_db(reference, rewritten(features, lengths)[0]) >= 100.0


@pytest.mark.slow
def test_rewrite_shares_nothing_with_the_encoder() -> None:
    encoder = nemo_encoder()
    before = fingerprint(encoder)
    rewritten = OrtEncoder(encoder, max_trace_len=BOUND)
    with torch.no_grad():
        for tensor in [*rewritten.parameters(), *rewritten.buffers()]:
            tensor.zero_()
    assert fingerprint(encoder) == before


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(config=configurations())
def test_exported_graph_equals_nemo_at_every_length(config: dict[str, Any]) -> None:
    encoder = nemo_encoder(**config)
    model = traced(OrtEncoder(encoder, max_trace_len=BOUND), config["feat_in"], config["d_model"])
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for frames, batch in itertools.product((1, 2, 3, 5, 30, 31, BOUND), (1, 3)):
        features = torch.randn(batch, config["feat_in"], frames)
        valid = torch.tensor([frames, (frames + 1) // 2, 1][:batch])
        with torch.no_grad():
            reference, counts = encoder(audio_signal=features, length=valid)
        feed = {"features_bft": features.numpy(), "lengths": valid.numpy()}
        encoded, encoded_lengths = session.run(None, feed)
        assert encoded_lengths.tolist() == counts.tolist()
        for row, count in enumerate(counts.tolist()):
            difference = encoded[row, :, :count] - reference[row, :, :count].numpy()
            assert abs(difference).max() <= 1e-4
