"""What an inference costs by how its layers are stored: instructions, or milliseconds.

Files that store all layers alike are measured once, with 32, 8 and 4 bits. What lies between is
predicted: each layer brings its share of the weights at the price of its bits. The file that a
search ends with is measured itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from exportgate.errors import ExportGateError
from exportgate.runtime.isolate import Worker
from exportgate.runtime.opening import open_artifact
from harness.measure import instructions
from harness.measure.instructions.command import counted_inputs
from harness.measure.paired import undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.runtime.session import Arrays
    from harness.search.space import Unit

ALIKE = {32: "encoder_fp32.pte", 8: "encoder_int8_ultra.pte", 4: "encoder_int4.pte"}
"""Files whose matrices all have so many bits."""
_BLOCKS, _RUNS = 30, 5


class PriceError(ExportGateError, RuntimeError):
    """What an inference costs cannot be measured here."""


def measured(paths: Sequence[Path], unit: Unit) -> list[float]:
    """Return what an inference of each file costs; inputs are those of ``exportgate instructions``.

    Args:
        paths: Files with their sidecars.
        unit: Instructions are counted by emulation; milliseconds are processor time of one core,
            medians over blocks that take the files in turns.

    Raises:
        PriceError: The emulator is missing.
    """
    inputs = [counted_inputs(path) for path in paths]
    if unit == "ms":
        with Worker("timing") as worker:
            found: list[float] = worker.call(_milliseconds, list(paths), inputs)
        return found
    check(unit)
    with ThreadPoolExecutor(2) as pool:
        counts = pool.map(instructions.count, paths, inputs)
        return [float(found.instructions) for found in counts]


def check(unit: Unit | None) -> None:
    """Refuse a unit that nothing here measures, before hours of searching.

    Raises:
        PriceError: The emulator is missing.
    """
    absent = instructions.missing(instructions.X86_64) if unit == "instructions" else ""
    if absent:
        msg = f"--max-instructions: {absent}"
        raise PriceError(msg)


def _milliseconds(paths: Sequence[Path], inputs: Sequence[Arrays]) -> list[float]:
    sessions = [open_artifact(path) for path in paths]
    samples: list[list[float]] = [[] for _ in paths]
    with undisturbed():
        for block in range(_BLOCKS + 2):
            for session, given, kept in zip(sessions, inputs, samples, strict=True):
                elapsed = session.elapsed([given], _RUNS)
                if block >= 2:  # the first fetch weights and allocate
                    kept.append(1e3 * elapsed.processor_s / _RUNS)
    return [float(np.median(kept)) for kept in samples]
