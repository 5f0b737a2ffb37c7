"""What a decoding step sees while it decodes calibration swipes, and which of its layers suffer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from exporters.quantize.gptq import matrix_layers, noisiest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from exporters.graphs.step import StepGraph
    from exporters.nemo.checkpoint import Checkpoint

_SWIPES = 32
_SYMBOLS_PER_FRAME = 2
"""Of a trained model's steps few emit more; an untrained one emits without end."""

_STEPS = 255
_ACTIVATION_SQNR_DB = 56.0
"""A second code costs a step a tenth of its time. Layers get one, noisiest first, until the
noise of all inputs is this far down."""


class Steps(NamedTuple):
    """Inputs of many steps, as ``StepGraph.forward`` takes them.

    Attributes:
        y_prev: (N,) int64.
        h0: (L, N, H) float32.
        c0: (L, N, H) float32.
        enc_t: (N, D) float32.
    """

    y_prev: Tensor
    h0: Tensor
    c0: Tensor
    enc_t: Tensor


def nemo_encoding(checkpoint: Checkpoint, features: NDArray[np.float32]) -> Tensor:
    """Return NeMo's encoder's output for one swipe.

    Args:
        checkpoint: The model.
        features: (F, T) float32.

    Returns:
        (D, T') float32.
    """
    with torch.inference_mode():
        encoded, lengths = checkpoint.model.forward(
            processed_signal=torch.from_numpy(features)[None],
            processed_signal_length=torch.tensor([features.shape[1]]),
        )
    valid: Tensor = encoded[0, :, : int(lengths[0])]
    return valid


def observe_steps(
    checkpoint: Checkpoint, step: StepGraph, swipes: Sequence[NDArray[np.float32]]
) -> Steps:
    """Decode swipes greedily and return each step's inputs.

    Args:
        checkpoint: The model; its encoder gives the frames.
        step: Its step in FP32.
        swipes: (F, T) float32 each; some of them, spread evenly, are decoded.
    """
    take = min(_SWIPES, len(swipes))
    chosen = [swipes[index * len(swipes) // take] for index in range(take)]
    seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with torch.inference_mode():
        for swipe in chosen:
            seen += _decode(checkpoint, step, nemo_encoding(checkpoint, swipe).T)
    labels, h, c, frames = zip(*seen, strict=True)
    return Steps(torch.cat(labels), torch.cat(h, dim=1), torch.cat(c, dim=1), torch.cat(frames))


def _decode(
    checkpoint: Checkpoint, step: StepGraph, frames: Tensor
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    spec = checkpoint.spec
    h = c = torch.zeros(spec.pred_layers, 1, spec.pred_hidden)
    label, seen = torch.tensor([spec.blank_id]), []
    for frame in frames[:, None]:
        for _ in range(_SYMBOLS_PER_FRAME):
            seen.append((label, h, c, frame))
            logits, next_h, next_c = step(label, h, c, frame)
            best = logits.argmax(dim=1)
            if int(best) == spec.blank_id:
                break
            label, h, c = best, next_h, next_c
    return seen


def noisy_inputs(step: StepGraph, steps: Steps) -> frozenset[str]:
    """Return the layers whose input should not be one u8 code: by measurement of the logits."""
    exact = _logits(step, steps)
    power = float(exact.square().sum())
    noise = {}
    for name, layer in matrix_layers(step):
        handle = layer.register_forward_pre_hook(_as_one_code)
        try:
            noise[name] = float((_logits(step, steps) - exact).square().sum()) / power
        finally:
            handle.remove()
    return noisiest(noise, _ACTIVATION_SQNR_DB)


def _logits(step: StepGraph, steps: Steps) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = step(*steps)[0]
    return logits


def _as_one_code(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Round a layer's input as DynamicQuantizeLinear does, each step for itself."""
    lowest = inputs[0].amin(dim=-1, keepdim=True).clamp(max=0.0)
    highest = inputs[0].amax(dim=-1, keepdim=True).clamp(min=0.0)
    scale = ((highest - lowest) / _STEPS).clamp(min=1e-12)
    zero_point = (-lowest / scale).round()
    codes = ((inputs[0] / scale).round() + zero_point).clamp(0, _STEPS)
    return ((codes - zero_point) * scale,)
