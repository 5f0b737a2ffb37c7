"""NeMo's Conformer encoder, rewritten without a change of its function, for XNNPACK at batch 1.

Lowered as it is, the encoder falls into dozens of delegates, because XNNPACK has no LayerNorm, no
relative shift and no slice of a dynamic length. Here each of them is expressed in operators that it
has, with the same weights:

* Affine parts of LayerNorms are folded into the linear after them, BatchNorms into the convolution
  before them, the half step of the feed-forwards and all constant scales into a linear.
* The residual stream is kept at zero mean, so that a LayerNorm needs its mean square alone.
* The relative shift becomes products of sines and cosines of absolute positions:
  ``sin((i-j) w) = sin(iw) cos(jw) - cos(iw) sin(jw)``, and the cosine alike.
* Masks and positions of the subsampled frames come from those of the input frames by strided
  convolutions of one tap, so that no shape is computed outside a delegate.
* A depthwise convolution of more than 25 taps, for which XNNPACK has no microkernel, is split into
  its even and odd taps.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.errors import ExportGateError
from exporters.folding import (
    FrequencyBasis,
    Scale,
    batch_norm_2d,
    bias_of,
    centred_linear,
    copied_linear,
    fold_batch_norm,
    fold_layer_norm,
    frequency_basis,
    inverse_frequencies,
    linear_layer,
    linear_rows,
    pointwise_as_linear,
    scaled_linear,
    times,
    weight_of,
)

_MASKED_SCORE = 10000.0
"""What NeMo puts in the place of a masked attention score, negated; its softmax is zero."""
_LARGEST_DEPTHWISE_KERNEL = 25
"""Taps of XNNPACK's largest depthwise microkernel; above it a generic path is ten times slower."""
_HALF_INPUT_SCALE = 1.0 / 16.0
"""Residual streams reach some hundreds, whose square is beyond half precision's 65504."""
_LARGEST_HALF = torch.finfo(torch.float16).max
_HALF_STREAM_LIMIT = 4000.0
"""Largest number in the stream that enters the first block in half precision: scaled by
``_HALF_INPUT_SCALE``, its square is 62500."""


class UnsupportedEncoderError(ExportGateError, ValueError):
    """The encoder has a part that the rewrite does not know."""


@dataclass(frozen=True, slots=True)
class RewriteOptions:
    """What the rewrite replaces; each switch exists to measure what it buys.

    Attributes:
        layer_norm: ``rms`` from delegable operators on a centred residual stream; ``native`` is
            torch's own operator, which XNNPACK does not take.
        fold_layer_norm: Gain and shift are in the weights of the linear layers that follow.
        fold_batch_norm: BatchNorm is in the depthwise weights.
        fold_constants: 0.5 of the feed-forwards and 1 / sqrt(d_k) are in the weights.
        split_depthwise: Split depthwise convolutions of more than 25 taps.
        compress_positions: Express the position channels by the few frequencies that span them.
        position_error: Largest absolute error of a sine or cosine in doing so; float32 angles of
            some hundred frames have as much.
    """

    layer_norm: Literal["rms", "native"] = "rms"
    fold_layer_norm: bool = True
    fold_batch_norm: bool = True
    fold_constants: bool = True
    split_depthwise: bool = True
    compress_positions: bool = True
    position_error: float = 1e-6

    def to_json(self) -> dict[str, Any]:
        """Return plain values for an artifact's recipe."""
        return asdict(self)


def rewrite_encoder(
    encoder: Any,  # noqa: ANN401 - NeMo has no types
    *,
    max_trace_len: int,
    options: RewriteOptions | None = None,
) -> XnnpackEncoder:
    """Rewrite NeMo's ``ConformerEncoder``; it is not changed, and no tensor is shared with it.

    Args:
        encoder: The encoder in evaluation mode: striding or dw_striding by 2, 4 or 8, relative
            positions, BatchNorm.
        max_trace_len: Largest T.
        options: What to replace; everything by default.

    Raises:
        UnsupportedEncoderError: A part of the encoder is of another kind.
        ValueError: The bound is below 1.
    """
    if max_trace_len < 1:
        msg = f"max_trace_len is {max_trace_len}, but should be at least 1"
        raise ValueError(msg)
    _check_supported(encoder)
    return XnnpackEncoder(encoder, max_trace_len, options or RewriteOptions()).eval()


class XnnpackEncoder(nn.Module):
    """``(features_bft, lengths) -> (encoded_bdt, encoded_lengths)`` for one swipe.

    Frames of the output beyond ``encoded_lengths`` hold garbage, as NeMo's do.

    Attributes:
        front: Subsampling; its numbers are as large as the features, up to 1e6.
        positions: Sines and cosines of frame numbers.
        body: Conformer blocks.
        entry: In half precision, the front end's last linear; else None, and the front end runs it.
    """

    def __init__(self, encoder: Any, max_trace_len: int, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.front = FrontEnd(encoder, max_trace_len, options)
        self.positions = Positions(encoder, self.front.encoded_length(max_trace_len), options)
        self.body = Body(encoder, self.positions.basis, options)
        self.entry: HalfEntry | None = None

    def halve(self) -> None:
        """Put the matrices into FP16; convolutions of the front end and positions stay, in place.

        The front end reads raw accelerations, which overflow FP16, and what it makes of them may.
        """
        for module in self.body.modules():
            if isinstance(module, RmsNormalize):
                module.scale_input(_HALF_INPUT_SCALE)
        self.entry = HalfEntry(self.front.out)
        self.body.half()

    def forward(self, features_bft: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one swipe.

        Args:
            features_bft: (1, F, T) float32; whatever stands beyond ``lengths`` is ignored.
            lengths: (1,) int64 in [1, T].

        Returns:
            (1, D, T') float32 with T' = ceil(T / factor), and (1,) int64.
        """
        counts = lengths.to(torch.float32)  # XNNPACK takes no integers
        if self.entry is None:
            x, valid, frames = self.front(features_bft, counts)
            encoded = self.body(x, valid, *self.positions(frames))
        else:
            x, valid, frames = self.front.flattened(features_bft, counts)
            gain = self.entry.gain(x, valid)
            # Each tensor that crosses into FP16 is a cast outside delegates.
            crossing = (x * gain, gain, *self.positions(frames))
            x, gain, sine, cosine = (tensor.half() for tensor in crossing)
            x, valid = self.entry(x, gain)
            encoded = self.body(x, valid, sine, cosine, gain).to(torch.float32)
        return encoded.transpose(1, 2), self.front.encoded_counts(counts).to(torch.int64)


class FrontEnd(nn.Module):
    """NeMo's ``ConvSubsampling`` with its mask, and the numbers of the frames that remain."""

    frame_numbers: Tensor

    def __init__(self, encoder: Any, max_trace_len: int, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        convolutions = [m for m in encoder.pre_encode.conv if isinstance(m, nn.Conv2d)]
        self.stages = nn.ModuleList(_stages(convolutions))
        self.factor: int = 1 << len(self.stages)
        self.feature_dim: int = encoder._feat_in  # noqa: SLF001 - NeMo has no public name for it
        channels = convolutions[-1].out_channels
        out = encoder.pre_encode.out
        # NeMo flattens (channel, feature); (feature, channel) is how XNNPACK's NHWC lies in memory.
        weight = weight_of(out).view(out.out_features, channels, -1).transpose(1, 2).flatten(1)
        self.out = scaled_linear(linear_layer(weight, bias_of(out)), encoder.pos_enc.xscale or 1.0)
        if options.layer_norm == "rms":
            self.out = centred_linear(self.out)
        self.smoothing: nn.Parameter | None = None  # see quantize_xnnpack.smooth_front_end
        self.register_buffer("frame_numbers", torch.arange(max_trace_len, dtype=torch.float32))

    def forward(self, features_bft: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Subsample.

        Args:
            features_bft: (1, F, T) float32.
            counts: (1,) float32: valid frames.

        Returns:
            (1, T', D), the mask (1, T', 1) that is 1 at valid frames, and 0 .. T'-1 alike.
        """
        x, valid, frames = self.flattened(features_bft, counts)
        if self.smoothing is not None:
            x = x * self.smoothing
        return self.out(x), valid, frames

    def flattened(self, features_bft: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the last linear reads, (1, T', F' C), the mask and the frame numbers."""
        x = features_bft.view(1, 1, self.feature_dim, -1).permute(0, 1, 3, 2)
        frames = self.frame_numbers[: features_bft.shape[2]].view(1, 1, -1, 1)
        # Both are whole numbers: 1 where frame < count, else 0.
        valid = torch.clamp(counts.view(1, 1, 1, 1) - frames, 0.0, 1.0)
        for stage in self.stages:
            x, valid, frames = stage(x, valid, frames)
        # NeMo masks once more here; padded frames cannot reach valid ones after this point, because
        # attention and depthwise convolutions mask them.
        x = x.permute(0, 2, 3, 1).contiguous().view(1, -1, self.out.in_features)
        return x, valid.view(1, -1, 1), frames.view(1, -1, 1)

    def encoded_length(self, frames: int) -> int:
        """Return T' for T input frames."""
        return -(-frames // self.factor)

    def encoded_counts(self, counts: Tensor) -> Tensor:
        """Return (1,) float32: valid frames of the output; exact below 2**24."""
        return torch.floor((counts + (self.factor - 1.0)) / float(self.factor))


class _Stage(nn.Module):
    """Mask, halve the frame rate, rectify."""

    def __init__(self, *convolutions: nn.Conv2d) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*(_copied(conv) for conv in convolutions))
        self.every_second = _every_second(1.0)
        self.renumber = _every_second(0.5)

    def forward(self, x: Tensor, valid: Tensor, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take (1, C, T, F), (1, 1, T, 1), (1, 1, T, 1) to the same at ceil(T / 2) frames."""
        x = torch.relu(self.convolutions(x * valid))
        # Output frame j is valid if 2 j < length, that is if input frame 2 j is.
        return x, self.every_second(valid), self.renumber(frames)


class Positions(nn.Module):
    """Sines and cosines of absolute positions, from which attention makes relative ones."""

    frequencies: Tensor

    def __init__(self, encoder: Any, reach: int, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.basis: FrequencyBasis | None = None
        frequencies = inverse_frequencies(encoder.d_model)
        if options.compress_positions:
            self.basis = frequency_basis(encoder.d_model, reach, tolerance=options.position_error)
            frequencies = self.basis.frequencies
        self.register_buffer("frequencies", frequencies.float().view(1, 1, -1))

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return sines and cosines (1, T', M) of the frame numbers (1, T', 1)."""
        angles = frames * self.frequencies
        return torch.sin(angles), torch.cos(angles)


class Body(nn.Module):
    """The Conformer blocks."""

    per_head: Tensor
    valid_score: Tensor
    masked_score: Tensor

    def __init__(
        self,
        encoder: Any,  # noqa: ANN401 - NeMo has no types
        basis: FrequencyBasis | None,
        options: RewriteOptions,
    ) -> None:
        super().__init__()
        # Constants are tensors, because those that a tracer makes of numbers stay in FP32.
        self.register_buffer("per_head", torch.ones(encoder.layers[0].self_attn.h, 1, 1))
        self.register_buffer("valid_score", torch.ones(1, 1, 1))
        self.register_buffer("masked_score", torch.full((1, 1, 1), _MASKED_SCORE))
        last = len(encoder.layers) - 1
        self.blocks = nn.ModuleList(
            _Block(layer, basis, options, last=number == last)
            for number, layer in enumerate(encoder.layers)
        )

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        sine: Tensor,
        cosine: Tensor,
        gain: Tensor | None = None,
    ) -> Tensor:
        """Run the blocks.

        Args:
            x: (1, T', D).
            valid: (1, T', 1): 1 at valid frames, else 0.
            sine: (1, T', M): of the positions.
            cosine: (1, T', M).
            gain: (1, T', 1): what each frame of ``x`` was multiplied by; None for 1.

        Returns:
            (1, T', D).
        """
        score_mask = ((valid - self.valid_score) * self.masked_score).view(1, 1, -1)
        # Products with ones, because XNNPACK has no expand().
        key_sine = sine.transpose(1, 2) * self.per_head
        key_cosine = cosine.transpose(1, 2) * self.per_head
        tables = (sine, cosine, key_sine, key_cosine)
        for block in self.blocks:
            x = block(x, valid, score_mask, tables, gain)
            gain = None  # the norm at a block's end undoes it
        return x


class _Block(nn.Module):
    """A Conformer block: half feed-forward, attention, convolution, half feed-forward, norm."""

    def __init__(
        self,
        layer: Any,  # noqa: ANN401 - NeMo has no types
        basis: FrequencyBasis | None,
        options: RewriteOptions,
        *,
        last: bool,
    ) -> None:
        super().__init__()
        centre = options.layer_norm == "rms"
        self.norm1 = _normalize(layer.norm_feed_forward1, options)
        self.feed_forward1 = _FeedForward(layer.feed_forward1, layer.norm_feed_forward1, options)
        self.norm2 = _normalize(layer.norm_self_att, options)
        self.attention = _Attention(layer.self_attn, layer.norm_self_att, basis, options)
        self.norm3 = _normalize(layer.norm_conv, options)
        self.convolution = _Convolution(layer.conv, layer.norm_conv, options)
        self.norm4 = _normalize(layer.norm_feed_forward2, options)
        self.feed_forward2 = _FeedForward(layer.feed_forward2, layer.norm_feed_forward2, options)
        self.norm5 = _plain_normalize(layer.norm_out, options)
        # The stream that leaves a block is the next one's residual; the encoder's output is not.
        self.affine = _Affine(layer.norm_out, centre=centre and not last)

    def forward(
        self,
        x: Tensor,
        valid: Tensor,
        score_mask: Tensor,
        tables: tuple[Tensor, ...],
        gain: Tensor | None,
    ) -> Tensor:
        """Return (1, T', D); a norm does not see ``gain``, but what is added to ``x`` must."""
        x = x + _times(self.feed_forward1(self.norm1(x)), gain)
        x = x + _times(self.attention(self.norm2(x), score_mask, tables), gain)
        x = x + _times(self.convolution(self.norm3(x), valid), gain)
        x = x + _times(self.feed_forward2(self.norm4(x)), gain)
        out: Tensor = self.affine(self.norm5(x))
        return out


class RmsNormalize(nn.Module):
    """``normalize(x)`` of a LayerNorm whose input has zero mean already.

    Attributes:
        input_scale: Multiplied to the input first, which changes nothing in exact arithmetic; None
            for 1. In half precision the square of a residual stream beyond 256 overflows.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.input_scale: nn.Parameter | None = None
        self.eps = _constant(eps)
        # A linear of one output, because XNNPACK takes a mean over the last two axes only.
        self.mean = nn.Parameter(torch.full((1, width), 1.0 / width), requires_grad=False)

    def scale_input(self, scale: float) -> None:
        """Set ``input_scale``, and the epsilon that goes with it."""
        self.input_scale = _constant(scale)
        self.eps = _constant(float(self.eps) * scale**2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (1, T', D)."""
        if self.input_scale is not None:
            x = x * self.input_scale
        mean_square = functional.linear(x * x, self.mean)
        return x * torch.rsqrt(mean_square + self.eps)


class HalfEntry(nn.Module):
    """The front end's last linear in half precision, for frames that a gain has scaled.

    What it reads is rectified, so that its sum s bounds each number, and times the largest weight w
    each output: with ``gain = 1 / (1 + s w / limit)`` none exceeds ``_HALF_STREAM_LIMIT``. A
    LayerNorm does not see the gain.
    """

    def __init__(self, out: nn.Linear) -> None:
        super().__init__()
        weight = weight_of(out)
        share = max(float(weight.abs().max()) / _HALF_STREAM_LIMIT, 1.0 / _LARGEST_HALF)
        self.loudness = _fixed(torch.full((1, out.in_features), share))
        self.weight, self.bias = _fixed(weight.half()), _fixed(bias_of(out).half())
        self.large = _constant(1e4).half()

    def gain(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (1, T', 1) of (1, T', F' C) and the mask (1, T', 1): 0 at padded frames."""
        return valid / (functional.linear(x, self.loudness) + 1.0)

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, T', D) times the gain, and the mask, of the input times the gain; float16."""
        valid = gain
        for _ in range(2):  # FP16's smallest number times 1e4 is still below 1
            valid = torch.clamp(valid * self.large, 0.0, 1.0)
        return functional.linear(x, self.weight) + self.bias * gain, valid


class _Affine(nn.Module):
    """A LayerNorm's gain and shift; if centred, less the mean over the features."""

    def __init__(self, norm: nn.LayerNorm, *, centre: bool) -> None:
        super().__init__()
        gain, shift = norm.weight.detach().double(), norm.bias.detach().double()
        if centre:
            shift = shift - shift.mean()
        self.gain = nn.Parameter(gain.float(), requires_grad=False)
        self.shift = nn.Parameter(shift.float(), requires_grad=False)
        self.mean_gain: nn.Parameter | None = None
        if centre:
            mean_gain = (gain / len(gain)).float().unsqueeze(0)
            self.mean_gain = nn.Parameter(mean_gain, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.gain + self.shift
        return y if self.mean_gain is None else y - functional.linear(x, self.mean_gain)


class _FeedForward(nn.Module):
    """NeMo's feed-forward after its LayerNorm, times the half step."""

    def __init__(self, feed_forward: Any, norm: nn.LayerNorm, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.linear1 = _behind(norm, feed_forward.linear1, options)
        linear2 = _into_stream(feed_forward.linear2, options)
        self.linear2 = times(linear2, 0.5, fold=options.fold_constants)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        out: Tensor = self.linear2(x * torch.sigmoid(x))
        return out


class Table(nn.Module):
    """Numbers that are computed with as they are; quantized, another module takes its place."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = _fixed(values.float().contiguous())

    def forward(self) -> Tensor:
        """Return them."""
        return self.values


class _Attention(nn.Module):
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
        reach = _balanced_reach(torch.cat([sines, cosines], dim=2))
        self.sine_columns = Table(sines / reach)
        self.cosine_columns = Table(cosines / reach)
        query, reach = _behind(norm, attention.linear_q, options), reach.flatten()
        factor = 1.0 / math.sqrt(self.head_width)
        self.scale = nn.Identity() if options.fold_constants else Scale(factor)
        scale = reach * factor if options.fold_constants else reach
        self.query = _scaled_rows(linear_layer(weight_of(query), bias_of(query) + content), scale)
        self.key = _scaled_rows(_behind(norm, attention.linear_k, options), 1.0 / reach)
        self.value = _behind(norm, attention.linear_v, options)
        self.out = _into_stream(attention.linear_out, options)
        difference = ((position - content) * scale).float()
        self.position_bias = nn.Parameter(difference, requires_grad=False)

    def forward(self, x: Tensor, score_mask: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
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


class _Convolution(nn.Module):
    """NeMo's convolution module: gated pointwise, depthwise with BatchNorm, swish, pointwise."""

    def __init__(self, conv: Any, norm: nn.LayerNorm, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.width = conv.d_model
        gated = _behind(norm, pointwise_as_linear(conv.pointwise_conv1), options)
        # Two linears in the place of one and a split, which XNNPACK lacks for a dynamic length.
        self.signal = linear_rows(gated, 0, self.width)
        self.gate = linear_rows(gated, self.width, 2 * self.width)
        self.depthwise = _depthwise_with_norm(conv.depthwise_conv, conv.batch_norm, options)
        self.out = _into_stream(pointwise_as_linear(conv.pointwise_conv2), options)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = self.signal(x) * torch.sigmoid(self.gate(x)) * valid
        x = self.depthwise(x.view(1, 1, -1, self.width).permute(0, 3, 1, 2))
        x = x * torch.sigmoid(x)
        out: Tensor = self.out(x.permute(0, 2, 3, 1).contiguous().view(1, -1, self.width))
        return out


class DepthwiseConvolution(nn.Module):
    """A depthwise convolution over (1, C, 1, T) that keeps T.

    Args:
        weight: (C, 1, taps), taps odd.
        bias: (C,).
        split: Compute even and odd taps apart, as two convolutions of dilation 2, if there are
            more taps than XNNPACK's microkernels have.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, split: bool) -> None:
        super().__init__()
        taps = weight.shape[2]
        self.odd: nn.Conv2d | None = None
        if split and taps > _LARGEST_DEPTHWISE_KERNEL:
            self.even = _depthwise(weight[:, :, 0::2], bias, padding=taps // 2, dilation=2)
            self.odd = _depthwise(weight[:, :, 1::2], None, padding=taps // 2 - 1, dilation=2)
        else:
            self.even = _depthwise(weight, bias, padding=taps // 2, dilation=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (1, C, 1, T)."""
        out: Tensor = self.even(x)
        return out if self.odd is None else out + self.odd(x)


def _depthwise_with_norm(
    conv: nn.Conv1d, norm: nn.BatchNorm1d, options: RewriteOptions
) -> nn.Module:
    split = options.split_depthwise
    if options.fold_batch_norm:
        return DepthwiseConvolution(*fold_batch_norm(conv, norm), split=split)
    apart = DepthwiseConvolution(conv.weight.detach(), bias_of(conv).float(), split=split)
    return nn.Sequential(apart, batch_norm_2d(norm))


def _depthwise(weight: Tensor, bias: Tensor | None, *, padding: int, dilation: int) -> nn.Conv2d:
    channels, _, taps = weight.shape
    conv = nn.Conv2d(
        channels,
        channels,
        (1, taps),
        padding=(0, padding),
        dilation=(1, dilation),
        groups=channels,
        bias=bias is not None,
    )
    conv.weight = nn.Parameter(weight.unsqueeze(2).contiguous(), requires_grad=False)
    if bias is not None:
        conv.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return conv


def _stages(convolutions: list[nn.Conv2d]) -> list[_Stage]:
    """Group the convolutions of ``striding`` and ``dw_striding`` by the halvings they make."""
    stages: list[list[nn.Conv2d]] = []
    for conv in convolutions:
        if conv.stride == (2, 2) and conv.kernel_size == (3, 3) and conv.padding == (1, 1):
            stages.append([conv])
        elif conv.stride == (1, 1) and conv.kernel_size == (1, 1) and stages:
            stages[-1].append(conv)
        else:
            msg = (
                f"pre_encode has the convolution {conv}, but should have only 3x3 ones of stride "
                "2 and padding 1, and pointwise ones after them; use subsampling striding or "
                "dw_striding"
            )
            raise UnsupportedEncoderError(msg)
    return [_Stage(*stage) for stage in stages]


def _copied(conv: nn.Conv2d) -> nn.Conv2d:
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    copy = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (kernel[0], kernel[1]),
        stride=(stride[0], stride[1]),
        padding=(int(padding[0]), int(padding[1])),
        groups=conv.groups,
    )
    copy.weight = nn.Parameter(conv.weight.detach().clone(), requires_grad=False)
    copy.bias = nn.Parameter(bias_of(conv).float(), requires_grad=False)
    return copy


def _every_second(scale: float) -> nn.Conv2d:
    conv = nn.Conv2d(1, 1, 1, stride=(2, 1), bias=False)
    conv.weight = nn.Parameter(torch.full((1, 1, 1, 1), scale), requires_grad=False)
    return conv


def _scaled_rows(linear: nn.Linear, scale: Tensor) -> nn.Linear:
    return linear_layer(weight_of(linear) * scale[:, None], bias_of(linear) * scale)


def _balanced_reach(columns: Tensor) -> Tensor:
    """Return (heads, head width, 1): largest magnitude of each channel, of geometric mean 1.

    Factors are cut at 16: the query, which takes them, may be in half precision.
    """
    reach = columns.abs().amax(dim=2, keepdim=True).clamp_min(1e-12)
    return (reach / reach.log().mean().exp()).clamp(1 / 16, 16.0)


def _times(x: Tensor, gain: Tensor | None) -> Tensor:
    return x if gain is None else x * gain


def _fixed(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values, requires_grad=False)


def _constant(value: float) -> nn.Parameter:
    return _fixed(torch.full((1, 1, 1), value))


def _behind(norm: nn.LayerNorm, linear: nn.Linear, options: RewriteOptions) -> nn.Linear:
    """Return the linear for what ``_normalize`` gives."""
    return fold_layer_norm(norm, linear) if options.fold_layer_norm else copied_linear(linear)


def _into_stream(linear: nn.Linear, options: RewriteOptions) -> nn.Linear:
    """Return the linear for a residual stream that is centred, if it is to be."""
    return centred_linear(linear) if options.layer_norm == "rms" else copied_linear(linear)


def _normalize(norm: nn.LayerNorm, options: RewriteOptions) -> nn.Module:
    plain = _plain_normalize(norm, options)
    if options.fold_layer_norm:
        return plain
    return nn.Sequential(plain, _Affine(norm, centre=False))


def _plain_normalize(norm: nn.LayerNorm, options: RewriteOptions) -> nn.Module:
    if options.layer_norm == "native":
        return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)
    return RmsNormalize(norm.normalized_shape[0], norm.eps)


def _check_supported(encoder: Any) -> None:  # noqa: ANN401 - NeMo has no types
    problems = [
        f"{name} is {found!r}, but should be {expected!r}"
        for name, found, expected in (
            ("training", encoder.training, False),
            ("self_attention_model", encoder.self_attention_model, "rel_pos"),
            ("out_proj", encoder.out_proj, None),
            ("reduction_position", encoder.reduction_position, None),
            ("att_context_size", list(encoder.att_context_size), [-1, -1]),
            ("pre_encode", type(encoder.pre_encode).__name__, "ConvSubsampling"),
        )
        if found != expected
    ]
    for number, layer in enumerate(encoder.layers):
        norm, taps = layer.conv.batch_norm, layer.conv.depthwise_conv.kernel_size[0]
        if not isinstance(norm, nn.BatchNorm1d):
            problems.append(f"layers.{number}.conv.batch_norm is a {type(norm).__name__}")
        if layer.conv.pointwise_activation != "glu_" or taps % 2 == 0:
            problems.append(
                f"layers.{number}.conv is not gated, or has {taps} taps, an even number"
            )
    if problems:
        msg = f"cannot rewrite this encoder for XNNPACK: {'; '.join(problems)}"
        raise UnsupportedEncoderError(msg)
