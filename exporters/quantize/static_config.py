"""How to compute an encoder's linear layers in 8-bit integers, decided by measurement.

An activation is one u8 code, or two: the second holds the residual, what the first rounded away,
and meets the same weights in a second integer Gemm. Behind a convolution it is needed: a few large
values leave one u8 no steps for the many small ones (raw accelerations beside positions are the
worst case, and ruin every word if quantised naively). For which layers the residual is quantised
too is measured on calibration swipes, not listed: another checkpoint has other outliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from exporters.quantize.gptq import S8_PAIRS, Gptq, noisiest
from exporters.quantize.hessians import observe_hessians

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from exporters.ort.encoder_graph import OrtEncoder
    from exporters.quantize.smoothing import ChannelRange

STEPS = 255
"""Steps of a u8 code."""

HEADROOM = 1.25
"""How far beyond the calibration's extremes a code reaches: calibrated on 200 swipes, one of the
next 300 reaches 1.8 times as far in some layer of 1 of 14 checkpoints, and a clipped acceleration
is the largest error that there is. A factor h costs 20 log10 h dB in each layer, and layers that
become too noisy by it get a second code. Measured on five checkpoints, 1.25 lifts the worst swipe
by 0.7 to 3.2 dB and changes the mean by -0.2 to 0.7 dB and the time by up to 7 %; 1.5 is better on
two, worse on three."""

RESIDUAL_HEADROOM = 4.0
"""The same where code and residual have steps to spare."""

ACTIVATION_SQNR_DB = 47.0
"""Layers get a second code, noisiest first, until the noise of all inputs is this far down."""

PROBES = 4
"""Calibration swipes to measure with: a layer's noise differs by a few dB among swipes, the noise
of different layers by 30."""


@dataclass(frozen=True, slots=True)
class GemmConfig:
    """How one linear layer is computed.

    Attributes:
        codes: (out, in) int8 weights.
        weight_scale: (out,) float32.
        activation_scale: Step of the first u8 code.
        zero_point: The first u8 code of 0.0.
        residual: A second code holds the first one's rounding error, in steps of 1/255.
    """

    codes: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    activation_scale: float
    zero_point: int
    residual: bool


def configure_gemms(
    encoder: OrtEncoder,
    ranges: Mapping[str, ChannelRange],
    swipes: Sequence[NDArray[np.float32]],
) -> dict[str, GemmConfig]:
    """Return the configuration of every linear layer of the encoder, by the layer's name.

    Args:
        encoder: Smoothed; not changed.
        ranges: Of its layers' inputs.
        swipes: (F, T) float32 each: all for the weights' rounding, a few to measure with.
    """
    probes = swipes[:: -(-len(swipes) // PROBES)]
    noisy = noisiest(activation_noise(encoder, ranges, probes), ACTIVATION_SQNR_DB)
    hessians = observe_hessians(encoder.linears(), lambda: run_swipes(encoder, swipes))
    configs = {}
    for name, layer in encoder.linears():
        weight = Gptq(hessians.pop(name)).round(layer.weight, S8_PAIRS)
        grid = activation_grid(ranges[name], residual=name in noisy)
        configs[name] = GemmConfig(weight.codes, weight.scales[:, 0], *grid, name in noisy)
    return configs


def activation_grid(channels: ChannelRange, *, residual: bool) -> tuple[float, int]:
    """Return step and zero point of the (first) u8 code for what a layer's input reached."""
    lowest, highest = channels.of_tensor()
    headroom = RESIDUAL_HEADROOM if residual else HEADROOM
    spread = highest - lowest if highest > lowest else 1.0
    scale = float(np.float32(spread * headroom / STEPS))
    return scale, min(max(round(-lowest * headroom / scale), 0), STEPS)


def activation_noise(
    encoder: OrtEncoder,
    ranges: Mapping[str, ChannelRange],
    probes: Sequence[NDArray[np.float32]],
) -> dict[str, float]:
    """Return the noise-to-signal power at the encoder's output if one layer's input is one code."""
    exact = _outputs(encoder, probes)
    power = float(exact.square().sum())
    noise = {}
    for name, layer in encoder.linears():
        scale, zero_point = activation_grid(ranges[name], residual=False)
        handle = layer.register_forward_pre_hook(_coded(scale, zero_point))
        try:
            noise[name] = float((_outputs(encoder, probes) - exact).square().sum()) / power
        finally:
            handle.remove()
    return noise


def _coded(
    scale: float, zero_point: int
) -> Callable[[object, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Return a hook that rounds a layer's input as QuantizeLinear and DequantizeLinear do."""

    def hook(_module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        codes = (torch.round(inputs[0] / scale) + zero_point).clamp(0, STEPS)
        return ((codes - zero_point) * scale,)

    return hook


def run_swipes(encoder: OrtEncoder, swipes: Sequence[NDArray[np.float32]]) -> None:
    """Run the encoder for what its layers see; outputs of many swipes would fill the memory."""
    for swipe in swipes:
        encoder(torch.from_numpy(swipe)[None], torch.tensor([swipe.shape[1]]))


def _outputs(encoder: OrtEncoder, swipes: Sequence[NDArray[np.float32]]) -> Tensor:
    """Return the encoder's outputs, (D, frames of all swipes)."""
    with torch.inference_mode():
        return torch.cat(
            [
                encoder(torch.from_numpy(swipe)[None], torch.tensor([swipe.shape[1]]))[0][0]
                for swipe in swipes
            ],
            dim=1,
        )
