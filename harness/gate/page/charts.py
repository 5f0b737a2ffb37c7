"""The pictures of a report: sizes, ratios, layers, word lengths and the trend over checkpoints."""

from __future__ import annotations

import math
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.gate.page.svg import BAD, DIM, INK, MARKERS, SERIES, WIDTH_IN, Picture, drawn
from harness.gate.report.outcome import Kind
from harness.measure.compare import SQNR_OF_EQUAL_DB
from harness.measure.statistics import StatisticsError, bootstrap_ratio
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.gate.report.outcome import Measured, Report
    from harness.history.points import Point, SeriesKey

RATIOS = ("speedup", "baseline_latency_ratio", "baseline_instruction_ratio")
TREND = ("word_accuracy", "sqnr_db", "size_bytes")
"""Metrics whose trend over checkpoints is drawn."""
_ROW_IN = 0.26
"""Height of a bar."""
_PRECISIONS = ("FP32", "FP16", "INT8", "INT4")
_REST = "graph, scales and the rest"


def charts(report: Report, trend: Mapping[SeriesKey, Sequence[Point]]) -> list[Picture]:
    """Return the pictures that a report has data for."""
    found = [_sizes(report), *(_ratios(report, metric) for metric in RATIOS), _swipes(report)]
    found += [_layers(report), _word_lengths(report)]
    return [picture for picture in [*found, *_trends(trend)] if picture is not None]


def _height(rows: int) -> float:
    return max(1.5, 0.9 + _ROW_IN * rows)


def _sizes(report: Report) -> Picture | None:
    """Stack each file's bytes: weights by their type, and what is no weight."""
    stacks: dict[str, dict[str, float]] = {}
    for name in report.artifacts:
        rows = report.rows(name, Kind.WEIGHT_BYTES)
        size = report.request.get("file_bytes", {}).get(name)
        if rows and size:
            parts: dict[str, float] = {}
            for row in rows:
                kind = _precision(row["type"])
                parts[kind] = parts.get(kind, 0.0) + row["bytes"] / 1e6
            rest = size / 1e6 - sum(parts.values())
            stacks[name] = parts | ({_REST: rest} if rest > 0 else {})
    if not stacks:
        return None
    title = "Size by precision"
    svg = drawn("sizes", title, partial(_stack, stacks), (WIDTH_IN, _height(len(stacks) + 2)))
    caption = "Megabytes of each file, by the type in which the bytes are stored."
    return Picture(title, caption, svg)


def _precision(stored: str) -> str:
    """Return what a type is called by those who ship it; XNNPACK names the kind of scale too."""
    bits = re.search(r"int(\d+)|float(\d+)", stored)
    if bits is None:
        return stored
    return f"FP{bits[2]}" if bits[2] else f"INT{bits[1]}"


def _stack(stacks: Mapping[str, Mapping[str, float]], axes: Any) -> None:  # noqa: ANN401
    seen = {kind for parts in stacks.values() for kind in parts}
    last = [_REST] if _REST in seen else []
    kinds = [kind for kind in _PRECISIONS if kind in seen]
    kinds += [*sorted(seen - {*_PRECISIONS, _REST}), *last]
    left = np.zeros(len(stacks))
    for place, kind in enumerate(kinds):
        widths = np.array([parts.get(kind, 0.0) for parts in stacks.values()])
        axes.barh([*stacks], widths, left=left, label=kind, color=SERIES[place % len(SERIES)])
        left += widths
    for row, total in enumerate(left):
        axes.annotate(
            f"{total:.2f}", (total, row), (3, 0), textcoords="offset points", va="center",
            color=INK, fontsize=8.5,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlim(0, left.max() * 1.14)
    axes.set_xlabel("MB")
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=8.5)


def _ratios(report: Report, metric: str) -> Picture | None:
    """Draw a ratio of each file with the interval of its median, beside its limit."""
    measured = {name: report.of(name, metric) for name in report.artifacts}
    found = {name: item for name, item in measured.items() if item and item.value > 0}
    if not found:
        return None
    limits = {v.gate.artifact: v.gate.limit for v in report.verdicts if v.gate.metric == metric}
    title = {
        "speedup": "Speed beside the FP32 file",
        "baseline_latency_ratio": "Processor time beside the released file",
        "baseline_instruction_ratio": "Instructions beside the released file",
    }[metric]
    svg = drawn(metric, title, partial(_ranges, found, limits), (WIDTH_IN, _height(len(found))))
    caption = f"{METRICS[metric].meaning}; bars: 95 % interval of the median; red: the limit."
    return Picture(title, caption[0].upper() + caption[1:], svg)


def _ranges(found: Mapping[str, Measured], limits: Mapping[str, float], axes: Any) -> None:  # noqa: ANN401
    for row, (name, item) in enumerate(found.items()):
        low, middle, high = _interval(item)
        axes.plot([low, high], [row, row], color=SERIES[0], linewidth=4, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=INK, markersize=5)
        limit = limits.get(name)
        if limit is not None:
            axes.plot([limit, limit], [row - 0.35, row + 0.35], color=BAD, linewidth=2)
    axes.set_yticks(range(len(found)), [*found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("ratio")


def _interval(item: Measured) -> tuple[float, float, float]:
    """Return the value and its 95 % interval; of a single number the number alone."""
    try:
        found = bootstrap_ratio(item.samples, np.ones(len(item.samples)), confidence=0.95)
    except StatisticsError:
        return item.value, item.value, item.value
    return found.low, item.value, found.high


def _swipes(report: Report) -> Picture | None:
    """Draw the signal to noise of each swipe, a row of dots a file."""
    measured = {name: report.of(name, "worst_sqnr_db") for name in report.artifacts}
    found = {
        name: samples
        for name, item in measured.items()
        if item and len(samples := [s for s in item.samples if math.isfinite(s)]) > 1
    }
    if not found:
        return None
    limits = {
        v.gate.artifact: v.gate.limit for v in report.verdicts if v.gate.metric == "worst_sqnr_db"
    }
    title = "Signal to noise of each swipe"
    svg = drawn("swipe-db", title, partial(_strips, found, limits), (WIDTH_IN, _height(len(found))))
    return Picture(title, "Each stroke is a swipe; red: the least that is allowed.", svg)


def _strips(found: Mapping[str, Sequence[float]], limits: Mapping[str, float], axes: Any) -> None:  # noqa: ANN401
    for row, (name, samples) in enumerate(found.items()):
        # A few hundred swipes look the same as the thousands that a page has no room for.
        some = np.quantile(samples, np.linspace(0, 1, min(len(samples), 120)))
        # One line with gaps: a marker each would be a third of the page's bytes.
        xs = np.repeat(some, 3)
        ys = np.tile([row - 0.3, row + 0.3, np.nan], len(some))
        axes.plot(xs, ys, color=SERIES[0], linewidth=0.8, alpha=0.6)
        limit = limits.get(name)
        if limit is not None:
            axes.plot([limit, limit], [row - 0.35, row + 0.35], color=BAD, linewidth=2)
    axes.set_yticks(range(len(found)), [*found])
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(visible=True, axis="x")
    axes.set_xlabel("dB")


def _layers(report: Report) -> Picture | None:
    """Draw the signal to noise along the layers of each quantized file."""
    found = {}
    for name in report.artifacts:
        values = [float(row["sqnr_db"]) for row in report.rows(name, Kind.LAYERS)]
        if len(values) > 1:
            found[name] = [value if value < SQNR_OF_EQUAL_DB else math.nan for value in values]
    if not found:
        return None
    title = "Signal to noise by layer"
    svg = drawn("layers", title, partial(_lines, found), (WIDTH_IN, 2.7 + 0.18 * len(found)))
    caption = (
        "From the first layer to the last, against the FP32 file's (of a .pte: its weights); "
        "where both are equal the line has a gap."
    )
    return Picture(title, caption, svg)


def _lines(found: Mapping[str, Sequence[float]], axes: Any) -> None:  # noqa: ANN401
    for place, (name, values) in enumerate(found.items()):
        # Files have different numbers of layers: the axis is the way through the network.
        axes.plot(
            np.linspace(0, 100, len(values)), values, label=name, linewidth=1.2,
            color=SERIES[place % len(SERIES)], marker=MARKERS[place % len(MARKERS)], markersize=3,
        )  # fmt: skip
    axes.grid(visible=True)
    axes.set_xlabel("% of the layers")
    axes.set_ylabel("dB")
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, fontsize=8)


def _word_lengths(report: Report) -> Picture | None:
    """Draw the share of words that are right by their length, beside NeMo's."""
    found = {name: report.rows(name, Kind.WORD_LENGTHS) for name in report.artifacts}
    found = {name: rows for name, rows in found.items() if rows}
    if not found:
        return None
    title = "Accuracy by word length"
    svg = drawn("lengths", title, partial(_points, found), (WIDTH_IN, 2.7 + 0.18 * len(found)))
    caption = "Share of swipes decoded right, with its 95 % interval; grey: NeMo on the same."
    return Picture(title, caption, svg)


def _points(found: Mapping[str, Sequence[Mapping[str, Any]]], axes: Any) -> None:  # noqa: ANN401
    first = next(iter(found.values()))
    groups = [row["group"] for row in first]
    nemo = [row["nemo_right"] / row["swipes"] for row in first]
    axes.bar(range(len(groups)), nemo, color=DIM, alpha=0.25, width=0.9, label="NeMo")
    step = 0.7 / max(1, len(found))
    for place, (name, rows) in enumerate(found.items()):
        xs = np.arange(len(rows)) + (place - (len(found) - 1) / 2) * step
        shares = np.array([row["right"] / row["swipes"] for row in rows])
        ranges = np.array([_wilson(row["right"], row["swipes"]) for row in rows]).T
        axes.errorbar(
            xs, shares, yerr=np.abs(ranges - shares), label=name, markersize=4, linewidth=1,
            fmt=MARKERS[place % len(MARKERS)], color=SERIES[place % len(SERIES)],
        )  # fmt: skip
    labels = [f"{row['group']}\n({row['swipes']})" for row in first]
    axes.set_xticks(range(len(groups)), [text.replace(" letters", "") for text in labels])
    axes.set_xlabel("letters (swipes)")
    axes.set_ylim(0, 1.02)
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, fontsize=8)


def _wilson(right: int, swipes: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share (J. Amer. Statist. Assoc. 22 (1927), 209-212)."""
    # A second to import, and only pictures need it.
    from scipy.stats import binomtest  # noqa: PLC0415

    found = binomtest(right, swipes).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def _trends(trend: Mapping[SeriesKey, Sequence[Point]]) -> list[Picture]:
    """Draw each metric over the checkpoints of the history."""
    found = []
    for metric in TREND:
        lines = {key: points for key, points in trend.items() if key.metric == metric}
        if any(len(points) > 1 for points in lines.values()):
            title = f"Trend over checkpoints: {metric}"
            size = (WIDTH_IN, 2.9 + 0.18 * len(lines))
            svg = drawn(f"trend-{metric}", title, partial(_trend, metric, lines), size)
            caption = f"{METRICS[metric].meaning}; crosses: broken gates; the last is this run."
            found.append(Picture(title, caption[0].upper() + caption[1:], svg))
    return found


def _trend(metric: str, lines: Mapping[SeriesKey, Sequence[Point]], axes: Any) -> None:  # noqa: ANN401
    runs = {point.run.number: point.run for points in lines.values() for point in points}
    places = {number: place for place, number in enumerate(sorted(runs))}
    several = len({key.environment for key in lines}) > 1
    scale = 1e-6 if metric.endswith("_bytes") else 1.0
    for place, (key, points) in enumerate(lines.items()):
        name = f"{key.artifact}, {key.environment[:6]}" if several else key.artifact
        shown = [p for p in points if p.value is not None]
        colour = SERIES[place % len(SERIES)]
        xs = [places[p.run.number] for p in shown]
        ys = [(p.value or 0.0) * scale for p in shown]
        axes.plot(xs, ys, marker="o", markersize=3.5, linewidth=1.2, label=name, color=colour)
        broken = [p.status not in {None, "PASS"} for p in shown]
        bad = [(x, y) for x, y, b in zip(xs, ys, broken, strict=True) if b]
        axes.plot([x for x, _ in bad], [y for _, y in bad], "x", color=BAD, markersize=9)
    labels = [_stem(runs[number].checkpoint) for number in places]
    # Names of a few; of many only the ends, which do not run into each other.
    some = [0, len(places) - 1] if len(places) > 6 else range(len(places))
    axes.set_xticks([*some], [labels[place] for place in some], rotation=20, ha="right")
    axes.grid(visible=True)
    axes.set_ylabel("MB" if scale != 1 else METRICS[metric].unit or "share")
    axes.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=2, fontsize=8)


def _stem(checkpoint: str) -> str:
    stem = Path(checkpoint).stem
    return stem if len(stem) <= 18 else f"{stem[:8]}…{stem[-8:]}"
