"""Switches of the rewrite for XNNPACK, and the error of what it does not know."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from exportgate.errors import ExportGateError


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
