"""Measurements with their raw samples, unit and environment."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import package_versions
from harness.measure.paired import undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.runtime.session import Arrays, Session


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


@dataclass(frozen=True, slots=True)
class PairedLatency:
    """Interleaved timings of two sessions on the same inputs, in CPU seconds per inference.

    Attributes:
        candidate_s: One sample for each round.
        baseline_s: One sample for each round, taken between the candidate's.
    """

    candidate_s: tuple[float, ...]
    baseline_s: tuple[float, ...]

    @property
    def speedup(self) -> float:
        """Median over rounds of baseline time ÷ candidate time."""
        pairs = zip(self.baseline_s, self.candidate_s, strict=True)
        return median(base / cand for base, cand in pairs)


def paired_round(
    candidate: Session, baseline: Session, inputs: Sequence[Arrays]
) -> tuple[float, float]:
    """Time two sessions on the same inputs in the order A B B A, in one process.

    Returns:
        CPU seconds per inference of candidate and baseline: other processes on a busy machine
        take wall-clock time, not this. The mirrored order cancels a drift of the machine's speed.
    """
    with undisturbed():
        first = _seconds(candidate, inputs)
        second = _seconds(baseline, inputs) + _seconds(baseline, inputs)
        last = _seconds(candidate, inputs)
    runs = 2 * len(inputs)
    return (first + last) / runs, second / runs


def _seconds(session: Session, inputs: Sequence[Arrays]) -> float:
    start = time.process_time()
    for item in inputs:
        session.run(item)
    return time.process_time() - start
