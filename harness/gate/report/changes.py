"""What changed beside the released files: gates of which the value moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from harness.gate.gates import Verdict
    from harness.gate.report.outcome import Report

LEAST = 0.01
"""Change, relative to the value before, that is worth a line."""


def change_lines(report: Report) -> list[str]:
    """Return a sentence for each gate that broke or moved since the release; worst first.

    Times differ from machine to machine, so that only ``baseline_`` metrics, which are measured
    side by side, speak of them. Empty without a baseline.
    """
    found = [
        (verdict.good, -abs(change), line)
        for verdict in report.verdicts
        if (said := _change(report, verdict)) is not None
        for change, line in [said]
    ]
    return [line for *_, line in sorted(found)]


def _change(report: Report, verdict: Verdict) -> tuple[float, str] | None:
    gate, value = verdict.gate, verdict.value
    metric = METRICS[gate.metric]
    before = report.baseline.get(gate.artifact, {}).get(gate.metric)
    if before is None or gate.metric == "speedup" or metric.role is Role.INFORMATIONAL:
        return None
    name = f"{gate.artifact} {gate.metric}"
    if value is None:
        return math.inf, f"{name}: {metric.format(before)} → {verdict.status}"
    change = _relative(before, value)
    if verdict.good and abs(change) < LEAST:
        return None
    percent = "" if math.isinf(change) else f" ({change:+.1%})"
    broken = "" if verdict.good else f", {verdict.status}: must be {gate.bound}"
    return change, f"{name}: {metric.format(before)} → {metric.format(value)}{percent}{broken}"


def _relative(before: float, now: float) -> float:
    if before == now:
        return 0.0
    return (now - before) / abs(before) if before else math.inf
