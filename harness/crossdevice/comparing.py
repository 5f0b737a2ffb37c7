"""Run files on a reference device and on others, one device after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import atomic_write
from exportgate.errors import ExportGateError
from harness.crossdevice.agreement import agreement
from harness.devices.device import swipes_max
from harness.measure.parity import spread
from harness.run.context import RunContext
from harness.run.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from harness.crossdevice.agreement import Agreement
    from harness.devices.device import Device
    from harness.run.request import Request

    Say = Callable[[str], None]


class DevicesError(ExportGateError, ValueError):
    """The devices that were asked for cannot be compared."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of a comparison.

    Attributes:
        agreements: For each device and each file.
        environments: What each device is, by its name.
    """

    agreements: tuple[Agreement, ...]
    environments: dict[str, dict[str, Any]]


def compare_devices(
    request: Request, devices: Sequence[Device], say: Say, *, timed: bool = True
) -> Compared:
    """Run the request's files on each device, beside the first of them.

    Args:
        request: Files and swipes; its device is not looked at.
        devices: The reference, and at least one other.
        say: Called with a line for whoever watches.
        timed: Whether to time files in turns.

    Raises:
        DevicesError: There are fewer than two devices, or one twice.
        ExportGateError: The files cannot be exported.
    """
    names = [device.name for device in devices]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        msg = f"devices are {', '.join(names)}; expected at least two, none of them twice"
        raise DevicesError(msg)
    found: list[Agreement] = []
    for most, others in _by_swipes(devices).items():
        part = request
        if most:
            manifest = fewer_swipes(request.manifest, most, request.workdir)
            part = replace(request, manifest=manifest)
        found += _compare(part, devices[0], others, say, timed=timed)
    order = {each.name: number for number, each in enumerate(devices)}
    found.sort(key=lambda each: order[each.device])
    return Compared(
        tuple(found), {device.name: device.environment().to_json() for device in devices}
    )


def _by_swipes(devices: Sequence[Device]) -> dict[int, list[Device]]:
    """Return the devices but the first by how many swipes they run, as do both; 0 for all."""
    found: dict[int, list[Device]] = {}
    for device in devices[1:]:
        slow = [count for each in (devices[0], device) if (count := swipes_max(each))]
        found.setdefault(min(slow, default=0), []).append(device)
    return found


def _compare(
    request: Request, reference: Device, others: Sequence[Device], say: Say, *, timed: bool
) -> list[Agreement]:
    """Judge all files on the same swipes on each of some devices."""
    found: list[Agreement] = []
    here = RunContext(replace(request, device=reference), say)
    try:
        files = replace(request, artifacts=here.files.folder())
        if lost := here.files.failed:
            name, reason = next(iter(lost.items()))
            msg = f"{name} could not be exported: {reason}"
            raise DevicesError(msg)
        for device in others:
            say(f"{device.name}: {len(files.variants)} files")
            found += _beside(here, replace(files, device=device), timed=timed)
    finally:
        here.close()
    return found


def _beside(here: RunContext, request: Request, *, timed: bool) -> list[Agreement]:
    """Judge all files on one device; what was started there ends with it."""
    there = RunContext(request, here.progress, Workers())
    there.share(here)
    try:
        return [agreement(here, there, row.name, timed=timed) for row in request.variants]
    finally:
        there.close()


def fewer_swipes(manifest: Path, count: int, folder: Path) -> Path:
    """Write every so-many-th line of a manifest to a file of its own.

    Raises:
        DevicesError: There is nothing to take.
    """
    lines = [line for line in manifest.read_bytes().split(b"\n") if line.strip()]
    if count < 1 or not lines:
        msg = f"{manifest}: {count} of {len(lines)} swipes; expected at least one"
        raise DevicesError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{manifest.stem}-{count}.jsonl"
    with atomic_write(path) as draft:
        draft.write_bytes(b"\n".join(spread(lines, count)) + b"\n")
    return path
