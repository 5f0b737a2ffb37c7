"""A file is run beside NeMo before it is written, and written with its sidecar."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exporters.pipeline.making import make
from exporters.pipeline.written import Written, written
from exporters.variants import is_quantized, other_half, variant
from exportgate.artifacts.sidecar import (
    Program,
    Sidecar,
    atomic_write,
    package_versions,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.contract import OTHER_SHA256
from exportgate.data.features import feature_spec
from exportgate.errors import ExportGateError
from exportgate.levels import level

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.pipeline.making import Source
    from exporters.pipeline.options import ExportOptions
    from exporters.variants import Variant


class QuantizationCheckError(ExportGateError, RuntimeError):
    """A quantized file is broken: its outputs are not the model's."""

    def __init__(self, name: str, found_db: float, least_db: float) -> None:
        """Say how bad it is and what can be done."""
        super().__init__(
            f"{name}: {found_db:.1f} dB against NeMo, below {least_db:g} dB a file is broken; "
            "calibrate with swipes like those of the users, write FP32 instead with "
            "--fallback_to_fp32 where the exporter has it, or keep the file all the same with "
            "--skip_quantization_check"
        )


@dataclass(frozen=True, slots=True)
class Checked:
    """A program with its signal-to-noise against NeMo, in dB."""

    program: Program
    sqnr_db: float


def export_file(
    row: Variant,
    path: Path,
    options: ExportOptions,
    source: Source,
    shared: Any,  # noqa: ANN401 - what the file is made from
) -> Written:
    """Make, check and write a file and its sidecar.

    Args:
        row: The file's.
        path: Where to; a fallback in another precision gets a name that says so.
        options: Whether to check, and whether to fall back.
        source: What it is made from.
        shared: See ``making.make``.

    Raises:
        QuantizationCheckError: It is broken.
    """
    start = time.perf_counter()
    made = _checked(row, options, source, shared)
    if made.program.precision != row.precision:
        # A file that is not what its variant promises must not look like it.
        path = path.with_name(f"{path.stem}.{made.program.precision}-fallback{path.suffix}")
    sidecar = _write(path, row, made, source)
    return written(path, sidecar, time.perf_counter() - start)


def _checked(row: Variant, options: ExportOptions, source: Source, shared: Any) -> Checked:  # noqa: ANN401
    made = _beside_nemo(row, source, shared)
    least = level("broken_db", row.precision)
    if row.precision == "fp32" or made.sqnr_db >= least or not options.check_quantization:
        return made
    if not options.fallback_to_fp32 or row.baseline is None:
        raise QuantizationCheckError(row.name, made.sqnr_db, least)
    return _beside_nemo(variant(row.baseline), source, None)


def _beside_nemo(row: Variant, source: Source, shared: Any) -> Checked:  # noqa: ANN401 - see making.make
    """Make a file and run it; half a step with its other half, whose hash goes into the recipe."""
    from exporters.pipeline.selfcheck import sqnr_db  # noqa: PLC0415 - loads torch

    program, half = make(row, source, shared), other_half(row)
    other = make(half, source, shared) if half else None
    found = sqnr_db(row, program, source.checkpoint, source.calibration.features, other)
    if other is not None:
        digest = hashlib.sha256(other.payload).hexdigest()
        program = replace(program, recipe={**program.recipe, OTHER_SHA256: digest})
    return Checked(program, found)


def _write(path: Path, row: Variant, made: Checked, source: Source) -> Sidecar:
    with atomic_write(path) as draft:
        draft.write_bytes(made.program.payload)
    program, checkpoint = made.program, source.checkpoint
    sidecar = Sidecar(
        variant=row.name,
        precision=program.precision,
        sha256=sha256_of(path),
        size_bytes=len(program.payload),
        checkpoint_sha256=checkpoint.sha256,
        model=checkpoint.spec,
        blank_id=checkpoint.spec.blank_id,
        contract=program.contract,
        max_trace_len=program.max_trace_len,
        feature_spec=feature_spec(),
        calibration=source.calibration.describe() if is_quantized(row.precision) else None,
        recipe=program.recipe,
        sqnr_db=round(made.sqnr_db, 2),
        lowering=program.lowering,
        versions=package_versions(),
    )
    write_text(sidecar_path(path), sidecar.to_json())
    return sidecar
