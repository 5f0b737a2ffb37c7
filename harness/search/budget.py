"""What a file may take, lose and cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.search.space import Unit


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds that a searched file keeps.

    Attributes:
        max_loss: Net words lost, of 100 swipes.
        min_db: Signal to noise against FP32.
        max_bytes: Of the file; None for any.
        unit: What an inference costs in; None where nothing bounds it.
        max_cost: Of an inference.
    """

    max_loss: float
    min_db: float
    max_bytes: int | None = None
    unit: Unit | None = None
    max_cost: float | None = None

    def fits(self, size_bytes: int, cost: float | None) -> bool:
        """Tell whether a file is small enough and costs little enough."""
        small = self.max_bytes is None or size_bytes <= self.max_bytes
        cheap = self.max_cost is None or (cost is not None and cost <= self.max_cost)
        return small and cheap

    def said(self) -> str:
        """Return it as part of a sentence."""
        parts = [f"at most {self.max_loss:g} words of 100 lost, at least {self.min_db:g} dB"]
        if self.max_bytes is not None:
            parts.append(f"at most {self.max_bytes / 1e6:g} MB")
        if self.max_cost is not None:
            parts.append(f"at most {self.max_cost:,.6g} {self.unit} an inference")
        return ", ".join(parts)
