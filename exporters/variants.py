"""The one table of every file that a release ships: pure data, no torch.

A row's name is the file's name, the pytest id, the key in ``suites/gates.toml`` and the row of the
README's table, so that a reader who saw it once finds it everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from exporters.recipes import Recipe
from exportgate.contract import (
    OTHER_HALF,
    OURS,
    Interface,
    encoder_contract,
    part_contracts,
    part_of,
    step_contract,
)
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from exportgate.contract import IoContract, ModelSpec, Part

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


class UnsupportedVariantError(ExportGateError, ValueError):
    """No exporter makes what a row of the table asks for."""


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
        summary: What the file is, in a line.
        recipe: How it is made.
        baseline: Name of the FP32 file of the same graph and format, against which size and
            latency ratios are taken; None for that FP32 file itself.
        step: Name of the step that an encoder's words are decoded with; None for a step.
        fp16: Whether it runs only on cores that calculate in FP16.
        interface: How it is called; rows of the table are called as ours are.
    """

    name: str
    exporter: str
    graph: Graph
    format: Format
    precision: Precision
    targets: tuple[str, ...]
    summary: str
    recipe: Recipe
    baseline: str | None = None
    step: str | None = None
    fp16: bool = False
    interface: Interface = OURS

    def __post_init__(self) -> None:
        """Refuse an encoder that no step decodes.

        Raises:
            UnsupportedVariantError: An encoder names no step, or a step names one.
        """
        if (self.graph == "encoder") != (self.step is not None):
            msg = f"{self.name}: an encoder names the step that decodes it, a step names none"
            raise UnsupportedVariantError(msg)


VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="encoder_fp32.onnx",
        exporter="export_onnx",
        graph="encoder",
        format="onnx",
        precision="fp32",
        targets=("web-dev",),
        summary="Encoder for ONNX Runtime in FP32; the reference of the other ONNX encoders",
        recipe=Recipe(cost=5),
        step="step_fp32.onnx",
    ),
    Variant(
        name="encoder_int8.onnx",
        exporter="export_onnx",
        graph="encoder",
        format="onnx",
        precision="int8",
        targets=("android", "server"),
        summary="Encoder for ONNX Runtime: static INT8, standard QDQ graph, optimised when opened",
        recipe=Recipe(cost=7, quantizer="static", shares="INT8 graph for ONNX Runtime"),
        baseline="encoder_fp32.onnx",
        step="step_fp32.onnx",
    ),
    Variant(
        name="encoder_fp16.onnx",
        exporter="export_optimized_onnx",
        graph="encoder",
        format="onnx",
        precision="fp16",
        targets=("server",),
        summary="Encoder for servers: weights stored in FP16, arithmetic in FP32",
        recipe=Recipe(cost=5),
        baseline="encoder_fp32.onnx",
        step="step_fp32.onnx",
    ),
    Variant(
        name="encoder_int8_web.onnx",
        exporter="export_optimized_onnx",
        graph="encoder",
        format="onnx",
        precision="int8",
        targets=("web",),
        summary="Encoder for ONNX Runtime Web: static INT8, graph optimised ahead of time",
        recipe=Recipe(
            cost=7, quantizer="static", flavour="web", shares="INT8 graph for ONNX Runtime"
        ),
        baseline="encoder_fp32.onnx",
        step="step_fp32.onnx",
    ),
    Variant(
        name="encoder_fp32.pte",
        exporter="export_pte_fp32",
        graph="encoder",
        format="pte",
        precision="fp32",
        targets=("android-dev", "android"),
        summary="Encoder for XNNPACK in FP32; the reference of the other .pte encoders",
        recipe=Recipe(cost=6),
        step="step_fp32.pte",
    ),
    Variant(
        name="encoder_int8.pte",
        exporter="export_pte",
        graph="encoder",
        format="pte",
        precision="int8",
        targets=("android",),
        summary="Encoder for XNNPACK, PT2E: INT8 weights per channel, activations per call",
        recipe=Recipe(cost=8, quantizer="pt2e", shares="integer weights for XNNPACK"),
        baseline="encoder_fp32.pte",
        step="step_fp32.pte",
    ),
    Variant(
        name="encoder_fp16.pte",
        exporter="export_pte_optimized",
        graph="encoder",
        format="pte",
        precision="fp16",
        targets=("android-dev",),
        summary="Encoder for XNNPACK on cores with FP16 arithmetic (not a Cortex-A53)",
        recipe=Recipe(cost=6),
        baseline="encoder_fp32.pte",
        step="step_fp32.pte",
        fp16=True,
    ),
    Variant(
        name="encoder_int8_ultra.pte",
        exporter="export_pte_ultra",
        graph="encoder",
        format="pte",
        precision="int8",
        targets=("edge",),
        summary="Encoder for XNNPACK, the smallest and fastest with INT8 weights",
        recipe=Recipe(cost=8, quantizer="eager", shares="integer weights for XNNPACK"),
        baseline="encoder_fp32.pte",
        step="step_fp32.pte",
    ),
    Variant(
        name="encoder_int4.pte",
        exporter="export_pte_ultra",
        graph="encoder",
        format="pte",
        precision="int4",
        targets=("edge",),
        summary="Encoder for XNNPACK, the smallest that keeps the words: 4-bit weights",
        recipe=Recipe(cost=8, quantizer="eager", shares="integer weights for XNNPACK"),
        baseline="encoder_fp32.pte",
        step="step_fp32.pte",
    ),
    Variant(
        name="step_fp32.pte",
        exporter="export_rnnt_step",
        graph="step",
        format="pte",
        precision="fp32",
        targets=("android-dev", "android"),
        summary="Prediction network and joint for one symbol, for XNNPACK",
        recipe=Recipe(cost=2),
    ),
    Variant(
        name="step_int8.pte",
        exporter="export_rnnt_step",
        graph="step",
        format="pte",
        precision="int8",
        targets=("edge",),
        summary="Prediction network and joint for one symbol, for XNNPACK, INT8 weights",
        recipe=Recipe(cost=4, quantizer="eager"),
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
        recipe=Recipe(cost=1),
    ),
    Variant(
        name="step_int8.onnx",
        exporter="export_rnnt_step",
        graph="step",
        format="onnx",
        precision="int8",
        targets=(
            "server",
        ),  # in a page it is slower than FP32 at batch 1, which a keyboard decodes at
        summary="Prediction network and joint for a batch of symbols, INT8 weights",
        recipe=Recipe(cost=3, quantizer="dynamic"),
        baseline="step_fp32.onnx",
    ),
)


def is_quantized(precision: Precision) -> bool:
    """Return whether weights of this precision are integers, rounded by what swipes are like."""
    return precision in ("int8", "int4")


_NAME = re.compile(
    r"(?P<stem>.+?)(?P<int32>_int32)?(_batch(?P<batch>[1-9]\d*))?(?P<log_probs>_log_probs)?(?P<kind>\.\w+)"
)


def variant(name: str) -> Variant:
    """Return the row with this name, or a row with the interface that its name says.

    Raises:
        UnknownVariantError: No row has it.
    """
    for row in VARIANTS:
        if row.name == name:
            return row
    if (found := _NAME.fullmatch(name)) is not None:
        asked = Interface(
            "int32" if found["int32"] else "int64",
            int(found["batch"] or 1),
            log_probs=bool(found["log_probs"]),
            part=part_of(found["stem"]),
        )
        plain = asked.plain(found["stem"]) + found["kind"]
        for row in VARIANTS:
            if row.name == plain and (called := presented(row, asked)).name == name:
                return called
    raise UnknownVariantError(name)


def is_variant(name: str) -> bool:
    """Tell whether a row has this name, as it is in the table or called otherwise."""
    try:
        variant(name)
    except UnknownVariantError:
        return False
    return True


def presented(row: Variant, interface: Interface) -> Variant:
    """Return a row of the table as it is called by an interface, as far as that is about it.

    Lengths are an encoder's; log-probabilities and parts are a step's. Only a .pte step has a fixed
    batch and can hold both parts; an ONNX step is in two files then. Whoever calls the parts apart
    takes logits of one hypothesis or, of ONNX, of any number. A row that is called otherwise
    already stays as it is.
    """
    if row.interface != OURS:
        return row
    if row.graph == "encoder":
        mine = replace(OURS, lengths_dtype=interface.lengths_dtype)
    elif interface.part is not None and (interface.part == "split") == (row.format == "pte"):
        mine = replace(OURS, part=interface.part)
    else:
        mine = replace(OURS, log_probs=interface.log_probs)
        if row.format == "pte":
            mine = replace(mine, step_batch=interface.step_batch)
    baseline = presented(variant(row.baseline), mine).name if row.baseline else None
    return replace(row, name=named(row.name, mine), baseline=baseline, interface=mine)


def all_presented(row: Variant, interface: Interface) -> tuple[Variant, ...]:
    """Return the same; where the parts of an ONNX step are called apart, both files of them."""
    if interface.part == "split" and (row.graph, row.format) == ("step", "onnx"):
        return tuple(presented(row, replace(interface, part=part)) for part in OTHER_HALF)
    return (presented(row, interface),)


def other_half(row: Variant) -> Variant | None:
    """Return the file without which one that holds half a step is of no use; None of all others."""
    other: Part | None = OTHER_HALF.get(row.interface.part) if row.interface.part else None
    if other is None:
        return None
    return presented(variant(plain_name(row)), replace(row.interface, part=other))


def named(name: str, interface: Interface) -> str:
    """Return a file's name with what its interface adds to it."""
    path = PurePath(name)
    return f"{interface.named(path.stem)}{path.suffix}"


def plain_name(row: Variant) -> str:
    """Return the name of the row of the table that a row is a presentation of."""
    path = PurePath(row.name)
    return f"{row.interface.plain(path.stem)}{path.suffix}"


def contract_of(row: Variant, spec: ModelSpec) -> IoContract:
    """Return the inputs and outputs that a model implies for a file.

    Of half a step they are its own; of a .pte with both parts those of the step that they make.
    """
    half = row.interface.part
    if half in OTHER_HALF:
        return parts_of(row, spec)[half]
    return called_contract(row, spec)


def called_contract(row: Variant, spec: ModelSpec) -> IoContract:
    """Return the inputs and outputs of what is decoded with: of half a step, of both together."""
    make = encoder_contract if row.graph == "encoder" else step_contract
    return make(spec, batch=_batch(row), interface=row.interface)


def parts_of(row: Variant, spec: ModelSpec) -> dict[Part, IoContract]:
    """Return the contracts of the parts of a step that a file holds; of a whole step none."""
    half = row.interface.part
    parts = part_contracts(spec, batch=_batch(row)) if half else {}
    return {half: parts[half]} if half in OTHER_HALF else parts


def _batch(row: Variant) -> int | str:
    one = row.interface.step_batch if row.graph == "step" else 1
    return one if row.format == "pte" else "B"


def decoding_step(row: Variant) -> Variant:
    """Return the step that words are decoded with: the one that an encoder names, a step itself."""
    return variant(row.step) if row.step else row


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
