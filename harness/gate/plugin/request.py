"""What a command line asks for, checked before any work: files, swipes, bounds, variants."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from exporters.variants import (
    Variant,
    is_variant,
    other_half,
    plain_name,
    variant,
    variants_of,
)
from exportgate import resources
from exportgate.artifacts.sidecar import sha256_of
from exportgate.data.features import FEATURE_DIM
from exportgate.data.manifest import Swipe, load_manifest, read_manifest
from exportgate.data.manifest_facts import too_long
from exportgate.errors import ExportGateError
from harness.devices.device import Need, swipes_max
from harness.devices.host import HOST
from harness.devices.registry import device
from harness.gate.plugin.places import workdir
from harness.measure.significance import PairedTest
from harness.run.files import lacking
from harness.run.request import Request
from harness.third_party.folder import is_imported

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from exporters.nemo.peek import CheckpointSummary
    from harness.devices.device import Device

_TESTED_AT = 0.001
"""Level of the paired tests in gates.toml, for a note on what few swipes show."""
SYNTHETIC = "synthetic gestures"


class RequestError(ExportGateError, ValueError):
    """What was asked for does not exist, or does not fit together."""


def selected(config: pytest.Config) -> tuple[Variant, ...]:
    """Return the variants to judge: the target's, or those of them that were named.

    Raises:
        ExportGateError: The target does not exist, or has no variant of a name.
    """
    target = config.getoption("--target")
    rows = _with_interfaces(variants_of(target), config.getoption("--artifacts"))
    wanted = config.getoption("--variant")
    if not wanted:
        return _with_halves(rows)
    plain = {row.name for row in variants_of(target)}
    there = {row.name: row for row in rows}
    if config.getoption("--artifacts") is None:
        # A file that is called otherwise is exported where it is named.
        called = [variant(name) for name in wanted if is_variant(name)]
        there |= {row.name: row for row in called if plain_name(row) in plain}
    unknown = sorted(set(wanted) - there.keys())
    if unknown:
        msg = (
            f"target {target} has no variant {', '.join(unknown)}; "
            f"it has {', '.join(row.name for row in rows)}"
        )
        raise RequestError(msg)
    return _with_halves(tuple(row for row in there.values() if row.name in wanted))


def _with_halves(rows: tuple[Variant, ...]) -> tuple[Variant, ...]:
    """Return the rows, and the other halves of those that hold half a step: they are one file."""
    found: dict[str, Variant] = {}
    for row in rows:
        half = other_half(row)
        found |= {item.name: item for item in (row, half) if item is not None}
    return tuple(found.values())


def _with_interfaces(rows: tuple[Variant, ...], folder: Path | None) -> tuple[Variant, ...]:
    """Return a target's rows, with those of its files in a folder that are called otherwise.

    A file that is there under such a name only stands in for the row of the table.
    """
    if folder is None or not folder.is_dir():
        return rows
    others: dict[str, list[Variant]] = {}
    for row in (variant(path.name) for path in sorted(folder.iterdir()) if is_variant(path.name)):
        others.setdefault(plain_name(row), []).append(row)
    found = []
    for row in rows:
        there = [item for item in others.get(row.name, []) if item.name != row.name]
        if not there or (folder / row.name).is_file():
            found.append(row)
        found += there
    return tuple(found)


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
        device=device(config.getoption("--device")),
    )
    _check(request)
    return replace(request, variants=_runnable(request))


def _runnable(request: Request) -> tuple[Variant, ...]:
    """Return the files that are made for the processor of the device.

    Raises:
        RequestError: None is.
    """
    left_out = cannot_run(request.device, request.variants)
    kept = tuple(row for row in request.variants if row.name not in left_out)
    if not kept:
        names = ", ".join(row.name for row in request.variants)
        reason = left_out[request.variants[0].name]
        msg = f"{names}: cannot run on {request.device.name}: {reason}"
        raise RequestError(msg)
    return kept


def cannot_run(device: Device, rows: tuple[Variant, ...]) -> dict[str, str]:
    """Return the files that are not made for a device, and why."""
    fp16 = device.lacks(Need.FP16)
    apart = "" if device == HOST else "prediction network and joint are called apart on host only"
    reasons = {row.name: fp16 if row.fp16 else apart if row.interface.part else "" for row in rows}
    return {name: reason for name, reason in reasons.items() if reason}


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
    # Read here already: what does not fit is one error before work begins.
    _check_checkpoint(request.checkpoint)
    _check_lengths(request.manifest, read_manifest(request.manifest), request.max_trace_len)
    if request.calibration is not None:
        _must_be_file("--calibration", request.calibration)
        read_manifest(request.calibration)


def _check_checkpoint(checkpoint: Path) -> None:
    """Say in the first second what a minute of loading and exporting would end in.

    Raises:
        ExportGateError: It cannot be read or exported, or takes other features than swipes give.
    """
    from exporters.nemo.peek import require_features  # noqa: PLC0415 - loads torch

    summary = _summary(checkpoint)
    if summary.problems:
        msg = f"{checkpoint}: cannot export this model: {'; '.join(summary.problems)}"
        raise RequestError(msg)
    require_features(summary, FEATURE_DIM)


@cache
def _summary(checkpoint: Path) -> CheckpointSummary:
    from exporters.nemo.peek import peek  # noqa: PLC0415 - loads torch

    return peek(checkpoint)


def notes_on(request: Request, asked: tuple[Variant, ...]) -> list[str]:
    """Say what the device leaves out, and what of swipes and checkpoint is mended or left out.

    Args:
        request: What is judged.
        asked: The files that were asked for.
    """
    found = _device_notes(request, asked)
    found += [*load_manifest(request.manifest).notes, *_summary(request.checkpoint).notes]
    if request.calibration is not None:
        found += load_manifest(request.calibration).notes
    if request.artifacts is not None and not is_imported(request.artifacts):
        found += [
            f"no {name} in {request.artifacts}: a fresh export of the checkpoint stands in"
            for name in lacking(request)
        ]
    return list(dict.fromkeys(found))


def _device_notes(request: Request, asked: tuple[Variant, ...]) -> list[str]:
    name, most = request.device.name, swipes_max(request.device)
    reasons = cannot_run(request.device, asked)
    found = [
        f"{row.name} is not judged: it cannot run on {name}: {reasons[row.name]}"
        for row in asked
        if row.name in reasons
    ]
    swipes = len(read_manifest(request.manifest))
    if most and most < swipes:
        visible = PairedTest(most, 0, 0).detectable_share(_TESTED_AT)
        found.append(
            f"{name} runs {most} of {swipes} swipes, spread over the manifest: one word shows "
            f"where tokens are compared; tests at {_TESTED_AT} see a loss of {visible:.0%}"
        )
    return found


def _must_be_file(option: str, path: Path) -> None:
    if not path.is_file():
        problem = "is a folder, but should be a file" if path.is_dir() else "no such file"
        msg = f"{option}: {problem}: {path}"
        raise RequestError(msg)


def _check_lengths(manifest: Path, swipes: list[Swipe], bound: int) -> None:
    long = too_long(swipes, bound)
    if not long:
        return
    longest = max(len(swipe.points) for swipe in long)
    others = f" (and {len(long) - 1} more swipes)" if len(long) > 1 else ""
    msg = (
        f"{manifest}:{long[0].line}: {len(long[0].points)} points{others}, more than the "
        f"{bound} that the exports take; drop the swipe or give --max-trace-len {longest}"
    )
    raise RequestError(msg)


def describe_request(config: pytest.Config, request: Request) -> dict[str, Any]:
    """Return the request as ``report.json`` states it; hashes are of the files as they are now."""
    calibration = request.calibration
    return {
        "target": config.getoption("--target"),
        "device": request.device.name,
        "checkpoint": str(request.checkpoint),
        "checkpoint_sha256": sha256_of(request.checkpoint),
        "manifest": str(request.manifest),
        "manifest_sha256": sha256_of(request.manifest),
        "calibration": str(calibration) if calibration else SYNTHETIC,
        "calibration_sha256": sha256_of(calibration) if calibration else "synthetic",
        "gates_sha256": {str(path): sha256_of(path) for path in gates_files(config)},
        "artifacts": str(request.artifacts) if request.artifacts else None,
        "folder": str(request.folder),
        "baseline": str(request.baseline) if request.baseline else None,
        "variants": [row.name for row in request.variants],
        "max_trace_len": request.max_trace_len,
    }


def gates_files(config: pytest.Config) -> list[Path]:
    """Return the files that hold the limits, each laid over those before it."""
    return [resources.folder("suites") / "gates.toml", *(config.getoption("--gates") or [])]


def manifest_lines(config: pytest.Config, request: Request) -> list[str]:
    """Say with which swipes a run judges and calibrates, and which of them nobody chose."""
    manifest = f"swipes {request.manifest}"
    if config.getoption("--manifest") is None and not is_golden(request.checkpoint):
        manifest += " (golden's: give your own with --manifest)"
    if request.artifacts is not None:
        return [manifest]
    if request.calibration is None:
        return [manifest, f"calibration: {SYNTHETIC} (give your users' swipes with --calibration)"]
    return [manifest, f"calibration: {request.calibration}"]
