"""The one table of every file that a release ships: pure data, no torch.

A row's name is the file's name, the pytest id, the key in ``suites/gates.toml`` and the row of the
README's table, so that a reader who saw it once finds it everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exportgate.errors import ExportGateError

Graph = Literal["encoder", "step"]
Format = Literal["pte", "onnx"]
Precision = Literal["fp32", "fp16", "int8", "int4"]

TARGETS: dict[str, str] = {
    "web-dev": "FP32 ONNX, to develop a web page against",
    "web": "what a web page ships: INT8 ONNX for ONNX Runtime Web",
    "android-dev": "FP32 and FP16 ExecuTorch programs, to develop a keyboard against",
    "android": "what a keyboard ships: INT8 for ExecuTorch with XNNPACK, and for ONNX Runtime",
    "server": "FP16 and INT8 ONNX for ONNX Runtime on servers",
    "edge": "the smallest ExecuTorch programs: INT4 and INT8",
}
"""Deployment targets and what each is for; ``all`` stands for their union."""


class UnknownTargetError(ExportGateError, ValueError):
    """The target is not in ``TARGETS``."""

    def __init__(self, target: str) -> None:
        """Name the target and the known ones."""
        super().__init__(f"unknown target {target!r}; known: {', '.join([*TARGETS, 'all'])}")


class UnknownVariantError(ExportGateError, ValueError):
    """No row of the table has the name."""

    def __init__(self, name: str) -> None:
        """Name the variant and the known ones."""
        super().__init__(f"unknown variant {name!r}; known: {', '.join(v.name for v in VARIANTS)}")


@dataclass(frozen=True, slots=True)
class Variant:
    """One file of a release.

    Attributes:
        name: File name, unique in the table.
        exporter: Module ``exporters.<exporter>`` whose command line makes the file.
        graph: Which half of the model it holds.
        format: Container: ``pte`` (ExecuTorch) or ``onnx`` (ONNX Runtime).
        precision: Precision of the weights that carry the multiply-accumulates.
        targets: Deployment targets that ship the file.
        baseline: Name of the FP32 file of the same graph and format, against which size and
            latency ratios are taken; None for that FP32 file itself.
        summary: What the file is, in a line.
    """

    name: str
    exporter: str
    graph: Graph
    format: Format
    precision: Precision
    targets: tuple[str, ...]
    summary: str
    baseline: str | None = None


VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="encoder_fp32.onnx",
        exporter="export_onnx",
        graph="encoder",
        format="onnx",
        precision="fp32",
        targets=("web-dev",),
        summary="Encoder for ONNX Runtime in FP32; the reference of the other ONNX encoders",
    ),
    Variant(
        name="encoder_int8.onnx",
        exporter="export_onnx",
        graph="encoder",
        format="onnx",
        precision="int8",
        targets=("android", "server"),
        summary="Encoder for ONNX Runtime: static INT8, standard QDQ graph, optimised when opened",
        baseline="encoder_fp32.onnx",
    ),
    Variant(
        name="encoder_fp16.onnx",
        exporter="export_optimized_onnx",
        graph="encoder",
        format="onnx",
        precision="fp16",
        targets=("server",),
        summary="Encoder for servers: weights stored in FP16, arithmetic in FP32",
        baseline="encoder_fp32.onnx",
    ),
    Variant(
        name="encoder_int8_web.onnx",
        exporter="export_optimized_onnx",
        graph="encoder",
        format="onnx",
        precision="int8",
        targets=("web",),
        summary="Encoder for ONNX Runtime Web: static INT8, graph optimised ahead of time",
        baseline="encoder_fp32.onnx",
    ),
    Variant(
        name="encoder_fp32.pte",
        exporter="export_pte_fp32",
        graph="encoder",
        format="pte",
        precision="fp32",
        targets=("android-dev", "android"),
        summary="Encoder for XNNPACK in FP32; the reference of the other .pte encoders",
    ),
    Variant(
        name="encoder_int8.pte",
        exporter="export_pte",
        graph="encoder",
        format="pte",
        precision="int8",
        targets=("android",),
        summary="Encoder for XNNPACK, PT2E: INT8 weights per channel, activations per call",
        baseline="encoder_fp32.pte",
    ),
    Variant(
        name="encoder_fp16.pte",
        exporter="export_pte_optimized",
        graph="encoder",
        format="pte",
        precision="fp16",
        targets=("android-dev",),
        summary="Encoder for XNNPACK on cores with FP16 arithmetic (not a Cortex-A53)",
        baseline="encoder_fp32.pte",
    ),
    Variant(
        name="encoder_int8_ultra.pte",
        exporter="export_pte_ultra",
        graph="encoder",
        format="pte",
        precision="int8",
        targets=("edge",),
        summary="Encoder for XNNPACK, the smallest and fastest with INT8 weights",
        baseline="encoder_fp32.pte",
    ),
    Variant(
        name="encoder_int4.pte",
        exporter="export_pte_ultra",
        graph="encoder",
        format="pte",
        precision="int4",
        targets=("edge",),
        summary="Encoder for XNNPACK, the smallest that keeps the words: 4-bit weights",
        baseline="encoder_fp32.pte",
    ),
    Variant(
        name="step_fp32.pte",
        exporter="export_rnnt_step",
        graph="step",
        format="pte",
        precision="fp32",
        targets=("android-dev", "android"),
        summary="Prediction network and joint for one symbol, for XNNPACK",
    ),
    Variant(
        name="step_int8.pte",
        exporter="export_rnnt_step",
        graph="step",
        format="pte",
        precision="int8",
        targets=("edge",),
        summary="Prediction network and joint for one symbol, for XNNPACK, INT8 weights",
        baseline="step_fp32.pte",
    ),
    Variant(
        name="step_fp32.onnx",
        exporter="export_rnnt_step",
        graph="step",
        format="onnx",
        precision="fp32",
        targets=("web-dev", "web", "android", "server"),
        summary="Prediction network and joint for a batch of symbols, for ONNX Runtime",
    ),
    Variant(
        name="step_int8.onnx",
        exporter="export_rnnt_step",
        graph="step",
        format="onnx",
        precision="int8",
        targets=("web", "server"),
        summary="Prediction network and joint for a batch of symbols, INT8 weights",
        baseline="step_fp32.onnx",
    ),
)


def is_quantized(precision: Precision) -> bool:
    """Return whether weights of this precision are integers, rounded by what swipes are like."""
    return precision in ("int8", "int4")


def variant(name: str) -> Variant:
    """Return the row with this name.

    Raises:
        UnknownVariantError: No row has it.
    """
    for row in VARIANTS:
        if row.name == name:
            return row
    raise UnknownVariantError(name)


def variants_of(target: str) -> tuple[Variant, ...]:
    """Return the rows that a target ships, in the table's order.

    Raises:
        UnknownTargetError: The target is unknown.
    """
    if target == "all":
        return VARIANTS
    if target not in TARGETS:
        raise UnknownTargetError(target)
    return tuple(row for row in VARIANTS if target in row.targets)
