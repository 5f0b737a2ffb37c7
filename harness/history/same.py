"""Two reports of one question: equal in every value, but for what clocks gave.

What is sped up must not change what is found. ``exportgate history same A.json B.json`` says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError
from exportgate.reading import read_json, reason
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLOCKS = frozenset(
    {
        "speedup",
        "proven_speedup",
        "baseline_latency_ratio",
        "latency_ms",
        "latency_p50_ms",
        "latency_p90_ms",
        "latency_p99_ms",
        "first_run_ms",
        "load_ms",
        "peak_memory_bytes",
    }
)
"""Metrics that no two runs give alike; of them, only the verdict is compared."""
_OF_A_RUN = ("gate.", "environment.load_1min")
"""Places that say when, and by which version, a report was made."""
_MOMENTARY = ("value", "samples", "detail", "margin")


class SameError(ExportGateError, ValueError):
    """A file that is no report."""


def differences(first: Path, second: Path) -> list[str]:
    """Name each place at which two reports differ, with both values; clocks aside.

    Raises:
        SameError: One is no report of the gate.
    """
    sides = [_placed(_read(path)) for path in (first, second)]
    places = sorted({*sides[0], *sides[1]})
    lines = []
    for place in places:
        was, now = (side.get(place, "nothing") for side in sides)
        # A NaN is not itself, but what is written of it is.
        if json.dumps(was) != json.dumps(now):
            lines.append(f"{place}: {_short(was)}, and then {_short(now)}")
    return lines


def _read(path: Path) -> dict[str, Any]:
    try:
        report = read_json(path)
        if not isinstance(report, dict) or not {"schema", "gates", "measurements"} <= {*report}:
            msg = "no gates in it"
            raise ValueError(msg)  # noqa: TRY301 - one message for whatever is no report
    except (OSError, ValueError) as error:
        msg = f"{path}: no report of the gate ({reason(error)}); expected a run's report.json"
        raise SameError(msg) from error
    return report


def _placed(report: dict[str, Any]) -> dict[str, Any]:
    """Return each value of a report that is no clock's, by its place."""
    return {place: value for place, value in _walk(report, "") if not place.startswith(_OF_A_RUN)}


def _walk(value: object, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        timed = value.get("metric") in CLOCKS
        for key, item in value.items():
            if not (timed and key in _MOMENTARY):
                yield from _walk(item, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        yield f"{place} (how many)", len(value)
        names = [_name(item) for item in value]
        for index, item in enumerate(value):
            name = names[index] if names[index] and names.count(names[index]) == 1 else index
            yield from _walk(item, f"{place}[{name}]")
    else:
        yield place, value


def _name(item: object) -> str:
    """Return what a report's row is about, so that a new row does not shift the others."""
    if not isinstance(item, dict) or item.get("metric") not in METRICS:
        return ""
    return " ".join(
        str(item.get(key, "")) for key in ("subject", "artifact", "metric", "direction")
    )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
