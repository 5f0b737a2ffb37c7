"""Weights are rounded so that their layer's output suffers least."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporters.quantize.gptq import S4, S8, S8_PAIRS, Codes, Gptq, MatrixCodes, noisiest, pair_sums
from exporters.quantize.hessians import block_width, matrix_layers, observe_hessians


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    inputs=st.integers(1, 150),
    outputs=st.integers(1, 6),
    codes=st.sampled_from([S4, S8, S8_PAIRS]),
)
def test_rounding_of_uncorrelated_inputs_is_rounding_to_the_nearest(
    seed: int, inputs: int, outputs: int, codes: Codes
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs, generator=generator)
    found = Gptq(torch.eye(inputs, dtype=torch.float64)).round(weight, codes)
    rounded, scales = _tensors(found)
    assert rounded.dtype == torch.int8
    assert codes.lowest <= int(rounded.min())
    assert int(rounded.max()) <= codes.highest
    # With S4 the largest weight lies half a step beyond its code.
    assert float((rounded * scales - weight).abs().max()) <= float(scales.max()) * 0.5001
    if codes.pair is not None:
        assert _largest_pair(rounded) <= codes.pair


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 999),
    codes=st.sampled_from([S4, S8, S8_PAIRS]),
    groups=st.sampled_from([1, 5]),
)
def test_rounding_makes_up_for_errors_in_correlated_channels(
    seed: int, codes: Codes, groups: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(6, 160, generator=generator)
    x = torch.randn(500, 6, generator=generator) @ mixing
    x += 0.05 * torch.randn(x.shape, generator=generator)
    weight = torch.randn(8, 160, generator=generator)
    rounded, scales = _tensors(Gptq((x.T @ x).double()).round(weight, codes, group=160 // groups))
    assert scales.shape == (8, groups)
    steps = scales.repeat_interleave(160 // groups, dim=1)
    ours = rounded * steps
    nearest = (weight / steps).round().clamp(codes.lowest, codes.highest) * steps
    error, nearest_error = (
        float((x @ (found - weight).T).square().sum()) for found in (ours, nearest)
    )
    assert error <= 0.5 * nearest_error


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), inputs=st.integers(2, 150), large=st.floats(1.0, 20.0))
def test_pairs_keep_to_their_sum_however_inputs_are_correlated(
    seed: int, inputs: int, large: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, inputs, generator=generator)
    weight[:, :2] *= large  # where the step is decided
    x = torch.randn(300, 4, generator=generator) @ torch.randn(4, inputs, generator=generator)
    rounded, _ = _tensors(Gptq((x.T @ x).double()).round(weight, S8_PAIRS))
    assert _largest_pair(rounded) <= 128
    assert 255 * _largest_pair(rounded) < 2**15
    assert _largest_pair(rounded) >= 120, "steps are coarser than they need to be"


def _tensors(found: MatrixCodes) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(found.codes), torch.from_numpy(found.scales)


def _largest_pair(codes: torch.Tensor) -> int:
    return int(pair_sums(codes.int()).max())


def test_a_layer_of_zeros_is_rounded_to_zeros() -> None:
    found = Gptq(torch.zeros(4, 4, dtype=torch.float64)).round(torch.zeros(3, 4), S8_PAIRS)
    assert not found.codes.any()
    assert (found.scales > 0).all()


@pytest.mark.parametrize("rows", [1, 2047, 5000])
def test_grams_are_sums_over_all_rows(rows: int) -> None:
    module = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 1))
    assert [name for name, _ in matrix_layers(module)] == ["0"]
    x = torch.randn(rows, 1, 5, generator=torch.Generator().manual_seed(0))
    hessians = observe_hessians(
        matrix_layers(module), lambda: [module(part) for part in x.split(700)]
    )
    flat = x[:, 0].double()
    torch.testing.assert_close(hessians["0"][0], flat.T @ flat, rtol=1e-4, atol=1e-3)
    assert not module[0]._forward_pre_hooks


@given(st.dictionaries(st.text("ab", max_size=4), st.floats(0, 1e-2), max_size=8))
def test_the_noisiest_layers_are_chosen_and_no_more_than_needed(noise: dict[str, float]) -> None:
    chosen = noisiest(noise, sqnr_db=47.0)
    rest = {name: value for name, value in noise.items() if name not in chosen}
    allowed = 10**-4.7
    assert sum(rest.values()) <= allowed * 1.000001
    if chosen:
        least = min(noise[name] for name in chosen)
        assert sum(rest.values()) + least > allowed
        assert least >= max(rest.values(), default=0.0)


@given(st.integers(1, 40_000))
def test_a_layers_sums_are_bounded_however_wide_it_is(inputs: int) -> None:
    width = block_width(inputs)
    assert width * min(width, inputs) * 8 <= 128 << 20
    assert width == inputs or width % 2 == 0, "a pair of inputs would fall into two blocks"
    total = sum(part * part * 8 for part in [width] * (inputs // width) + [inputs % width])
    assert total <= 640 << 20


def test_a_wide_front_end_takes_little_memory_and_is_still_rounded_well() -> None:
    """10,240 inputs: one matrix of sums takes 840 MB, and its factor as much again, twice."""
    layer = nn.Linear(10_240, 2, bias=False)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 6, generator=generator) @ torch.randn(6, 10_240, generator=generator)
    (blocks,) = observe_hessians([("front", layer)], lambda: layer(x)).values()
    assert [len(block) for block in blocks] == [2048] * 5
    assert sum(block.numel() * 8 for block in blocks) <= 200 << 20
    weight = layer.weight.detach()
    found = Gptq(blocks).round(weight, S8_PAIRS)
    assert blocks == [], "the sums are dropped while they are used"
    rounded, scales = _tensors(found)
    assert _largest_pair(rounded) <= 128
    nearest = (weight / scales).round().clamp(-127, 127) * scales
    error, nearest_error = (
        float((x @ (matrix - weight).T).square().sum()) for matrix in (rounded * scales, nearest)
    )
    assert error <= 0.1 * nearest_error


@settings(max_examples=10)
@given(inputs=st.integers(3, 40), codes=st.sampled_from([S4, S8, S8_PAIRS]))
def test_blocks_of_unrelated_inputs_are_rounded_as_one(inputs: int, codes: Codes) -> None:
    generator = torch.Generator().manual_seed(inputs)
    x = torch.randn(90, inputs, generator=generator).double()
    half = inputs // 2 // 2 * 2 or 2
    whole = x.T @ x
    whole[:half, half:] = 0.0
    whole[half:, :half] = 0.0
    weight = torch.randn(5, inputs, generator=generator)
    blocks = [whole[:half, :half].clone(), whole[half:, half:].clone()]
    one, two = (Gptq(each).round(weight, codes) for each in (whole, blocks))
    # The damping is a share of each block's own mean.
    assert int(abs(one.codes.astype(int) - two.codes.astype(int)).max()) <= 1
