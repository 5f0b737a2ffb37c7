"""The figures that a release is held to: peers, before, now, and what was asked at least."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.exporters import Row
    from benchmarks.process_cost import ProcessCost

PEERS = {
    "FP32": ("nemo_fp32.onnx", "ort_optimizer_fp32.onnx", "olive_fp32.onnx"),
    "INT8": (
        "nemo_dynamic_int8.onnx", "nemo_static_int8.onnx", "olive_dynamic_int8.onnx",
        "optimum_int8.onnx",
    ),
    "PTE": ("plain_int8.pte",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """What one run measured; what is empty was not.

    Attributes:
        rows: Files, peers' and ours, by name.
        release: The export of all files.
        golden: Gates of golden, ``cold`` and ``cached``.
        full: Gates of the model of full size.
        counts: Instructions on an emulated arm64 core, by file.
        page: INT8 ÷ FP32 in a page, ``encoder`` and ``step``.
        features: Points per second, ``alone`` and ``batched``.
        tests: The project's own.
        judged: Whether the model is trained, so that its words and decibels mean anything.
    """

    rows: Mapping[str, Row] = field(default_factory=dict)
    release: ProcessCost | None = None
    golden: Mapping[str, ProcessCost] = field(default_factory=dict)
    full: Mapping[str, ProcessCost] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    page: Mapping[str, float] = field(default_factory=dict)
    features: Mapping[str, float] = field(default_factory=dict)
    tests: ProcessCost | None = None
    judged: bool = True


@dataclass(frozen=True, slots=True)
class Goal:
    """One number and its bound.

    Attributes:
        read: Gives it; None where it was not measured.
        bound: What it should be ``most`` or ``least``.
        form: How the number is written.
        side: On which side of the bound it should lie.
    """

    read: Callable[[Found], float | None]
    bound: float
    form: str
    side: Literal["most", "least"] = "most"

    def said(self, found: Found) -> str:
        """Return the number; bold where it misses its bound."""
        value = self.read(found)
        if value is None:
            return "not measured"
        text = format(value, self.form).replace("-", "−")
        return text if self.kept(value) else f"**{text}**"

    def kept(self, value: float) -> bool:
        """Say whether a number keeps the bound."""
        return value <= self.bound if self.side == "most" else value >= self.bound

    def asked(self) -> str:
        """Return the bound."""
        return f"{'≤' if self.side == 'most' else '≥'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Measure:
    """A line of the table.

    Attributes:
        title: What is measured, and its units.
        peers: What others reach: a sentence, or the names of their files.
        before: What was reached when the goals were set.
        goals: In the order of the title.
    """

    title: str
    peers: str
    before: str
    goals: tuple[Goal, ...]


def _latency(name: str) -> Callable[[Found], float | None]:
    return lambda found: found.rows[name].latency if name in found.rows else None


def _size(name: str) -> Callable[[Found], float | None]:
    def read(found: Found) -> float | None:
        size = found.rows[name].size_bytes if name in found.rows else None
        return None if size is None else size / 1e6

    return read


def _decibels(name: str) -> Callable[[Found], float | None]:
    def read(found: Found) -> float | None:
        return found.rows[name].sqnr_db if name in found.rows and found.judged else None

    return read


def _counted(name: str, base: str) -> Callable[[Found], float | None]:
    def read(found: Found) -> float | None:
        counts = found.counts
        return counts[name] / counts[base] if {name, base} <= {*counts} else None

    return read


def _smallest(found: Found) -> float | None:
    """Return the MB of the smallest encoder of ours that keeps 99 of 100 words."""
    sizes = [
        row.size_bytes / 1e6
        for name, row in found.rows.items()
        if row.maker == "**ours**" and name.startswith("encoder") and row.size_bytes
        if row.words is not None and row.words >= 0.99
    ]
    return min(sizes, default=None) if found.judged else None


def _file(
    name: str, latency: float, size: float, decibels: float | None = None
) -> tuple[Goal, ...]:
    goals = (Goal(_latency(name), latency, ".3f"), Goal(_size(name), size, ".2f"))
    if decibels is None:
        return goals
    return (*goals, Goal(_decibels(name), decibels, ".1f", "least"))


MEASURES = (
    Measure("FP32 ONNX: latency; MB", "FP32", "0.85; 55.5", _file("encoder_fp32.onnx", 0.80, 55)),
    Measure(
        "INT8 ONNX: latency; MB; dB", "INT8", "0.39; 14.9; 46.7",
        _file("encoder_int8.onnx", 0.35, 14.6, 46),
    ),
    Measure(
        "INT8 .pte: latency; MB; dB", "PTE", "0.32–0.33; 14.2; 47.2",
        _file("encoder_int8_ultra.pte", 0.30, 14.2, 46),
    ),
    Measure(
        "smallest encoder with 0.99 of NeMo's words: MB",
        "– (Parakeet, ternary with retraining: 14× smaller)", "8.27",
        (Goal(_smallest, 6.6, ".2f"),),
    ),
    Measure(
        "INT4 .pte ÷ INT8 .pte: instructions on arm64", "–", "slower on x86: 0.39–0.42",
        (Goal(_counted("encoder_int4.pte", "encoder_int8_ultra.pte"), 1, ".2f"),),
    ),
    Measure(
        "a page, INT8 ÷ FP32, one thread: encoder; step at batch 1", "–", "0.79–0.83; 1.5",
        (
            Goal(lambda found: found.page.get("encoder"), 0.60, ".2f"),
            Goal(lambda found: found.page.get("step"), 1.0, ".2f"),
        ),
    ),
    Measure(
        "step INT8: latency ONNX; .pte", "1.00 (NeMo, FP32)", "0.40; 0.36",
        (
            Goal(_latency("step_int8.onnx"), 0.38, ".3f"),
            Goal(_latency("step_int8.pte"), 0.32, ".3f"),
        ),
    ),
    Measure(
        "FP16 .pte ÷ FP32 .pte: instructions on arm64 with FP16 arithmetic", "–",
        "not measured (x86: 1.09)",
        (Goal(_counted("encoder_fp16.pte", "encoder_fp32.pte"), 0.75, ".2f"),),
    ),
    Measure(
        "13 files of the model: wall s; GB of one process", "416 one by one", "125–131; 2.0",
        (
            Goal(lambda found: found.release.wall_s if found.release else None, 90, ".0f"),
            Goal(lambda found: found.release.peak_mb / 1e3 if found.release else None, 1.6, ".2f"),
        ),
    ),
    Measure(
        "gate of the model, android, 320 swipes: wall s cold; cached", "–", "291; 225",
        (
            Goal(lambda found: _wall(found.full, "cold") if found.judged else None, 150, ".0f"),
            Goal(lambda found: _wall(found.full, "cached") if found.judged else None, 75, ".0f"),
        ),
    ),
    Measure(
        "gate of golden, android: wall s cold; cached", "–", "64; 52",
        (
            Goal(lambda found: _wall(found.golden, "cold"), 45, ".0f"),
            Goal(lambda found: _wall(found.golden, "cached"), 25, ".0f"),
        ),
    ),
    Measure(
        "`make test`: wall min", "–", "7.7",
        (Goal(lambda found: found.tests.wall_s / 60 if found.tests else None, 6, ".1f"),),
    ),
    Measure(
        "features, thousand points/s: a swipe at a time; batched", "15 (public loop)", "204; 1600",
        (
            Goal(lambda found: _thousands(found, "alone"), 600, ".0f", "least"),
            Goal(lambda found: _thousands(found, "batched"), 2000, ".0f", "least"),
        ),
    ),
)  # fmt: skip


def _wall(gates: Mapping[str, ProcessCost], name: str) -> float | None:
    return gates[name].wall_s if name in gates else None


def _thousands(found: Found, name: str) -> float | None:
    return found.features[name] / 1e3 if name in found.features else None


def table(found: Found, measures: Sequence[Measure] = MEASURES) -> list[str]:
    """Return the table: what misses its goal is bold, and counted below it."""
    lines = [
        "| Measure | Peers | Before | Now | At least | Missed |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for measure in measures:
        parts = measure.title.rpartition(": ")[2].split("; ")
        values = [goal.read(found) for goal in measure.goals]
        missed = [
            part if len(parts) > 1 else "yes"
            for part, goal, value in zip(parts, measure.goals, values, strict=True)
            if value is not None and not goal.kept(value)
        ]
        now = "; ".join(goal.said(found) for goal in measure.goals)
        asked = "; ".join(goal.asked() for goal in measure.goals)
        lines.append(
            f"| {measure.title} | {_beside(found, measure.peers)} | {measure.before} | {now} "
            f"| {asked} | {', '.join(missed) or '–'} |"
        )
    return lines


def _beside(found: Found, peers: str) -> str:
    """Return the peers' latency and MB, of those files of theirs that came about."""
    if peers not in PEERS:
        return peers
    rows = [found.rows[name] for name in PEERS[peers] if name in found.rows]
    latencies = [row.latency for row in rows if row.latency is not None]
    sizes = [row.size_bytes / 1e6 for row in rows if row.size_bytes]
    if not latencies or not sizes:
        return "not measured"
    return f"{_span(latencies, '.2f')}; {_span(sizes, '.1f')}"


def _span(values: Sequence[float], form: str) -> str:
    least, most = (format(value, form) for value in (min(values), max(values)))
    return least if least == most else f"{least}–{most}"
