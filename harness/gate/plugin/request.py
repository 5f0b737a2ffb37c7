"""What a command line asks for, checked before any work: files, swipes, bounds, variants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporters.variants import Variant, variants_of
from exportgate import resources
from exportgate.artifacts.sidecar import sha256_of
from exportgate.data.manifest import Swipe, read_manifest
from exportgate.errors import ExportGateError
from harness.gate.plugin.places import workdir
from harness.run.request import Request

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SYNTHETIC = "synthetic gestures"


class RequestError(ExportGateError, ValueError):
    """What was asked for does not exist, or does not fit together."""


def selected(config: pytest.Config) -> tuple[Variant, ...]:
    """Return the variants to judge: the target's, or those of them that were named.

    Raises:
        ExportGateError: The target does not exist, or has no variant of a name.
    """
    target = config.getoption("--target")
    rows = variants_of(target)
    wanted = config.getoption("--variant")
    if not wanted:
        return rows
    unknown = sorted(set(wanted) - {row.name for row in rows})
    if unknown:
        msg = (
            f"target {target} has no variant {', '.join(unknown)}; "
            f"it has {', '.join(row.name for row in rows)}"
        )
        raise RequestError(msg)
    return tuple(row for row in rows if row.name in wanted)


def checkpoint_of(config: pytest.Config) -> Path:
    """Return the checkpoint to judge with, the golden one by default."""
    given: Path | None = config.getoption("--checkpoint")
    return given or resources.folder("golden") / "golden.nemo"


def build_request(config: pytest.Config, variants: tuple[Variant, ...]) -> Request:
    """Return what a run is asked to judge.

    Raises:
        ExportGateError: A file is missing, a manifest is malformed, or a swipe of it is longer than
            the bound.
    """
    golden = resources.folder("golden")
    checkpoint = checkpoint_of(config)
    _must_be_file("--checkpoint", checkpoint)
    calibration = config.getoption("--calibration")
    if calibration is None and is_golden(checkpoint):
        calibration = golden / "calib.jsonl"
    request = Request(
        checkpoint=checkpoint,
        manifest=config.getoption("--manifest") or golden / "val.jsonl",
        calibration=calibration,
        variants=variants,
        artifacts=config.getoption("--artifacts"),
        workdir=workdir(config) / "gate",
        max_trace_len=config.getoption("--max-trace-len"),
        baseline=config.getoption("--baseline"),
        lexicon=config.getoption("--lexicon"),
    )
    _check(request)
    return request


def is_golden(checkpoint: Path) -> bool:
    """Tell whether a checkpoint is the golden one, under whatever name."""
    golden = resources.folder("golden") / "golden.nemo"
    same_size = checkpoint.stat().st_size == golden.stat().st_size
    return same_size and sha256_of(checkpoint) == sha256_of(golden)


def _check(request: Request) -> None:
    _must_be_file("--manifest", request.manifest)
    if request.artifacts is not None and not request.artifacts.is_dir():
        msg = f"--artifacts: no such folder: {request.artifacts}"
        raise RequestError(msg)
    if request.lexicon is not None:
        _must_be_file("--lexicon", request.lexicon)
    # Read here already: a malformed manifest is one error before work begins.
    _check_lengths(request.manifest, read_manifest(request.manifest), request.max_trace_len)
    if request.calibration is not None:
        _must_be_file("--calibration", request.calibration)
        read_manifest(request.calibration)


def _must_be_file(option: str, path: Path) -> None:
    if not path.is_file():
        problem = "is a folder, but should be a file" if path.is_dir() else "no such file"
        msg = f"{option}: {problem}: {path}"
        raise RequestError(msg)


def _check_lengths(manifest: Path, swipes: list[Swipe], bound: int) -> None:
    too_long = [index for index, swipe in enumerate(swipes) if len(swipe.points) > bound]
    if not too_long:
        return
    lines = [n for n, line in enumerate(manifest.read_bytes().split(b"\n"), 1) if line.strip()]
    longest = max(len(swipe.points) for swipe in swipes)
    others = f" (and {len(too_long) - 1} more swipes)" if len(too_long) > 1 else ""
    first = too_long[0]
    msg = (
        f"{manifest}:{lines[first]}: {len(swipes[first].points)} points{others}, more than the "
        f"{bound} that the exports take; drop the swipe or give --max-trace-len {longest}"
    )
    raise RequestError(msg)


def describe_request(config: pytest.Config, request: Request) -> dict[str, Any]:
    """Return the request as ``report.json`` states it; hashes are of the files as they are now."""
    calibration = request.calibration
    return {
        "target": config.getoption("--target"),
        "device": config.getoption("--device"),
        "checkpoint": str(request.checkpoint),
        "checkpoint_sha256": sha256_of(request.checkpoint),
        "manifest": str(request.manifest),
        "manifest_sha256": sha256_of(request.manifest),
        "calibration": str(calibration) if calibration else SYNTHETIC,
        "calibration_sha256": sha256_of(calibration) if calibration else "synthetic",
        "artifacts": str(request.artifacts) if request.artifacts else None,
        "folder": str(request.folder),
        "baseline": str(request.baseline) if request.baseline else None,
        "variants": [row.name for row in request.variants],
        "max_trace_len": request.max_trace_len,
    }


def evidence_lines(config: pytest.Config, request: Request) -> list[str]:
    """Say with which swipes a run judges and calibrates, and which of them nobody chose."""
    manifest = f"swipes {request.manifest}"
    if config.getoption("--manifest") is None and not is_golden(request.checkpoint):
        manifest += " (golden's: give your own with --manifest)"
    if request.artifacts is not None:
        return [manifest]
    if request.calibration is None:
        return [manifest, f"calibration: {SYNTHETIC} (give your users' swipes with --calibration)"]
    return [manifest, f"calibration: {request.calibration}"]
