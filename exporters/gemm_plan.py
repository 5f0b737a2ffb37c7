"""How to compute an encoder's linear layers in 8-bit integers, decided by measurement.

An activation is one u8 code, or two: the second holds what the first rounded away, and meets the
same weights in a second integer Gemm. Behind a convolution it is needed: a few large values leave
one u8 no steps for the many small ones (raw accelerations beside positions are the worst case, and
ruin every word if quantised naively). Which layers get two codes is measured on calibration
swipes, not listed: another checkpoint has other outliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from exporters.rounding import round_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from exporters.rewrite_onnx import LeanEncoder
    from exporters.smoothing import ChannelRange

STEPS = 255
"""Steps of a u8 code."""

TWO_CODE_HEADROOM = 4.0
"""Two codes have steps to spare. They go to what real swipes do beyond the calibration's extremes:
a clipped acceleration is the largest error that there is."""

ACTIVATION_SQNR_DB = 47.0
"""Layers get a second code, noisiest first, until the noise of all activations is this far down."""

PROBES = 4
"""Calibration swipes to measure with: a layer's noise differs by a few dB among swipes, the noise
of different layers by 30."""


_SWIPES_AT_ONCE = 16
"""Their layers' inputs are kept together: about 100 MB for a model of 14 M parameters."""


@dataclass(frozen=True, slots=True)
class GemmPlan:
    """How one linear layer is computed.

    Attributes:
        codes: (out, in) int8 weights.
        weight_scale: (out,) float32.
        activation_scale: Step of the first u8 code.
        zero_point: The first u8 code of 0.0.
        two_codes: A second code holds the first one's rounding error, in steps of 1/255.
    """

    codes: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    activation_scale: float
    zero_point: int
    two_codes: bool


def plan_gemms(
    encoder: LeanEncoder,
    ranges: Mapping[str, ChannelRange],
    swipes: Sequence[NDArray[np.float32]],
) -> dict[str, GemmPlan]:
    """Return a plan for every linear layer of the encoder, by the layer's name.

    Args:
        encoder: Smoothed; not changed.
        ranges: Of its layers' inputs.
        swipes: (F, T) float32 each: all for the weights' rounding, a few to measure with.
    """
    probes = swipes[:: -(-len(swipes) // PROBES)]
    noisy = noisy_layers(activation_noise(encoder, ranges, probes))
    grams = _grams(encoder, swipes)
    plans = {}
    for name, layer in encoder.linears():
        codes, weight_scale = round_weights(layer.weight, grams.pop(name))
        scale, zero_point = activation_grid(ranges[name], two_codes=name in noisy)
        plans[name] = GemmPlan(codes, weight_scale, scale, zero_point, name in noisy)
    return plans


def activation_grid(channels: ChannelRange, *, two_codes: bool) -> tuple[float, int]:
    """Return step and zero point of the (first) u8 code for what a layer's input reached."""
    lowest, highest = channels.of_tensor()
    headroom = TWO_CODE_HEADROOM if two_codes else 1.0
    spread = highest - lowest if highest > lowest else 1.0
    scale = float(np.float32(spread * headroom / STEPS))
    return scale, min(max(round(-lowest * headroom / scale), 0), STEPS)


def activation_noise(
    encoder: LeanEncoder,
    ranges: Mapping[str, ChannelRange],
    probes: Sequence[NDArray[np.float32]],
) -> dict[str, float]:
    """Return the noise-to-signal power at the encoder's output if one layer's input is one code."""
    exact = _outputs(encoder, probes)
    power = float(exact.square().sum())
    noise = {}
    for name, layer in encoder.linears():
        scale, zero_point = activation_grid(ranges[name], two_codes=False)
        handle = layer.register_forward_pre_hook(_coded(scale, zero_point))
        try:
            noise[name] = float((_outputs(encoder, probes) - exact).square().sum()) / power
        finally:
            handle.remove()
    return noise


def noisy_layers(noise: Mapping[str, float]) -> frozenset[str]:
    """Return the layers without whose noise the others' sum stays below ``ACTIVATION_SQNR_DB``."""
    allowed = 10.0 ** (-ACTIVATION_SQNR_DB / 10.0)
    total = sum(noise.values())
    chosen = []
    for name in sorted(noise, key=lambda name: -noise[name]):
        if total <= allowed:
            break
        chosen.append(name)
        total -= noise[name]
    return frozenset(chosen)


def _coded(
    scale: float, zero_point: int
) -> Callable[[object, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """Return a hook that rounds a layer's input as QuantizeLinear and DequantizeLinear do."""

    def hook(_module: object, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        codes = (torch.round(inputs[0] / scale) + zero_point).clamp(0, STEPS)
        return ((codes - zero_point) * scale,)

    return hook


def _outputs(encoder: LeanEncoder, swipes: Sequence[NDArray[np.float32]]) -> Tensor:
    """Return the encoder's outputs, (D, frames of all swipes)."""
    with torch.inference_mode():
        return torch.cat(
            [
                encoder(torch.from_numpy(swipe)[None], torch.tensor([swipe.shape[1]]))[0][0]
                for swipe in swipes
            ],
            dim=1,
        )


def _grams(encoder: LeanEncoder, swipes: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
    """Return the sum of ``x x^T`` over all frames of each layer's input, (in, in) float64."""
    grams: dict[str, Tensor] = {}
    for start in range(0, len(swipes), _SWIPES_AT_ONCE):
        inputs = layer_inputs(encoder, swipes[start : start + _SWIPES_AT_ONCE])
        for name, rows in inputs.items():
            # One product over many frames: adding to a wide layer's matrix costs more than it.
            product = rows.T @ rows
            grams[name] = grams[name].add_(product) if name in grams else product.double()
    return grams


def layer_inputs(encoder: LeanEncoder, swipes: Sequence[NDArray[np.float32]]) -> dict[str, Tensor]:
    """Return each linear layer's input on all frames of the swipes, (frames, in) float32."""
    pieces: dict[str, list[Tensor]] = {name: [] for name, _ in encoder.linears()}

    def recorder(piece: list[Tensor]) -> Callable[[object, tuple[Tensor, ...]], None]:
        return lambda _module, inputs: piece.append(inputs[0])

    handles = [
        layer.register_forward_pre_hook(recorder(pieces[name])) for name, layer in encoder.linears()
    ]
    try:
        _outputs(encoder, swipes)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(piece) for name, piece in pieces.items()}
