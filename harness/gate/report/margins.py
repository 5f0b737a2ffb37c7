"""How near each value is to its limit, on one scale for every unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.gate.gates import Reason, Status
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gate.gates import Gate, Verdict


@dataclass(frozen=True, slots=True)
class Margin:
    """A verdict and how much of its limit is used up.

    Attributes:
        verdict: What was judged.
        used: 0 far from the limit, 1 at it, above 1 broken.
    """

    verdict: Verdict
    used: float

    @property
    def percent(self) -> str:
        """For a reader, e.g. ``85 %``."""
        return "> 999 %" if self.used >= 9.995 else f"{100 * self.used:.0f} %"


def margin(verdict: Verdict) -> Margin | None:
    """Return how much of a limit a value uses; None where there is no such thing as a margin.

    A decibel counts as the factor of amplitude that it is; a p-value by its logarithm, which is
    the weight of the evidence; a share that may fall to 0.99 by what is missing from 1. Of a count
    that has to be one number there is no margin: it is kept or broken.
    """
    value, gate = verdict.value, verdict.gate
    if value is None or not math.isfinite(value):
        return None
    used = _used(gate, value)
    return None if used is None else Margin(verdict, used)


def narrowest(verdicts: Sequence[Verdict], most: int) -> list[Margin]:
    """Return the margins of kept gates, narrowest first."""
    found = [margin(verdict) for verdict in verdicts if verdict.status is Status.PASS]
    known = [item for item in found if item is not None]
    return sorted(known, key=lambda item: -item.used)[:most]


def _used(gate: Gate, value: float) -> float | None:
    unit, limit, least = METRICS[gate.metric].unit, gate.limit, gate.direction == "min"
    if unit == "dB":
        return float(10 ** ((limit - value if least else value - limit) / 20))
    if unit == "" and gate.reason is Reason.EXACT:
        return None
    if gate.metric.endswith("_p") and least and 0 < limit < 1:
        return math.log(min(1.0, max(value, 1e-300))) / math.log(limit)
    if unit == "" and least and 0.5 < limit < 1 and value <= 1:
        return (1 - value) / (1 - limit)
    return _ratio(limit, value, least=least)


def _ratio(limit: float, value: float, *, least: bool) -> float | None:
    """Return the ratio of two numbers of one sign; a limit of 0 has no scale."""
    if limit <= 0 or value < 0 or (least and value == 0):
        return None
    return limit / value if least else value / limit
