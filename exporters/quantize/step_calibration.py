"""What a decoding step sees while it decodes calibration swipes, and which of its layers suffer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from exporters.quantize.gptq import noisiest
from exporters.quantize.hessians import matrix_layers
from exportgate.transducer import Transducer, follow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    rules = replace(Transducer.of(checkpoint.spec), max_symbols=_SYMBOLS_PER_FRAME)
    seen = [
        call.inputs
        for swipe in chosen
        for call in follow(
            _TorchStep(step), [nemo_encoding(checkpoint, swipe).numpy()], checkpoint.spec, rules
        )
    ]

    def joined(name: str, axis: int) -> Tensor:
        return torch.from_numpy(np.concatenate([inputs[name] for inputs in seen], axis=axis))

    return Steps(joined("y_prev", 0), joined("h0", 1), joined("c0", 1), joined("enc_t", 0))


class _TorchStep:
    """A graph that is not exported yet, called with named arrays."""

    def __init__(self, graph: StepGraph) -> None:
        self._graph = graph

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            outputs = self._graph(*(torch.from_numpy(inputs[name]) for name in Steps._fields))
        return {
            name: output.numpy()
            for name, output in zip(("logits", "h1", "c1"), outputs, strict=True)
        }


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
