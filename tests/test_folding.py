"""The foldings change no function: each is compared with what it replaces."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from exporters.graphs.folding import (
    centred_linear,
    fold_batch_norm,
    fold_layer_norm,
    frequency_basis,
    inverse_frequencies,
    linear_rows,
    pointwise_as_linear,
    position_projection,
    relative_position_table,
    scaled_linear,
    stacked_linear,
)

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(inputs * 100 + outputs)
    return nn.Linear(inputs, outputs, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
def test_fold_layer_norm_moves_gain_and_shift_into_the_linear(bias: bool) -> None:
    layer, norm, x = linear(12, 5, bias=bias), nn.LayerNorm(12), torch.randn(4, 12)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    normalized = nn.functional.layer_norm(x, (12,), eps=norm.eps)

    torch.testing.assert_close(fold_layer_norm(norm, layer)(normalized), layer(norm(x)), **CLOSE)


def test_centred_linear_removes_the_mean_that_a_layer_norm_does_not_see() -> None:
    layer, x = linear(6, 8), torch.randn(3, 6)
    out, centred = layer(x), centred_linear(layer)(x)

    torch.testing.assert_close(centred, out - out.mean(dim=-1, keepdim=True), **CLOSE)
    assert not torch.allclose(out, centred), "the mean was zero, so the test shows nothing"


@pytest.mark.parametrize("bias", [True, False])
def test_fold_batch_norm_uses_the_running_statistics(bias: bool) -> None:
    torch.manual_seed(1)
    conv, norm = nn.Conv1d(6, 6, 5, groups=6, bias=bias), nn.BatchNorm1d(6).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.2, 3.0)
    x = torch.randn(2, 6, 9)
    weight, shift = fold_batch_norm(conv, norm)

    folded = nn.functional.conv1d(x, weight, shift, groups=6)
    torch.testing.assert_close(folded, norm(conv(x)), **CLOSE)


def test_fold_batch_norm_refuses_one_without_statistics() -> None:
    with pytest.raises(ValueError, match="running statistics"):
        fold_batch_norm(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2, track_running_stats=False))


def test_linears_can_be_scaled_cut_and_stacked() -> None:
    layer, x = linear(4, 6), torch.randn(2, 4)
    halves = linear_rows(layer, 0, 3), linear_rows(layer, 3, 6)

    torch.testing.assert_close(stacked_linear(*halves)(x), layer(x))
    torch.testing.assert_close(scaled_linear(layer, 0.5)(x), layer(x) * 0.5)


def test_pointwise_as_linear_is_the_convolution_over_the_last_axis() -> None:
    conv, x = nn.Conv1d(3, 5, 1), torch.randn(2, 3, 7)
    torch.testing.assert_close(pointwise_as_linear(conv)(x.mT), conv(x).mT, **CLOSE)
    with pytest.raises(ValueError, match="kernel_size"):
        pointwise_as_linear(nn.Conv1d(3, 5, 3))


def test_folding_shares_no_tensor_with_what_it_folds() -> None:
    layer = linear(4, 4)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        stacked_linear(layer).weight.zero_()
        scaled_linear(layer, 1.0).weight.zero_()
    torch.testing.assert_close(layer.weight.detach(), before)


@given(
    d_model=st.sampled_from([4, 12, 96, 256]),
    frames=st.integers(1, 120),
    tolerance=st.sampled_from([1e-9, 1e-6, 1e-4]),
)
def test_frequency_basis_spans_every_channel_at_every_distance(
    d_model: int, frames: int, tolerance: float
) -> None:
    basis = frequency_basis(d_model, frames, tolerance=tolerance)
    assert max(basis.sine_map.abs().max(), basis.cosine_map.abs().max()) < 4.0
    distances = torch.arange(1 - frames, frames, dtype=torch.float64)[:, None]
    wanted, chosen = distances * inverse_frequencies(d_model), distances * basis.frequencies

    sines, cosines = torch.sin(chosen) @ basis.sine_map, torch.cos(chosen) @ basis.cosine_map
    torch.testing.assert_close(sines, torch.sin(wanted), atol=tolerance, rtol=0)
    torch.testing.assert_close(cosines, torch.cos(wanted), atol=tolerance, rtol=0)


def test_frequency_basis_is_smaller_for_short_traces() -> None:
    sizes = [
        len(frequency_basis(256, frames, tolerance=1e-6).frequencies) for frames in (25, 100, 400)
    ]
    assert sizes[0] < sizes[1] < sizes[2] < 128


def test_frequency_basis_is_smaller_for_a_larger_error() -> None:
    sizes = [len(frequency_basis(256, 100, tolerance=10.0**-n).frequencies) for n in (10, 6)]
    assert sizes == [36, 32]


def test_relative_position_table_is_in_the_order_of_nemo() -> None:
    table = relative_position_table(8, frames=3)
    assert table.shape == (5, 8)
    torch.testing.assert_close(table[2], torch.tensor([0.0, 1.0] * 4, dtype=torch.float64))
    assert table[0, 0].item() == pytest.approx(0.9092974, abs=1e-6), "sin(+2) should come first"


def test_position_projection_is_linear_pos_of_the_table() -> None:
    layer = linear(8, 8, bias=False)
    expected = layer(relative_position_table(8, frames=4).float())
    torch.testing.assert_close(position_projection(layer, frames=4), expected, **CLOSE)
