"""NeMo's ConformerEncoder, rewritten weight by weight for ONNX Runtime.

Same function, fewer and faster operators. Each change is exact up to rounding:

- activations are (B * T', D), so that every linear layer is one Gemm with its bias inside;
- queries, keys and values come out of one Gemm, the content bias inside it; pointwise convolutions
  are Gemms too;
- 0.5 of the feed-forwards, 1 / sqrt(d_k), the input's sqrt(D) and BatchNorm go into the weights;
- ``linear_pos`` of the sinusoids is a table per block, cut to the longest trace: NeMo's buffer of
  5000 positions alone is 10 MB at D = 256, and its projection is paid for at each call;
- the table has one more row in front, which takes the place of the padding in the relative shift
  (Transformer-XL, arXiv:1901.02860, appendix B);
- the depthwise convolution is two-dimensional of height 1, and channels are the last axis before
  and after every convolution: ONNX Runtime's own layout of 4 axes then is one copy away;
- parts are split at constant places, and lengths are calculated: no node asks for a shape twice;
- masked keys get a large negative number added, instead of two fills of the scores.

Frames behind a swipe's length hold other garbage than NeMo's; neither is ever to be read.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor, nn

from exporters.graphs.folding import (
    Scale,
    batch_norm_2d,
    bias_of,
    copied_linear,
    fold_batch_norm,
    linear_layer,
    pointwise_as_linear,
    scaled_linear,
    stacked_linear,
    times,
    weight_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MASKED = -1e9
"""Added to the attention score of a masked key: its softmax is an exact zero."""


@dataclass(frozen=True, slots=True)
class OrtRewriteOptions:
    """What the rewrite replaces; each switch exists to measure what it buys.

    Attributes:
        flat: Activations are (B * T', D), else (B, T', D).
        stacked: One Gemm gives queries, keys and values, else three.
        fold_constants: 0.5, 1 / sqrt(d_k) and sqrt(D) are in the weights, else multiplied.
        fold_batch_norm: BatchNorm is in the depthwise weights, else a layer.
        position_tables: ``linear_pos`` of the sinusoids is stored, else computed at each call.
        planar: Depthwise convolutions have 4 axes, else 3.
        additive_mask: Masked keys get a large negative number added, else are filled twice.
    """

    flat: bool = True
    stacked: bool = True
    fold_constants: bool = True
    fold_batch_norm: bool = True
    position_tables: bool = True
    planar: bool = True
    additive_mask: bool = True


class OrtEncoder(nn.Module):
    """The rewritten encoder: (B, F, T) float32 and (B,) int64 to (B, D, T') and (B,) int64.

    It fails where T exceeds ``max_trace_len``: the positions that it holds end there.
    """

    def __init__(
        self,
        encoder: Any,  # noqa: ANN401 - NeMo: no types
        *,
        max_trace_len: int,
        options: OrtRewriteOptions | None = None,
    ) -> None:
        """Copy the weights of a NeMo ``ConformerEncoder``, which stays as it is.

        Args:
            encoder: In evaluation mode, of a kind that ``load_checkpoint`` accepts.
            max_trace_len: Largest T.
            options: What to replace; everything by default.
        """
        super().__init__()
        self.options = options or OrtRewriteOptions()
        positions = _relative_positions(encoder, -(-max_trace_len // encoder.subsampling_factor))
        self.front_end = FrontEnd(encoder, max_trace_len, self.options)
        self.blocks = nn.ModuleList(
            OrtBlock(layer, positions, self.options) for layer in encoder.layers
        )
        self.eval()
        self.requires_grad_(requires_grad=False)

    def forward(self, features_bft: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a batch of swipes, each valid up to its length."""
        batch = features_bft.shape[0]
        x, valid, encoded_lengths = self.front_end(features_bft, lengths)
        frames = valid.shape[1]
        key_mask = (1.0 - valid).reshape(batch, 1, 1, frames)
        key_mask = key_mask * MASKED if self.options.additive_mask else key_mask > 0
        frame_mask = valid.reshape(batch * frames, 1)
        if not self.options.flat:
            x, frame_mask = x.reshape(batch, frames, -1), valid.unsqueeze(2)
        for block in self.blocks:
            x = block(x, key_mask, frame_mask)
        return x.reshape(batch, frames, -1).transpose(1, 2), encoded_lengths

    def conformer_blocks(self) -> Iterator[OrtBlock]:
        """Yield the blocks in order."""
        for block in self.blocks:
            yield cast("OrtBlock", block)  # a ModuleList forgets the type of its items

    def linears(self) -> Iterator[tuple[str, nn.Linear]]:
        """Yield the layers that become Gemms, by name, in the order of the computation."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                yield name, module


class FrontEnd(nn.Module):
    """Subsampling: strided convolutions over time and channels, then a linear layer."""

    frame_numbers: Tensor
    out_scale: Tensor

    def __init__(self, encoder: Any, max_trace_len: int, options: OrtRewriteOptions) -> None:  # noqa: ANN401
        """Copy ``pre_encode``; its linear layer takes the input's sqrt(D) if the model has it."""
        super().__init__()
        self.convs = nn.ModuleList(
            copy.deepcopy(layer) for layer in encoder.pre_encode.conv if not _is_relu(layer)
        )
        self.relu_after = [
            _is_relu(following)
            for layer, following in zip(
                encoder.pre_encode.conv, [*encoder.pre_encode.conv][1:], strict=False
            )
            if not _is_relu(layer)
        ]
        out = _channels_last(encoder.pre_encode.out, encoder.pre_encode.conv[0].out_channels)
        self.out = times(out, encoder.xscale or 1.0, fold=options.fold_constants)
        self.frame_width: int = out.in_features
        self.register_buffer("frame_numbers", torch.arange(max_trace_len))
        self.smoothed = False
        self.register_buffer("out_scale", torch.ones(self.frame_width))

    def forward(self, features_bft: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B * T', D), the mask of valid frames (B, T') in 0.0 and 1.0, and (B,) lengths."""
        batch, _, frames = features_bft.shape
        # A longer trace leaves fewer numbers than frames, which no runtime reshapes to its length.
        inside = self.frame_numbers[:frames] < lengths[:, None]
        inside = inside.reshape(batch, 1, frames)
        x = torch.where(inside, features_bft, torch.zeros(()))
        x = x.transpose(1, 2).unsqueeze(1)
        valid = torch.ones(())
        for index, (conv, relu) in enumerate(zip(self.convs, self.relu_after, strict=True)):
            if conv.kernel_size != (1, 1) and index:
                x = x * valid[:, None, :, None]
            x = conv(x)
            if conv.stride != (1, 1):
                lengths, frames = (lengths + 1) // 2, (frames + 1) // 2
                valid = (self.frame_numbers[:frames] < lengths[:, None]).to(x.dtype)
            if relu:
                x = F.relu(x)
        x = x.permute(0, 2, 3, 1).reshape(-1, self.frame_width)
        if self.smoothed:
            x = x * self.out_scale
        out: Tensor = self.out(x)
        return out, valid, lengths


class OrtBlock(nn.Module):
    """One Conformer block over (B * T', D)."""

    positions: Tensor
    bias_v_less_u: Tensor

    def __init__(self, layer: Any, positions: Tensor, options: OrtRewriteOptions) -> None:  # noqa: ANN401
        """Copy a NeMo ``ConformerLayer``; ``positions`` are (2 L, D) float64."""
        super().__init__()
        self.options = options
        attention = layer.self_attn
        self.heads, self.head_width = attention.h, attention.d_k
        self._copy_feed_forwards(layer)
        self.norm_attention = copy.deepcopy(layer.norm_self_att)
        self._copy_attention(attention, positions)
        self._copy_convolution(layer)
        self.norm_out = copy.deepcopy(layer.norm_out)

    def _copy_feed_forwards(self, layer: Any) -> None:  # noqa: ANN401 - NeMo: no types
        fold = self.options.fold_constants
        self.norm_ff1 = copy.deepcopy(layer.norm_feed_forward1)
        self.ff1_in = copied_linear(layer.feed_forward1.linear1)
        self.ff1_out = times(layer.feed_forward1.linear2, layer.fc_factor, fold=fold)
        self.norm_ff2 = copy.deepcopy(layer.norm_feed_forward2)
        self.ff2_in = copied_linear(layer.feed_forward2.linear1)
        self.ff2_out = times(layer.feed_forward2.linear2, layer.fc_factor, fold=fold)

    def _copy_attention(self, attention: Any, positions: Tensor) -> None:  # noqa: ANN401 - NeMo: no types
        scale = 1.0 / math.sqrt(self.head_width)
        fold = self.options.fold_constants
        self.scale = nn.Identity() if fold else Scale(scale)
        folded = scale if fold else 1.0
        bias_u = attention.pos_bias_u.detach().double()
        bias_v = attention.pos_bias_v.detach().double()
        query = attention.linear_q
        query = linear_layer(weight_of(query), bias_of(query) + bias_u.flatten())
        inputs = (scaled_linear(query, folded), attention.linear_k, attention.linear_v)
        if self.options.stacked:
            self.qkv = stacked_linear(*inputs)
        else:
            self.query, self.key, self.value = (copied_linear(linear) for linear in inputs)
        self.attention_out = copied_linear(attention.linear_out)
        self.register_buffer("bias_v_less_u", ((bias_v - bias_u) * folded).unsqueeze(1).float())
        if self.options.position_tables:
            positions = positions @ weight_of(attention.linear_pos).T
        else:
            self.linear_pos = linear_layer(weight_of(attention.linear_pos))
        self.register_buffer("positions", positions.T.float().contiguous())

    def _copy_convolution(self, layer: Any) -> None:  # noqa: ANN401 - NeMo: no types
        self.norm_conv = copy.deepcopy(layer.norm_conv)
        self.pointwise1 = pointwise_as_linear(layer.conv.pointwise_conv1)
        self.depthwise = _depthwise(layer.conv.depthwise_conv, layer.conv.batch_norm, self.options)
        self.pointwise2 = pointwise_as_linear(layer.conv.pointwise_conv2)

    def forward(self, x: Tensor, key_mask: Tensor, frame_mask: Tensor) -> Tensor:
        """Return the block's output (B * T', D).

        Args:
            x: (B * T', D).
            key_mask: (B, 1, 1, T'), zero or false for valid frames.
            frame_mask: (B * T', 1), 1.0 for valid frames.
        """
        x = x + self.ff1_out(_swish(self.ff1_in(self.norm_ff1(x))))
        x = x + self.attention_out(self._attend(self.norm_attention(x), key_mask))
        x = x + self.pointwise2(self._convolve(self.norm_conv(x), frame_mask, key_mask))
        x = x + self.ff2_out(_swish(self.ff2_in(self.norm_ff2(x))))
        out: Tensor = self.norm_out(x)
        return out

    def _attend(self, x: Tensor, key_mask: Tensor) -> Tensor:
        batch, frames = key_mask.shape[0], key_mask.shape[3]
        heads = self.heads
        q_content, keys, values = self._heads(x, batch, frames)
        q_position = q_content + self.bias_v_less_u
        by_position = q_position @ self._position_table(frames)
        # Relative shift: read row by row with one column less, row i begins i columns earlier.
        by_position = by_position.reshape(batch, heads, 2 * frames, frames)[:, :, 1:]
        by_position = by_position.reshape(batch, heads, frames, 2 * frames - 1)[..., :frames]
        scores = q_content @ keys.transpose(2, 3) + by_position
        attended = (self._weights(self.scale(scores), key_mask) @ values).transpose(1, 2)
        return attended.reshape(*self._leading(batch, frames), heads * self.head_width)

    def _heads(self, x: Tensor, batch: int, frames: int) -> tuple[Tensor, ...]:
        """Return queries, keys and values, (B, heads, T', head width) each."""
        heads, width = self.heads, self.head_width
        if self.options.stacked:
            qkv = self.qkv(x).reshape(batch, frames, 3 * heads, width).transpose(1, 2)
            return torch.split(qkv, [heads, heads, heads], dim=1)
        return tuple(
            linear(x).reshape(batch, frames, heads, width).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )

    def _position_table(self, frames: int) -> Tensor:
        """Return (heads, head width, 2 T')."""
        centre = self.positions.shape[1] // 2
        table = self.positions[:, centre - frames : centre + frames]
        if not self.options.position_tables:
            table = self.linear_pos(table.T).T
        return table.reshape(self.heads, self.head_width, 2 * frames)

    def _weights(self, scores: Tensor, key_mask: Tensor) -> Tensor:
        if self.options.additive_mask:
            return torch.softmax(scores + key_mask, dim=-1)
        weights = torch.softmax(scores.masked_fill(key_mask, MASKED), dim=-1)
        return weights.masked_fill(key_mask, 0.0)

    def _convolve(self, x: Tensor, frame_mask: Tensor, key_mask: Tensor) -> Tensor:
        batch, frames = key_mask.shape[0], key_mask.shape[3]
        width = self.pointwise2.in_features
        left, right = torch.split(self.pointwise1(x), [width, width], dim=-1)
        x = left * torch.sigmoid(right) * frame_mask
        if self.options.planar:
            x = x.reshape(batch, 1, frames, width).permute(0, 3, 1, 2)
            x = self.depthwise(x).permute(0, 2, 3, 1)
        else:
            x = self.depthwise(x.reshape(batch, frames, width).transpose(1, 2)).transpose(1, 2)
        return _swish(x.reshape(*self._leading(batch, frames), width))

    def _leading(self, batch: int, frames: int) -> tuple[int, ...]:
        return (batch * frames,) if self.options.flat else (batch, frames)


def _depthwise(conv: nn.Conv1d, norm: nn.BatchNorm1d, options: OrtRewriteOptions) -> nn.Module:
    """Return the convolution with its BatchNorm."""
    weight, bias = conv.weight.detach(), bias_of(conv).float()
    if options.fold_batch_norm:
        weight, bias = fold_batch_norm(conv, norm)
    channels, _, taps = weight.shape
    depthwise: nn.Module
    if options.planar:
        weight, padding = weight.unsqueeze(2), (0, taps // 2)
        depthwise = nn.Conv2d(channels, channels, (1, taps), padding=padding, groups=channels)
    else:
        depthwise = nn.Conv1d(channels, channels, taps, padding=taps // 2, groups=channels)
    depthwise.load_state_dict({"weight": weight, "bias": bias})
    if options.fold_batch_norm:
        return depthwise
    return nn.Sequential(depthwise, batch_norm_2d(norm) if options.planar else copy.deepcopy(norm))


def _relative_positions(encoder: Any, frames: int) -> Tensor:  # noqa: ANN401 - NeMo: no types
    """Return NeMo's own sinusoids for ``frames`` frames after one more row: (2 frames, D) float64.

    Row ``frames`` is distance 0; the first row lands in the one column that the shift throws away.
    """
    encoding = copy.deepcopy(encoder.pos_enc)
    encoding.extend_pe(frames, torch.device("cpu"), torch.float32)
    sinusoids = encoding.pe[0].double()
    centre = len(sinusoids) // 2
    rows = sinusoids[centre - frames + 1 : centre + frames]
    return torch.cat([torch.zeros(1, rows.shape[1], dtype=rows.dtype), rows])


def _channels_last(linear: nn.Linear, channels: int) -> nn.Linear:
    """Return the Linear over (frequency, channel) that equals one over (channel, frequency)."""
    weight = weight_of(linear)
    weight = weight.reshape(len(weight), channels, -1).transpose(1, 2).flatten(1)
    return linear_layer(weight, bias_of(linear))


def _is_relu(layer: nn.Module) -> bool:
    return isinstance(layer, nn.ReLU)


def _swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)
