"""NeMo's relative-position attention for XNNPACK, which has no relative shift."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from exporters.graphs.folding import (
    FrequencyBasis,
    Scale,
    bias_of,
    frequency_basis,
    inverse_frequencies,
    linear_layer,
    weight_of,
)
from exporters.xnnpack.norms import centre_output, fixed, fold_into

if TYPE_CHECKING:
    from exporters.xnnpack.options import RewriteOptions


class Positions(nn.Module):
    """Sines and cosines of absolute positions, from which attention makes relative ones."""

    frequencies: Tensor

    def __init__(self, encoder: Any, frames: int, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.basis: FrequencyBasis | None = None
        frequencies = inverse_frequencies(encoder.d_model)
        if options.compress_positions:
            self.basis = frequency_basis(encoder.d_model, frames, tolerance=options.position_error)
            frequencies = self.basis.frequencies
        self.register_buffer("frequencies", frequencies.float().view(1, 1, -1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return sines and cosines (1, T', M) of the frame numbers (1, T', 1)."""
        angles = frames * self.frequencies
        return torch.sin(angles), torch.cos(angles)


class Table(nn.Module):
    """Numbers that are computed with as they are; quantized, another module takes its place."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = fixed(values.float().contiguous())

    def forward(self) -> Tensor:
        """Return them."""
        return self.values


class Attention(nn.Module):
    """Self-attention with relative positions (Transformer-XL, appendix B), without a shift.

    A score is ``(q + u) k + (q + v) W_pos p(i - j)`` over the root of the head's width. With
    ``a`` and ``b`` the products of ``q + v`` with the columns of ``W_pos`` for sines and cosines,
    the second part is ``(a sin_i + b cos_i) cos_j + (b sin_i - a cos_i) sin_j``.
    """

    def __init__(
        self,
        attention: Any,  # noqa: ANN401 - NeMo has no types
        norm: nn.LayerNorm,
        basis: FrequencyBasis | None,
        options: RewriteOptions,
    ) -> None:
        super().__init__()
        self.heads, self.head_width = attention.h, attention.d_k
        content = attention.pos_bias_u.detach().double().flatten()
        position = attention.pos_bias_v.detach().double().flatten()
        columns = weight_of(attention.linear_pos).view(self.heads, self.head_width, -1)
        sines, cosines = columns[:, :, 0::2], columns[:, :, 1::2]
        if basis is not None:
            sines, cosines = sines @ basis.sine_map.T, cosines @ basis.cosine_map.T
        # One step then suits all columns: what a channel's are divided by goes to the query.
        absmax = _balanced_absmax(torch.cat([sines, cosines], dim=2))
        self.sine_columns = Table(sines / absmax)
        self.cosine_columns = Table(cosines / absmax)
        query, absmax = fold_into(norm, attention.linear_q, options), absmax.flatten()
        factor = 1.0 / math.sqrt(self.head_width)
        self.scale = nn.Identity() if options.fold_constants else Scale(factor)
        scale = absmax * factor if options.fold_constants else absmax
        self.query = _scaled_rows(linear_layer(weight_of(query), bias_of(query) + content), scale)
        self.key = _scaled_rows(fold_into(norm, attention.linear_k, options), 1.0 / absmax)
        self.value = fold_into(norm, attention.linear_v, options)
        self.out = centre_output(attention.linear_out, options)
        difference = ((position - content) * scale).float()
        self.position_bias = fixed(difference)

    def forward(self, x: Tensor, score_mask: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
        """Return (1, T', D).

        Args:
            x: (1, T', D), normalized.
            score_mask: (1, 1, T'): 0 at valid frames, else what their scores are lowered by.
            tables: Sines and cosines (1, T', M), and both transposed, (heads, M, T').
        """
        sine, cosine, key_sine, key_cosine = tables
        query = self.query(x)
        key = self.key(x).view(-1, self.heads, self.head_width).permute(1, 2, 0)
        scores = torch.bmm(self._per_head(query), key)
        shifted = self._per_head(query + self.position_bias)
        a, b = torch.bmm(shifted, self.sine_columns()), torch.bmm(shifted, self.cosine_columns())
        scores = scores + torch.bmm(a * sine + b * cosine, key_cosine)
        scores = scores + torch.bmm(b * sine - a * cosine, key_sine)
        weights = torch.softmax(self.scale(scores) + score_mask, dim=-1)
        mixed = torch.bmm(weights, self._per_head(self.value(x)))
        width = self.heads * self.head_width
        out: Tensor = self.out(mixed.permute(1, 0, 2).contiguous().view(1, -1, width))
        return out

    def _per_head(self, x: Tensor) -> Tensor:
        """Return (heads, T', head width) from (1, T', D)."""
        return x.view(-1, self.heads, self.head_width).permute(1, 0, 2)


def _scaled_rows(linear: nn.Linear, scale: Tensor) -> nn.Linear:
    return linear_layer(weight_of(linear) * scale[:, None], bias_of(linear) * scale)


def _balanced_absmax(columns: Tensor) -> Tensor:
    """Return (heads, head width, 1): largest magnitude of each channel, of geometric mean 1.

    Factors are cut at 16: the query, which takes them, may be in half precision.
    """
    absmax = columns.abs().amax(dim=2, keepdim=True).clamp_min(1e-12)
    return (absmax / absmax.log().mean().exp()).clamp(1 / 16, 16.0)
