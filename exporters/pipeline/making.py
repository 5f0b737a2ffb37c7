"""From a row of the table to a file's bytes: which exporter's function makes it, and from what."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from exporters.variants import UnsupportedVariantError, contract_of
from exporters.xnnpack.options import RewriteOptions
from exportgate.errors import check_supported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.quantize.calibration import Calibration
    from exporters.recipes import Intermediate
    from exporters.variants import Format, Graph, Variant
    from exportgate.artifacts.sidecar import Program

    Maker = Callable[["Variant", "Source", Any], Program]


@dataclass(frozen=True, slots=True)
class Source:
    """What every file of a run is made from.

    Attributes:
        checkpoint: The model.
        calibration: Swipes to quantize and to check with.
        max_trace_len: Longest trace in points that an encoder takes.
    """

    checkpoint: Checkpoint
    calibration: Calibration
    max_trace_len: int


def intermediate_of(row: Variant) -> str | None:
    """Return the name of what a file is made from that others are made from too."""
    shared = row.recipe.shares
    switches = ", ".join(f"{name}={value}" for name, value in row.recipe.rewrite)
    return f"{shared} ({switches})" if shared and switches else shared


def make_intermediate(name: str, rows: Sequence[Variant], source: Source) -> Any:  # noqa: ANN401
    """Make what several files are made from.

    Args:
        name: From ``intermediate_of``.
        rows: All files of the run; those that share it shape it.
        source: What they are made from.

    Returns:
        What ``make`` takes for these rows.
    """
    users = [row for row in rows if intermediate_of(row) == name]
    shared = users[0].recipe.shares
    if shared is None:
        msg = f"{name} is shared by no file"
        raise UnsupportedVariantError(msg)
    return _SHARED[shared](users, source)


def make(row: Variant, source: Source, shared: Any) -> Program:  # noqa: ANN401 - what it is made from
    """Make a file in memory.

    Args:
        row: The file's.
        source: What it is made from.
        shared: From ``make_intermediate``, or None: then it is made for this file alone.

    Raises:
        UnsupportedVariantError: Nothing makes what the row asks for.
    """
    check_recipe(row)
    return _MAKERS[row.graph, row.format](row, source, shared)


_QUANTIZERS: Mapping[tuple[Graph, Format], Mapping[str, tuple[str | None, ...]]] = {
    ("encoder", "onnx"): {"fp32": (None,), "fp16": (None,), "int8": ("static",)},
    ("encoder", "pte"): {
        "fp32": (None,),
        "fp16": (None,),
        "int8": ("pt2e", "eager"),
        "int4": ("eager",),
    },
    ("step", "onnx"): {"fp32": (None,), "int8": ("dynamic",)},
    ("step", "pte"): {"fp32": (None,), "int8": ("eager",)},
}
"""By graph and format: the precisions that there are, and what quantizes to each."""
_FLAVOURS = {("encoder", "onnx"): ("standard", "web")}
_SHARES: Mapping[tuple[Graph, Format] | None, tuple[Intermediate]] = {
    ("encoder", "onnx"): ("INT8 graph for ONNX Runtime",),
    ("encoder", "pte"): ("integer weights for XNNPACK",),
}


def check_recipe(row: Variant) -> None:
    """Refuse a row that no exporter makes, by what it asks for.

    Raises:
        UnsupportedVariantError: Its precision, quantizer, flavour, intermediate or switches are
            not among those of its graph and format.
    """

    def check(what: str, given: object, supported: Sequence[object]) -> None:
        check_supported(
            UnsupportedVariantError,
            f"{row.name}: the {what} of a {row.format} {row.graph}",
            str(given),
            [str(item) for item in supported],
        )

    half, recipe = (row.graph, row.format), row.recipe
    quantizers = _QUANTIZERS[half]
    check("precision", row.precision, list(quantizers))
    check("quantizer", recipe.quantizer, quantizers[row.precision])
    check("flavour", recipe.flavour, _FLAVOURS.get(half, ("standard",)))
    check(
        "intermediate", recipe.shares, [None, *_SHARES.get(half if recipe.quantizer else None, [])]
    )
    if recipe.mixed is not None:
        check("quantizer with a recipe of its layers", recipe.quantizer, ["eager"])
    for name, _ in recipe.rewrite:
        check("rewrite's switch", name, _switches(row))


def _switches(row: Variant) -> list[str]:
    if row.graph == "step" or (row.format == "onnx" and row.recipe.quantizer):
        return []
    if row.format == "pte":
        return [field.name for field in fields(RewriteOptions)]
    from exporters.ort.encoder_graph import OrtRewriteOptions  # noqa: PLC0415 - loads torch

    return [field.name for field in fields(OrtRewriteOptions)]


# Imported inside: each runtime takes seconds to load, and an export needs one of them.


def _encoder_pte(row: Variant, source: Source, shared: Any) -> Program:  # noqa: ANN401
    from exporters.xnnpack import to_pte  # noqa: PLC0415

    options, mixed = RewriteOptions(**dict(row.recipe.rewrite)), row.recipe.mixed
    if mixed is not None:
        shared = to_pte.plan_mixed(
            source.checkpoint,
            mixed,
            row.precision,
            calibration=source.calibration.features,
            max_trace_len=source.max_trace_len,
            options=options,
        )
    return to_pte.encoder_to_pte(
        source.checkpoint,
        precision=row.precision,
        calibration=source.calibration.features,
        max_trace_len=source.max_trace_len,
        quantizer=row.recipe.quantizer or "eager",  # floating point has none
        options=options,
        plan=shared,
        interface=row.interface,
    )


def _step_pte(row: Variant, source: Source, _shared: Any) -> Program:  # noqa: ANN401
    from exporters.xnnpack import to_pte  # noqa: PLC0415

    return to_pte.step_to_pte(
        source.checkpoint,
        precision=row.precision,
        calibration=source.calibration.features,
        interface=row.interface,
    )


def _encoder_onnx(row: Variant, source: Source, shared: Any) -> Program:  # noqa: ANN401
    from exporters.ort import to_onnx  # noqa: PLC0415
    from exporters.ort.presented import present  # noqa: PLC0415

    standard: Program = shared or _standard_onnx(row, source)
    made = to_onnx.for_web(standard) if row.recipe.flavour == "web" else standard
    return present(made, contract_of(row, source.checkpoint.spec))


def _standard_onnx(row: Variant, source: Source) -> Program:
    from exporters.ort import to_onnx  # noqa: PLC0415
    from exporters.ort.encoder_graph import OrtRewriteOptions  # noqa: PLC0415

    return to_onnx.encoder_to_onnx(
        source.checkpoint,
        precision=row.precision,
        calibration=source.calibration.features,
        max_trace_len=source.max_trace_len,
        flavour="standard",
        options=OrtRewriteOptions(**dict(row.recipe.rewrite)) if row.recipe.rewrite else None,
    )


def _step_onnx(row: Variant, source: Source, _shared: Any) -> Program:  # noqa: ANN401
    from exporters.ort import to_onnx  # noqa: PLC0415
    from exporters.ort.presented import present  # noqa: PLC0415

    made = to_onnx.step_to_onnx(
        source.checkpoint,
        precision=row.precision,
        calibration=source.calibration.features,
        part=row.interface.part,
    )
    return present(made, contract_of(row, source.checkpoint.spec))


def _xnnpack_weights(users: Sequence[Variant], source: Source) -> Any:  # noqa: ANN401
    from exporters.xnnpack import to_pte  # noqa: PLC0415

    return to_pte.plan_encoder(
        source.checkpoint,
        sorted({row.precision for row in users}),
        calibration=source.calibration.features,
        max_trace_len=source.max_trace_len,
        options=RewriteOptions(**dict(users[0].recipe.rewrite)),
    )


_MAKERS: Mapping[tuple[Graph, Format], Maker] = {
    ("encoder", "pte"): _encoder_pte,
    ("step", "pte"): _step_pte,
    ("encoder", "onnx"): _encoder_onnx,
    ("step", "onnx"): _step_onnx,
}
_SHARED: Mapping[Intermediate, Callable[[Sequence[Variant], Source], Any]] = {
    "integer weights for XNNPACK": _xnnpack_weights,
    "INT8 graph for ONNX Runtime": lambda users, source: _standard_onnx(users[0], source),
}
