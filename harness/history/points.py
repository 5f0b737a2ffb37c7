"""A metric's values across runs, and what of them may stand in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.history.store import Run


@dataclass(frozen=True, slots=True)
class Point:
    """A metric of an artifact in a run; ``status`` is None where no gate judges it."""

    run: Run
    value: float | None
    status: str | None


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What may stand in one line."""

    artifact: str
    metric: str
    device: str
    environment: str
