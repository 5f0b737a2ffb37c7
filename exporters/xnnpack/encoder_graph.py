"""NeMo's Conformer encoder, rewritten without a change of its function, for XNNPACK at batch 1.

Lowered as it is, the encoder falls into dozens of delegates, because XNNPACK has no LayerNorm, no
relative shift and no slice of a dynamic length. Here each of them is expressed in operators that it
has, with the same weights, here and in the other modules of this folder:

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

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from exporters.graphs.folding import (
    batch_norm_2d,
    bias_of,
    fold_batch_norm,
    linear_rows,
    pointwise_as_linear,
    times,
)
from exporters.xnnpack.attention import Attention, Positions
from exporters.xnnpack.front_end import FrontEnd, HalfEntry
from exporters.xnnpack.norms import (
    HALF_INPUT_SCALE,
    Affine,
    RmsNormalize,
    centre_output,
    fixed,
    fold_into,
    normalize,
    plain_normalize,
)
from exporters.xnnpack.options import RewriteOptions, UnsupportedEncoderError

if TYPE_CHECKING:
    from exporters.graphs.folding import FrequencyBasis

_MASKED_SCORE = 10000.0
"""What NeMo puts in the place of a masked attention score, negated; its softmax is zero."""
_LARGEST_DEPTHWISE_KERNEL = 25
"""Taps of XNNPACK's largest depthwise microkernel; above it a generic path is ten times slower."""


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

    def to_fp16(self) -> None:
        """Put the matrices into FP16; convolutions of the front end and positions stay, in place.

        The front end reads raw accelerations, which overflow FP16, and what it makes of them may.
        """
        for module in self.body.modules():
            if isinstance(module, RmsNormalize):
                module.scale_input(HALF_INPUT_SCALE)
        self.entry = HalfEntry(self.front.out)
        self.body.half()

    def forward(self, features_bft: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode one swipe.

        Args:
            features_bft: (1, F, T) float32; whatever stands beyond ``lengths`` is ignored.
            lengths: (1,) int64 or int32, in [1, T].

        Returns:
            (1, D, T') float32 with T' = ceil(T / factor), and (1,) of the lengths' type.
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
        return encoded.transpose(1, 2), self.front.encoded_counts(counts).to(lengths.dtype)


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
        self.norm1 = normalize(layer.norm_feed_forward1, options)
        self.feed_forward1 = _FeedForward(layer.feed_forward1, layer.norm_feed_forward1, options)
        self.norm2 = normalize(layer.norm_self_att, options)
        self.attention = Attention(layer.self_attn, layer.norm_self_att, basis, options)
        self.norm3 = normalize(layer.norm_conv, options)
        self.convolution = _Convolution(layer.conv, layer.norm_conv, options)
        self.norm4 = normalize(layer.norm_feed_forward2, options)
        self.feed_forward2 = _FeedForward(layer.feed_forward2, layer.norm_feed_forward2, options)
        self.norm5 = plain_normalize(layer.norm_out, options)
        # The stream that leaves a block is the next one's residual; the encoder's output is not.
        self.affine = Affine(layer.norm_out, centre=centre and not last)

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


class _FeedForward(nn.Module):
    """NeMo's feed-forward after its LayerNorm, times the half step."""

    def __init__(self, feed_forward: Any, norm: nn.LayerNorm, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.linear1 = fold_into(norm, feed_forward.linear1, options)
        linear2 = centre_output(feed_forward.linear2, options)
        self.linear2 = times(linear2, 0.5, fold=options.fold_constants)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear1(x)
        out: Tensor = self.linear2(x * torch.sigmoid(x))
        return out


class _Convolution(nn.Module):
    """NeMo's convolution module: gated pointwise, depthwise with BatchNorm, swish, pointwise."""

    def __init__(self, conv: Any, norm: nn.LayerNorm, options: RewriteOptions) -> None:  # noqa: ANN401
        super().__init__()
        self.width = conv.d_model
        gated = fold_into(norm, pointwise_as_linear(conv.pointwise_conv1), options)
        # Two linears in the place of one and a split, which XNNPACK lacks for a dynamic length.
        self.signal = linear_rows(gated, 0, self.width)
        self.gate = linear_rows(gated, self.width, 2 * self.width)
        self.depthwise = _depthwise_with_norm(conv.depthwise_conv, conv.batch_norm, options)
        self.out = centre_output(pointwise_as_linear(conv.pointwise_conv2), options)

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
    conv.weight = fixed(weight.unsqueeze(2).contiguous())
    if bias is not None:
        conv.bias = fixed(bias.clone())
    return conv


def _times(x: Tensor, gain: Tensor | None) -> Tensor:
    return x if gain is None else x * gain


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
