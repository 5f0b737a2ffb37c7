"""What a user of one file waits for and pays: load, first run, the spread of runs, peak memory.

Each file has a process of its own, forked from one that has imported the runtime and nothing else,
so that neither imports nor other files are in its numbers. They are wall-clock times of this
machine as it happens to be: they are recorded, with their samples, and never judged. What is judged
is interleaved (``harness.measure.paired``) or counted (``harness.measure.instructions``).
"""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.errors import ExportGateError
from exportgate.runtime.executorch_import import import_runtime
from exportgate.runtime.opening import open_file
from harness.measure.paired import undisturbed

if TYPE_CHECKING:
    from pathlib import Path

    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.runtime.session import Arrays

OPENINGS = 5
RUNS = 40
"""Runs that are timed after each opening's first."""


class LatencyError(ExportGateError, RuntimeError):
    """The process that was timed died."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What the openings of a file took, by the wall clock.

    Attributes:
        load_ms: Opening the file, once for each opening.
        first_run_ms: The run after it: allocates, packs weights.
        run_ms: Each run after the first, of all openings.
        peak_memory_bytes: Growth of the process's peak resident memory over the first opening.
    """

    load_ms: tuple[float, ...]
    first_run_ms: tuple[float, ...]
    run_ms: tuple[float, ...]
    peak_memory_bytes: int

    def percentile_ms(self, share: float) -> float:
        """Return the time that a share of the runs keeps, e.g. 99 for the slowest in a hundred."""
        return float(np.percentile(self.run_ms, share))


def measure_alone(path: Path, inputs: Arrays) -> Latency:
    """Time a file in a new process; meant to be called in a worker that opens no file itself.

    Args:
        path: A file with its sidecar.
        inputs: What each run gets.

    Raises:
        LatencyError: The process died.
        OpenError: The runtime does not load the file.
        RunError: The runtime fails.
    """
    if path.suffix == ".onnx":
        importlib.import_module("onnxruntime")
    else:
        import_runtime()
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=forked) as pool:
        try:
            return pool.submit(_measure, path, inputs).result()
        except BrokenProcessPool as error:
            msg = f"{path}: the process that ran it died"
            raise LatencyError(msg) from error


def _measure(path: Path, inputs: Arrays) -> Latency:
    sidecar = read_sidecar(path)
    before = _peak_bytes()
    with undisturbed():
        openings = [_opening(path, sidecar, inputs)]
        growth = _peak_bytes() - before
        openings += [_opening(path, sidecar, inputs) for _ in range(1, OPENINGS)]
    return Latency(
        load_ms=tuple(times[0] for times in openings),
        first_run_ms=tuple(times[1] for times in openings),
        run_ms=tuple(each for times in openings for each in times[2:]),
        peak_memory_bytes=growth,
    )


def _opening(path: Path, sidecar: Sidecar, inputs: Arrays) -> list[float]:
    """Return the milliseconds of loading a file, of its first run and of the runs after it."""
    clock = [time.perf_counter()]
    session = open_file(path, sidecar)
    clock.append(time.perf_counter())
    for _ in range(1 + RUNS):
        session.run(inputs)
        clock.append(time.perf_counter())
    return [1e3 * (after - before) for before, after in pairwise(clock)]


def _peak_bytes() -> int:
    # Kibibytes, but for macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
