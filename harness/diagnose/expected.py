"""What a file of ours must hold, made in the worker that has the checkpoint."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.recipes import MixedRecipe
from exporters.variants import variant
from exportgate.artifacts.answers import keep, kept
from harness.diagnose.stages import observed
from harness.inspect.constants import onnx_findings, pte_findings

if TYPE_CHECKING:
    from exporters.nemo.checkpoint import Checkpoint
    from exporters.quantize.expected import ExpectedFile
    from exporters.variants import Variant
    from exportgate.artifacts.sidecar import Sidecar


def expected_file(
    checkpoint: Checkpoint, name: str, sidecar: Sidecar, calibration: Path | None
) -> ExpectedFile:
    """Return what a file of the table must hold.

    Args:
        checkpoint: The model.
        name: The file's.
        sidecar: Its recipe and calibration are taken.
        calibration: Manifest of the swipes that it says it was calibrated with.

    Raises:
        StagesError: The swipes are others.
    """
    row = variant(name)
    make = _onnx if row.format == "onnx" else _pte
    return make(checkpoint, row, sidecar, calibration)


def _onnx(
    checkpoint: Checkpoint, row: Variant, sidecar: Sidecar, calibration: Path | None
) -> ExpectedFile:
    from exporters.ort import expected  # noqa: PLC0415 - loads torch

    swipes = observed(Path(row.name), sidecar, calibration)
    if row.graph == "step":
        plain = expected.expected_step(
            checkpoint, precision=row.precision, calibration=swipes, part=row.interface.part
        )
    else:
        plain = expected.expected_encoder(
            checkpoint,
            precision=row.precision,
            flavour=row.recipe.flavour,
            max_trace_len=sidecar.max_trace_len or 0,
            calibration=swipes,
            residual=sidecar.recipe.get("residual_layers", []),
        )
    return expected.presented(checkpoint.spec, plain, row)


def _pte(
    checkpoint: Checkpoint, row: Variant, sidecar: Sidecar, calibration: Path | None
) -> ExpectedFile:
    from exporters.xnnpack import expected  # noqa: PLC0415 - loads torch
    from exporters.xnnpack.options import RewriteOptions  # noqa: PLC0415 - as above

    swipes = observed(Path(row.name), sidecar, calibration)
    if row.graph == "step":
        return expected.expected_step(
            checkpoint, precision=row.precision, calibration=swipes, interface=row.interface
        )
    return expected.expected_encoder(
        checkpoint,
        precision=row.precision,
        quantizer=row.recipe.quantizer or "eager",
        max_trace_len=sidecar.max_trace_len or 0,
        calibration=swipes,
        options=RewriteOptions(**dict(row.recipe.rewrite)),
        mixed=MixedRecipe.from_json(sidecar.recipe) if "layers" in sidecar.recipe else None,
        interface=row.interface,
    )


def findings(
    checkpoint: Checkpoint,
    path: Path,
    name: str,
    sidecar: Sidecar,
    calibration: Path | None,
    _digest: str,
    keep_at: tuple[Path, str] | None = None,
) -> list[str]:
    """Describe each constant and each node of a file that is not what it must be.

    Args:
        checkpoint: The model.
        path: The file.
        name: Its row in the table.
        sidecar: Its recipe and calibration are taken.
        calibration: Manifest of the swipes that it says it was calibrated with.
        _digest: Of the file: two files are two questions.
        keep_at: Folder and key under which to keep what the file must hold. What a wrong file was
            compared with is not kept: of a thousand of them, no two need be alike.

    Raises:
        StagesError: The swipes are others.
    """
    expected = _remembered(checkpoint, name, sidecar, calibration)
    found = _compared(path, expected)
    if keep_at is not None and not found:
        keep(*keep_at, expected.to_plain())
    return found


def findings_beside_kept(path: Path, keep_at: tuple[Path, str], _digest: str) -> list[str] | None:
    """Describe the same by what was kept; None if nothing was. No checkpoint is needed."""
    plain = kept(*keep_at, types=())
    if plain is None:
        return None
    from exporters.quantize.expected import ExpectedFile  # noqa: PLC0415 - loads torch

    return _compared(path, ExpectedFile.from_plain(plain))


def _compared(path: Path, expected: ExpectedFile) -> list[str]:
    if path.suffix == ".onnx":
        return onnx_findings(path, expected)
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder) / path.name
        beside.write_bytes(expected.payload)
        return pte_findings(path, beside, expected)


_KNOWN: dict[str, ExpectedFile] = {}
_MOST_BYTES = 256 << 20
"""What is known of a large model's roundings takes hundreds of megabytes; it is made again."""


def _remembered(
    checkpoint: Checkpoint, name: str, sidecar: Sidecar, calibration: Path | None
) -> ExpectedFile:
    statement = replace(sidecar, sha256="", size_bytes=0).to_json()
    key = f"{checkpoint.sha256} {name} {calibration} {statement}"
    if key not in _KNOWN:
        _KNOWN[key] = expected_file(checkpoint, name, sidecar, calibration)
    found = _KNOWN[key]
    while sum(item.size_bytes for item in _KNOWN.values()) > _MOST_BYTES:
        del _KNOWN[next(iter(_KNOWN))]
    return found
