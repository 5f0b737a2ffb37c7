"""NeMo's subsampling for XNNPACK: masks and frame numbers by strided convolutions of one tap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from exporters.graphs.folding import (
    bias_of,
    centred_linear,
    linear_layer,
    scaled_linear,
    weight_of,
)
from exporters.xnnpack.norms import constant, fixed
from exporters.xnnpack.options import RewriteOptions, UnsupportedEncoderError

_LARGEST_HALF = torch.finfo(torch.float16).max
_HALF_STREAM_LIMIT = 4000.0
"""Largest number in the stream that enters the first block in half precision: scaled by
``norms.HALF_INPUT_SCALE``, its square is 62500."""


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
        self.smoothing: nn.Parameter | None = None  # see quantize.smooth_front_end
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
        self.loudness = fixed(torch.full((1, out.in_features), share))
        self.weight, self.bias = fixed(weight.half()), fixed(bias_of(out).half())
        self.large = constant(1e4).half()

    def gain(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return (1, T', 1) of (1, T', F' C) and the mask (1, T', 1): 0 at padded frames."""
        return valid / (functional.linear(x, self.loudness) + 1.0)

    def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Return (1, T', D) times the gain, and the mask, of the input times the gain; float16."""
        valid = gain
        for _ in range(2):  # FP16's smallest number times 1e4 is still below 1
            valid = torch.clamp(valid * self.large, 0.0, 1.0)
        return functional.linear(x, self.weight) + self.bias * gain, valid


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
    copy.weight = fixed(conv.weight.detach().clone())
    copy.bias = fixed(bias_of(conv).float())
    return copy


def _every_second(scale: float) -> nn.Conv2d:
    conv = nn.Conv2d(1, 1, 1, stride=(2, 1), bias=False)
    conv.weight = fixed(torch.full((1, 1, 1, 1), scale))
    return conv
