"""What a quantised file has to hold, as far as the checkpoint and the swipes decide it.

All floating-point numbers, steps and tables follow from them directly. Codes of matrices follow
one from the other (GPTQ), so that a sum of float32 in another order may turn many of them: they are
judged by whether each is the nearest one, beside those that the file holds before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from exporters.quantize.gptq import Codes, Gptq, MatrixCodes, channel_scales

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Rounding:
    """How the weights of one layer have to be rounded.

    Attributes:
        weight: (out, in) float32, as smoothing left it.
        gptq: Made of what reaches the layer while the swipes run.
        codes: Those that its weights may take.
        group: Neighbouring inputs that share a step; None for all.
    """

    weight: Tensor
    gptq: Gptq
    codes: Codes
    group: int | None = None

    @classmethod
    def of(
        cls, layer: nn.Linear, hessian: list[Tensor], codes: Codes, group: int | None = None
    ) -> Rounding:
        """Take a layer's weight, and what was observed at its input, which is emptied."""
        return cls(layer.weight.detach().clone(), Gptq(hessian), codes, group)

    def to_plain(self) -> dict[str, Any]:
        """Return arrays and numbers, see ``exportgate.artifacts.packed``."""
        return {
            "weight": self.weight.numpy(),
            "gptq": self.gptq.to_plain(),
            "codes": tuple(self.codes),
            "group": self.group,
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Rounding:
        """Make what ``to_plain`` described."""
        return cls(
            torch.from_numpy(plain["weight"]),
            Gptq.from_plain(plain["gptq"]),
            Codes(*plain["codes"]),
            plain["group"],
        )

    def nearest(self) -> MatrixCodes:
        """Return the codes next to the weights, which no file has to hold."""
        scales = channel_scales(self.weight, self.codes, group=self.group)
        steps = scales.repeat_interleave(self.weight.shape[1] // scales.shape[1], dim=1)
        found = (self.weight / steps).round().clamp(self.codes.lowest, self.codes.highest)
        return MatrixCodes(found.to(torch.int8).numpy(), scales.numpy(), self.codes, self.group)

    def strays(self, given: NDArray[np.float64]) -> NDArray[np.float64]:
        """Tell how far real numbers (out, in) are from a right rounding, in steps: Gptq.strays."""
        found: NDArray[np.float64] = self.gptq.strays(
            self.weight, torch.from_numpy(given), self.codes, group=self.group
        ).numpy()
        return found


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """What a file has to hold.

    Attributes:
        payload: A file of the same kind in which only the codes of matrices differ: they are those
            next to the weights.
        roundings: What is known of those codes, by the layer's name.
    """

    payload: bytes
    roundings: Mapping[str, Rounding]

    @property
    def size_bytes(self) -> int:
        """Memory that it takes, about."""
        return len(self.payload) + sum(
            r.gptq.size_bytes + 4 * r.weight.numel() for r in self.roundings.values()
        )

    def to_plain(self) -> dict[str, Any]:
        """Return arrays and numbers, see ``exportgate.artifacts.packed``."""
        roundings = {name: rounding.to_plain() for name, rounding in self.roundings.items()}
        return {"payload": self.payload, "roundings": roundings}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> ExpectedFile:
        """Make what ``to_plain`` described."""
        roundings = plain["roundings"].items()
        return cls(plain["payload"], {name: Rounding.from_plain(item) for name, item in roundings})
