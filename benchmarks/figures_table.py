"""What ``benchmarks.figures`` measured, as one table with peers beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.goals import table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.exporters import Row
    from benchmarks.goals import Found
    from benchmarks.process_cost import ProcessCost

ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "encoder_fp32.onnx": (
        "FP32 ONNX",
        ("nemo_fp32.onnx", "ort_optimizer_fp32.onnx", "olive_fp32.onnx"),
    ),
    "encoder_fp16.onnx": ("FP16 ONNX", ("ort_optimizer_fp16.onnx",)),
    "encoder_int8.onnx": (
        "INT8 ONNX",
        (
            "nemo_dynamic_int8.onnx",
            "nemo_static_int8.onnx",
            "olive_int8.onnx",
            "olive_dynamic_int8.onnx",
            "optimum_int8.onnx",
        ),
    ),
    "encoder_int8_web.onnx": ("INT8 ONNX for the web", ()),
    "encoder_fp32.pte": ("FP32 .pte", ("plain_fp32.pte",)),
    "encoder_fp16.pte": ("FP16 .pte", ()),
    "encoder_int8.pte": ("INT8 .pte, PT2E", ("plain_int8.pte",)),
    "encoder_int8_ultra.pte": ("INT8 .pte", ("plain_int8.pte",)),
    "encoder_int4.pte": ("INT4 .pte", ()),
    "step_int8.onnx": ("step, INT8 ONNX", ()),
    "step_int8.pte": ("step, INT8 .pte", ()),
}
"""Our file, what it is called here, and the peers' files beside it."""


def markdown(
    found: Found,
    differences: Mapping[str, Sequence[str]],
    about: str,
    loads: tuple[float, float],
) -> str:
    """Return the tables.

    Args:
        found: What was measured.
        differences: Of the gate of golden, ``gate``, and of the model, ``full-gate``: places at
            which the reports of the cold and of the cached run differ, clocks aside.
        about: A sentence on the model and the machine.
        loads: Least and most processes that wanted a core while it was measured.
    """
    lines = [
        "# Figures",
        "",
        "`make bench-figures`. Latency is the median over interleaved blocks of the ratio of",
        "processor time to NeMo's own export (encoder to encoder, step to step) on ONNX Runtime,",
        "one thread; dB against NeMo's FP32; words are those that NeMo decodes.",
        "",
        about,
        "",
        *_untrained(found),
        "## Goals",
        "",
        "Bold: misses its goal. *Before* is what was reached when the goals were set. Seconds of",
        f"the wall are of a machine with a load of {loads[0]:.1f} to {loads[1]:.1f}: the goals are",
        "of an idle one. Ratios of processor time feel a load too, by the caches that it takes.",
        "",
        *table(found),
        "",
        "## Files",
        "",
        *_files(found),
        "",
        "## Commands",
        "",
        "| Command | CPU s | wall s | MB of one process | MB together |",
        "|---|--:|--:|--:|--:|",
    ]
    if found.release is not None:
        lines.append(_cost("release of all 13 files of this model", found.release))
    for title, gates in (("golden", found.golden), ("this model", found.full)):
        lines += [
            _cost(f"gate of {title}, `--target android`, {run}", cost)
            for run, cost in gates.items()
        ]
    lines.append("")
    for part, title in (("gate", "golden"), ("full-gate", "this model")):
        if part not in differences:
            continue
        places = differences[part]
        lines += [
            f"`exportgate history same` finds the cold and the cached report of {title} "
            + ("the same, clocks aside." if not places else "different:"),
            *(f"- {place}" for place in places),
        ]
    return "\n".join([*lines, ""])


def _untrained(found: Found) -> list[str]:
    if found.judged:
        return []
    return [
        "Files of random weights have the size and the speed of trained ones, but their decibels",
        "and words mean nothing: [exporters.md](exporters.md) has those of a trained model. Gates",
        "take longer: no symbol leads, so that searches for words keep every path. Goals for",
        "these are not measured here.",
        "",
    ]


def _files(found: Found) -> list[str]:
    lines = [
        "| Measure | Peers: latency; MB; dB; words | Here: latency; MB; dB; words |",
        "|---|--:|--:|",
    ]
    for name, (title, peers) in ENCODERS.items():
        beside = "<br>".join(
            f"{found.rows[peer].maker}: {_figures(found.rows[peer], judged=found.judged)}"
            for peer in peers
            if peer in found.rows
        )
        if name in found.rows:
            here = _figures(found.rows[name], judged=found.judged)
            lines.append(f"| {title} | {beside or '–'} | {here} |")
    return lines


def _figures(row: Row, *, judged: bool) -> str:
    if row.problem:
        return row.problem
    parts = [
        "–" if row.latency is None else f"{row.latency:.2f}",
        "–" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}",
        "–" if row.sqnr_db is None else f"{row.sqnr_db:.1f}".replace("-", "−"),
        f"{row.words:.3f}" if judged and row.words is not None else "–",
    ]
    return "; ".join(parts)


def _cost(what: str, cost: ProcessCost) -> str:
    return (
        f"| {what} | {cost.cpu_s:.0f} | {cost.wall_s:.0f} | {cost.peak_mb:.0f} "
        f"| {cost.together_mb:.0f} |"
    )
