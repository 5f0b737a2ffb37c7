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

_NEAR_ONE = 1.5
"""A ratio whose limit lies between 1 and this would be 1 if nothing had changed."""


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
    the weight of the evidence; a share that may fall to 0.99 by what is missing from 1, and a ratio
    that may rise to 1.05 by what is above 1. Of a count there is no margin: it is kept or broken.
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


def narrowest_by_gate(verdicts: Sequence[Verdict], most: int) -> list[Margin]:
    """Return the narrowest margin of each gate alone, the file where it is narrowest."""
    by_gate: dict[str, Margin] = {}
    for item in narrowest(verdicts, len(verdicts)):
        by_gate.setdefault(item.verdict.gate.metric, item)
    return list(by_gate.values())[:most]


def _used(gate: Gate, value: float) -> float | None:
    unit, limit, least = METRICS[gate.metric].unit, gate.limit, gate.direction == "min"
    if unit == "dB":
        return float(10 ** ((limit - value if least else value - limit) / 20))
    if unit == "" and (gate.reason is Reason.EXACT or _is_count(limit, value)):
        return None
    if gate.metric.endswith("_p") and least and 0 < limit < 1:
        return math.log(min(1.0, max(value, 1e-300))) / math.log(limit)
    if unit == "" and least and 0.5 < limit < 1 and value <= 1:
        return (1 - value) / (1 - limit)
    if unit in {"", "×"} and not least and 1 < limit < _NEAR_ONE:
        return max(0.0, (value - 1) / (limit - 1))
    return _ratio(limit, value, least=least)


def _is_count(limit: float, value: float) -> bool:
    return float(limit).is_integer() and float(value).is_integer()


def _ratio(limit: float, value: float, *, least: bool) -> float | None:
    """Return the ratio of two numbers of one sign; a limit of 0 has no scale."""
    if limit <= 0 or value < 0 or (least and value == 0):
        return None
    return limit / value if least else value / limit
