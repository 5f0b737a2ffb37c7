"""An encoder whose layers can be stored in any way, run without being exported.

What is exported multiplies the same integers: weights and steps are those that the exporter writes,
and inputs are rounded by the same operators.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from exporters.quantize.hessians import matrix_layers
from exporters.recipes import LayerChoice
from exporters.xnnpack.attention import Table
from exporters.xnnpack.encoder_graph import XnnpackEncoder, rewrite_encoder
from exporters.xnnpack.to_pte import quantization, quiet_and_reproducible
from harness.measure.expected.each import each
from harness.search.space import BASE, Layer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.quantize.gptq import Gptq, MatrixCodes


@dataclass(repr=False)
class Lab:
    """The rewritten encoder of a checkpoint, and the integers of its layers.

    Attributes:
        alpha: How much of a channel's range moves into the front end's weights.
        encoder: Smoothed by it, in FP32.
    """

    alpha: float
    encoder: XnnpackEncoder
    _rounders: dict[str, tuple[Gptq, Gptq]]
    _codes: dict[tuple[str, LayerChoice], MatrixCodes] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        swipes: Sequence[NDArray[np.float32]],
        max_trace_len: int,
        alpha: float,
    ) -> Lab:
        """Rewrite an encoder and observe the calibration swipes."""
        encoder = rewrite_encoder(checkpoint.model.encoder, max_trace_len=max_trace_len)
        with quiet_and_reproducible():
            _, hessians = quantization().observe_encoder(encoder, swipes, alpha)
        gptq_of = quantization().gptq_of
        rounders = {}
        for name in [name for name, _ in matrix_layers(encoder)]:
            blocks = hessians.pop(name)
            nearest = gptq_of(LayerChoice(8, gptq=False), blocks)
            rounders[name] = (gptq_of(BASE, blocks), nearest)
        return cls(alpha, encoder, rounders)

    def layers(self) -> list[Layer]:
        """Return the layers that there is a choice for."""
        return [
            Layer(name, layer.out_features, layer.in_features)
            for name, layer in matrix_layers(self.encoder)
        ]

    def outputs(
        self, chosen: Mapping[str, LayerChoice], features: Sequence[NDArray[np.float32]]
    ) -> list[NDArray[np.float32]]:
        """Return the (D, T') encoding of each swipe, (F, T), if the layers are stored so."""
        encoder = self._stored(chosen)
        return each(lambda item: _encode(encoder, item), features)

    def exact(self, features: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the encodings in FP32."""
        return each(lambda item: _encode(self.encoder, item), features)

    def noise(
        self,
        several: Sequence[Mapping[str, LayerChoice]],
        features: Sequence[NDArray[np.float32]],
        exact: Sequence[NDArray[np.float32]],
    ) -> list[float]:
        """Return the noise-to-signal power at the output for each of several ways to store it."""
        for chosen in several:
            for name, choice in chosen.items():
                self._round(name, choice)  # here, so that every process inherits it
        power = sum(float(np.square(item, dtype=np.float64).sum()) for item in exact)

        def one(chosen: Mapping[str, LayerChoice]) -> float:
            encoder = self._stored(chosen)
            pairs = zip((_encode(encoder, item) for item in features), exact, strict=True)
            return sum(float(((a - b).astype(np.float64) ** 2).sum()) for a, b in pairs) / power

        return each(one, several)

    def _round(self, name: str, choice: LayerChoice) -> MatrixCodes | None:
        if choice.bits == 32:
            return None
        if (name, choice) not in self._codes:
            gptq, nearest = self._rounders[name]
            layer: Any = self.encoder.get_submodule(name)
            weight = layer.weight.detach()
            codes = quantization().codes_of_bits(choice.bits)
            rounder = gptq if choice.gptq else nearest
            self._codes[name, choice] = rounder.round(weight, codes, group=choice.group)
        return self._codes[name, choice]

    def _stored(self, chosen: Mapping[str, LayerChoice]) -> XnnpackEncoder:
        encoder = copy.deepcopy(self.encoder)
        for name, choice in chosen.items():
            codes = self._round(name, choice)
            if codes is not None:
                layer: Any = encoder.get_submodule(name)
                encoder.set_submodule(name, _Emulated(layer, codes))
        for table in encoder.modules():
            if isinstance(table, Table):
                step = max(float(table.values.abs().max()) / 127, 1e-12)
                table.values.copy_((table.values / step).round() * step)
        return encoder


class _Emulated(nn.Module):
    """A linear of integer weights, which are multiplied as the real numbers that they stand for."""

    def __init__(self, linear: nn.Linear, weight: MatrixCodes) -> None:
        super().__init__()
        steps = weight.scales.repeat(weight.codes.shape[1] // weight.scales.shape[1], axis=1)
        if weight.group is not None:  # of groups they are stored as bfloat16
            steps = torch.from_numpy(steps).bfloat16().float().numpy()
        self.in_features = linear.in_features
        self.weight = torch.from_numpy(weight.codes * steps)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        ops = torch.ops.quantized_decomposed
        grid = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
        codes = ops.quantize_per_token(x, *grid, -128, 127, torch.int8)
        x = ops.dequantize_per_token(codes, *grid, -128, 127, torch.int8, torch.float32)
        return nn.functional.linear(x, self.weight, self.bias)


def _encode(encoder: XnnpackEncoder, item: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        encoded, lengths = encoder(torch.from_numpy(item)[None], torch.tensor([item.shape[1]]))
    valid: NDArray[np.float32] = encoded[0, :, : int(lengths[0])].numpy()
    return valid
