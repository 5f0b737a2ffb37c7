"""Weight-equivalent foldings: small pure functions that merge what a runtime would compute apart.

Each returns new tensors or layers computed in float64 and rounded once to float32; none changes
its arguments. ``normalize(x)`` below stands for ``(x - mean) / sqrt(variance + eps)`` over the last
axis, which is what a LayerNorm does before its affine part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_LARGEST_PERIOD = 10000.0
"""The sinusoids' base in "Attention is all you need", section 3.5; NeMo uses the same."""


def linear_layer(weight: Tensor, bias: Tensor | None = None) -> nn.Linear:
    """Return a float32 Linear that holds copies of these tensors.

    Args:
        weight: (out, in).
        bias: (out,), or None for a Linear without one.
    """
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None)
    layer.weight = _frozen(weight)
    if bias is not None:
        layer.bias = _frozen(bias)
    return layer


def bias_of(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> Tensor:
    """Return the layer's bias in float64: zeros where it has none."""
    if layer.bias is None:
        return torch.zeros(layer.weight.shape[0], dtype=torch.float64)
    return layer.bias.detach().double()


def weight_of(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> Tensor:
    """Return the layer's weight in float64."""
    return layer.weight.detach().double()


def copied_linear(linear: nn.Linear) -> nn.Linear:
    """Return a copy; it has a bias in any case."""
    return linear_layer(weight_of(linear), bias_of(linear))


def scaled_linear(linear: nn.Linear, factor: float) -> nn.Linear:
    """Return a Linear that computes ``factor * linear(x)``."""
    return linear_layer(weight_of(linear) * factor, bias_of(linear) * factor)


class Scale(nn.Module):
    """A multiplication that is not folded into the weights before it."""

    factor: Tensor

    def __init__(self, factor: float) -> None:
        """Keep the factor: in a tensor, since a number would stay in FP32."""
        super().__init__()
        self.register_buffer("factor", torch.tensor([factor]))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``factor * x``."""
        return x * self.factor


def times(linear: nn.Linear, factor: float, *, fold: bool) -> nn.Module:
    """Return a layer that computes ``factor * linear(x)``: a Linear, or one and a ``Scale``."""
    if fold:
        return scaled_linear(linear, factor)
    return nn.Sequential(copied_linear(linear), Scale(factor))


def pointwise_as_linear(conv: nn.Conv1d) -> nn.Linear:
    """Return the Linear over the last axis that equals a convolution of one tap over channels."""
    if conv.kernel_size != (1,) or conv.groups != 1:
        msg = f"kernel_size is {conv.kernel_size}, groups {conv.groups}; should be (1,) and 1"
        raise ValueError(msg)
    return linear_layer(weight_of(conv).squeeze(-1), bias_of(conv))


def fold_layer_norm(norm: nn.LayerNorm, linear: nn.Linear) -> nn.Linear:
    """Return a Linear with ``folded(normalize(x)) == linear(norm(x))``.

    ``W (g * n + b) + c == (W diag(g)) n + (W b + c)``.
    """
    weight = weight_of(linear)
    gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
    return linear_layer(weight * gain, bias_of(linear) + weight @ shift)


def centred_linear(linear: nn.Linear) -> nn.Linear:
    """Return a Linear whose output is ``linear(x)`` less its mean over the output features.

    A LayerNorm does not see the mean of its input; if everything that is added to the residual
    stream is centred, the stream's mean is zero and need not be computed.
    """
    weight, bias = weight_of(linear), bias_of(linear)
    return linear_layer(weight - weight.mean(dim=0), bias - bias.mean())


def linear_rows(linear: nn.Linear, start: int, stop: int) -> nn.Linear:
    """Return the Linear that computes the output features ``start`` to ``stop`` alone."""
    return linear_layer(weight_of(linear)[start:stop], bias_of(linear)[start:stop])


def stacked_linear(*linears: nn.Linear) -> nn.Linear:
    """Return one Linear whose output is the outputs of several over the same input, in order."""
    weights = torch.cat([weight_of(linear) for linear in linears])
    return linear_layer(weights, torch.cat([bias_of(linear) for linear in linears]))


def fold_batch_norm(conv: nn.Conv1d, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Fold a BatchNorm (running statistics) into the convolution before it.

    Returns:
        Weight (C, C/groups, taps) and bias (C,) float32 of a convolution with
        ``folded(x) == norm(conv(x))``.

    Raises:
        ValueError: The BatchNorm keeps no running statistics.
    """
    if norm.running_mean is None or norm.running_var is None:
        msg = "the BatchNorm keeps no running statistics, so it cannot be folded"
        raise ValueError(msg)
    scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = weight_of(conv) * scale[:, None, None]
    bias = (bias_of(conv) - norm.running_mean.double()) * scale + norm.bias.detach().double()
    return weight.float(), bias.float()


def batch_norm_2d(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    """Return the same BatchNorm over (B, C, H, W)."""
    copy = nn.BatchNorm2d(norm.num_features, eps=norm.eps)
    copy.load_state_dict(norm.state_dict())
    return copy.requires_grad_(requires_grad=False).eval()


def inverse_frequencies(d_model: int) -> Tensor:
    """Return (d_model / 2,) float64: angular frequency of each pair of position channels.

    Rounded to float32 first, as NeMo computes them: the difference grows with the position.
    """
    channels = torch.arange(0, d_model, 2, dtype=torch.float32)
    return torch.exp(channels * -(math.log(_LARGEST_PERIOD) / d_model)).double()


def relative_position_table(d_model: int, frames: int) -> Tensor:
    """Return NeMo's relative positional encoding of ``frames`` frames.

    Returns:
        (2 * frames - 1, d_model) float64; row ``i`` is relative position ``frames - 1 - i`` (query
        less key), sines in the even channels and cosines in the odd ones.
    """
    positions = torch.arange(frames - 1, -frames, -1, dtype=torch.float64)
    angles = positions[:, None] * inverse_frequencies(d_model)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def position_projection(linear_pos: nn.Linear, frames: int) -> Tensor:
    """Return (2 * frames - 1, D) float32: a layer's ``linear_pos`` of all relative positions."""
    table = relative_position_table(linear_pos.in_features, frames) @ weight_of(linear_pos).T
    return table.float()


@dataclass(frozen=True, slots=True)
class FrequencyBasis:
    """A few sinusoids that span all position channels over a bounded distance.

    For every integer ``|r| < frames``: ``cos(r w) == cos(r v) @ cosine_map`` and
    ``sin(r w) == sin(r v) @ sine_map``, where w are the model's frequencies and v this basis'.

    Attributes:
        frequencies: (M,) float64: v, chosen among w.
        cosine_map: (M, d_model / 2) float64.
        sine_map: (M, d_model / 2) float64.
        max_error: Largest absolute error of the two equations.
    """

    frequencies: Tensor
    cosine_map: Tensor
    sine_map: Tensor
    max_error: float


def frequency_basis(d_model: int, frames: int, *, tolerance: float) -> FrequencyBasis:
    """Compress the relative-position sinusoids for distances below ``frames``.

    Most of NeMo's frequencies are so low that they differ little over a short trace; the ones that
    a column-pivoted Gram-Schmidt picks first span the others.

    Args:
        d_model: Width of the positional encoding.
        frames: Number of frames; distances are ``1 - frames`` to ``frames - 1``.
        tolerance: Largest absolute error.
    """
    frequencies = inverse_frequencies(d_model)
    distances = torch.arange(frames, dtype=torch.float64)[:, None]
    cosines, sines = torch.cos(distances * frequencies), torch.sin(distances * frequencies)
    order = _pivots(torch.cat([cosines, sines]))
    for count in range(min(8, len(order)), len(order), 4):
        chosen = order[:count].sort().values
        basis = _basis_of(frequencies, cosines, sines, chosen, tolerance)
        # Large coefficients cancel each other, which float32 cannot do.
        largest = max(basis.cosine_map.abs().max().item(), basis.sine_map.abs().max().item())
        if basis.max_error < tolerance and largest < 4.0:
            return basis
    identity = torch.eye(len(order), dtype=torch.float64)
    return FrequencyBasis(frequencies, identity, identity, 0.0)


def _basis_of(
    frequencies: Tensor, cosines: Tensor, sines: Tensor, chosen: Tensor, tolerance: float
) -> FrequencyBasis:
    # The sines' first row is zero, and low frequencies are nearly dependent: what gelsd takes for
    # dependent (rcond) does not get large coefficients.
    cosine_map, sine_map = (
        torch.linalg.lstsq(of[:, chosen], of, rcond=tolerance / 100.0, driver="gelsd").solution
        for of in (cosines, sines)
    )
    errors = (
        (cosines[:, chosen] @ cosine_map - cosines).abs().max().item(),
        (sines[:, chosen] @ sine_map - sines).abs().max().item(),
    )
    return FrequencyBasis(frequencies[chosen], cosine_map, sine_map, max(errors))


def _pivots(columns: Tensor) -> Tensor:
    """Return column numbers by how much each adds to the span of those before it."""
    remaining = columns.clone()
    order: list[int] = []
    for _ in range(columns.shape[1]):
        norms = remaining.norm(dim=0)
        norms[order] = -1.0
        best = int(norms.argmax())
        order.append(best)
        if norms[best] > 0:
            direction = remaining[:, best] / norms[best]
            remaining = remaining - torch.outer(direction, direction @ remaining)
    return torch.tensor(order)


def _frozen(tensor: Tensor) -> nn.Parameter:
    copy = tensor.detach().to(torch.float32, copy=True).contiguous()
    return nn.Parameter(copy, requires_grad=False)
