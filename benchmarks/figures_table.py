"""What ``benchmarks.figures`` measured, as one table with peers beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.exporters import Row
    from benchmarks.process_cost import ProcessCost

ENCODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "encoder_fp32.onnx": (
        "FP32 ONNX",
        ("nemo_fp32.onnx", "ort_optimizer_fp32.onnx", "olive_fp32.onnx"),
    ),
    "encoder_fp16.onnx": ("FP16 ONNX", ("ort_optimizer_fp16.onnx",)),
    "encoder_int8.onnx": (
        "INT8 ONNX",
        ("nemo_dynamic_int8.onnx", "nemo_static_int8.onnx", "olive_int8.onnx", "optimum_int8.onnx"),
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
    rows: Sequence[Row],
    release: ProcessCost,
    gates: Mapping[str, ProcessCost],
    differences: Sequence[str],
    about: str,
    *,
    judged: bool,
) -> str:
    """Return the tables.

    Args:
        rows: Peers' files and ours.
        release: Cost of the export of all files.
        gates: Cost of a gate of golden, ``cold`` and ``cached``.
        differences: Places at which the reports of these two gates differ, clocks aside.
        about: A sentence on the model and the machine.
        judged: Whether the model's words mean anything.
    """
    files = {row.file: row for row in rows}
    lines = [
        "# Figures",
        "",
        "`make bench-figures`. Latency is the median over interleaved blocks of the ratio of",
        "processor time to NeMo's own export (encoder to encoder, step to step) on ONNX Runtime,",
        "one thread; dB against NeMo's FP32; words are those that NeMo decodes.",
        "",
        about,
        "",
        "| Measure | Peers: latency; MB; dB; words | Here: latency; MB; dB; words |",
        "|---|--:|--:|",
    ]
    for name, (title, peers) in ENCODERS.items():
        beside = "<br>".join(
            f"{files[peer].maker}: {_figures(files[peer], judged=judged)}"
            for peer in peers
            if peer in files
        )
        if name in files:
            here = _figures(files[name], judged=judged)
            lines.append(f"| {title} | {beside or '–'} | {here} |")
    lines += [
        "",
        "Seconds of processor time do not depend on who else is busy, those of the wall do: the",
        "machine was shared.",
        "",
        "| Command | CPU s | wall s | MB of one process | MB together |",
        "|---|--:|--:|--:|--:|",
        _cost("release of all 13 files of this model", release),
        *(_cost(f"gate of golden, `--target android`, {name}", gates[name]) for name in gates),
        "",
        "`exportgate history same` finds the reports of the two gates "
        + ("the same, clocks aside." if not differences else "different:"),
        *(f"- {place}" for place in differences),
        "",
    ]
    return "\n".join(lines)


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
