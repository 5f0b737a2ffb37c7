"""LayerNorm in operators that XNNPACK has: folded, or by a mean square of a centred stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.graphs.folding import centred_linear, copied_linear, fold_layer_norm

if TYPE_CHECKING:
    from exporters.xnnpack.options import RewriteOptions

HALF_INPUT_SCALE = 1.0 / 16.0
"""Residual streams reach some hundreds, whose square is beyond half precision's 65504."""


def normalize(norm: nn.LayerNorm, options: RewriteOptions) -> nn.Module:
    """Return a LayerNorm, less what ``fold_into`` folds into the layers that read it."""
    plain = plain_normalize(norm, options)
    if options.fold_layer_norm:
        return plain
    return nn.Sequential(plain, Affine(norm, centre=False))


def plain_normalize(norm: nn.LayerNorm, options: RewriteOptions) -> nn.Module:
    """Return a LayerNorm without gain and shift."""
    if options.layer_norm == "native":
        return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
    return RmsNormalize(norm.normalized_shape[0], norm.eps)


def fold_into(norm: nn.LayerNorm, linear: nn.Linear, options: RewriteOptions) -> nn.Linear:
    """Return the linear for what ``normalize`` gives."""
    return fold_layer_norm(norm, linear) if options.fold_layer_norm else copied_linear(linear)


def centre_output(linear: nn.Linear, options: RewriteOptions) -> nn.Linear:
    """Return the linear for a residual stream that is centred, if it is to be."""
    return centred_linear(linear) if options.layer_norm == "rms" else copied_linear(linear)


class RmsNormalize(nn.Module):
    """``normalize(x)`` of a LayerNorm whose input has zero mean already.

    Attributes:
        input_scale: Multiplied to the input first, which changes nothing in exact arithmetic; None
            for 1. In half precision the square of a residual stream beyond 256 overflows.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.input_scale: nn.Parameter | None = None
        self.eps = constant(eps)
        # A linear of one output, because XNNPACK takes a mean over the last two axes only.
        self.mean = fixed(torch.full((1, width), 1.0 / width))

    def scale_input(self, scale: float) -> None:
        """Set ``input_scale``, and the epsilon that goes with it."""
        self.input_scale = constant(scale)
        self.eps = constant(float(self.eps) * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (1, T', D)."""
        if self.input_scale is not None:
            x = x * self.input_scale
        mean_square = functional.linear(x * x, self.mean)
        return x * torch.rsqrt(mean_square + self.eps)


class Affine(nn.Module):
    """A LayerNorm's gain and shift; if centred, less the mean over the features."""

    def __init__(self, norm: nn.LayerNorm, *, centre: bool) -> None:
        super().__init__()
        gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
        if centre:
            shift = shift - shift.mean()
        self.gain, self.shift = fixed(gain.float()), fixed(shift.float())
        self.mean_gain: nn.Parameter | None = None
        if centre:
            self.mean_gain = fixed((gain / len(gain)).float().unsqueeze(0))

    def forward(self, x: Tensor) -> Tensor:
        """Return (1, T', D)."""
        y = x * self.gain + self.shift
        return y if self.mean_gain is None else y - functional.linear(x, self.mean_gain)


def fixed(values: Tensor) -> nn.Parameter:
    """Return a parameter that is not trained."""
    return nn.Parameter(values, requires_grad=False)


def constant(value: float) -> nn.Parameter:
    """Return (1, 1, 1): a number that halves with the module, where a literal would stay FP32."""
    return fixed(torch.full((1, 1, 1), value))
