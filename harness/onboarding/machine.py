"""What this machine has and lacks for a gate."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from harness.measure.instructions import X86_64, missing
from harness.onboarding.finding import Findings

if TYPE_CHECKING:
    from pathlib import Path

_PINNED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^;,\s]+)$")
_LEAST_MEMORY_GB, _LEAST_DISK_GB = 3.0, 2.0


def look_at_machine(workdir: Path) -> Findings:
    """Say which packages, tools and resources are there, and what is not measured without them.

    Args:
        workdir: Where a gate would write.
    """
    memory, disk = _memory_gb(), shutil.disk_usage(_existing(workdir)).free / 1e9
    facts = [
        ("cores", str(os.cpu_count())),
        ("memory", f"{memory:.1f} GB"),
        ("free", f"{disk:.0f} GB below {workdir}"),
    ]
    notes = []
    emulator = missing(X86_64)
    if emulator:
        notes.append(f"instructions are not counted: {emulator}")
    if memory < _LEAST_MEMORY_GB:
        notes.append(
            f"less than {_LEAST_MEMORY_GB:g} GB of memory: export one file at a time (--jobs 1)"
        )
    problems = _packages()
    if disk < _LEAST_DISK_GB:
        problems.append(
            f"{disk:.1f} GB are free below {workdir}, but exports and their cache take up to "
            f"{_LEAST_DISK_GB:g}; name another folder with --workdir"
        )
    return Findings("this machine", tuple(facts), tuple(problems), tuple(notes))


def _packages() -> list[str]:
    """Say which pinned packages are absent or of another version."""
    found = []
    for needed in requires("exportgate") or []:
        pinned = _PINNED.match(needed)
        if pinned is None:
            continue
        name, wanted = pinned.groups()
        try:
            have = version(name)
        except PackageNotFoundError:
            have = "missing"
        if have.partition("+")[0] != wanted:
            found.append(
                f"{name} is {have}, but the gate's limits hold for {wanted}; "
                f"pip install '{name}=={wanted}'"
            )
    return found


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.absolute().parent)
