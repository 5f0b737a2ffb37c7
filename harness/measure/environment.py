"""Where a measurement was taken: machine, processor, versions."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exportgate.artifacts.sidecar import package_versions


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a run took place; runs of different environments are not mixed."""

    machine: str
    cpu: str
    cpu_flags: tuple[str, ...]
    cores: int
    load_1min: float
    system: str
    python: str
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return asdict(self)


# Extensions that decide which integer kernels a runtime takes.
_TELLING_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def environment() -> Environment:
    """Describe this machine and the installed packages."""
    model, flags = _cpu()
    return Environment(
        machine=platform.machine(),
        cpu=model,
        cpu_flags=tuple(flag for flag in _TELLING_FLAGS if flag in flags),
        cores=os.cpu_count() or 0,
        load_1min=os.getloadavg()[0],
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=package_versions(),
    )


def _cpu() -> tuple[str, frozenset[str]]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (s.partition(":") for s in lines)}
    flags = fields.get("flags", fields.get("Features", ""))
    return fields.get("model name", platform.processor()), frozenset(flags.split())
