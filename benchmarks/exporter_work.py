"""What ``benchmarks.exporters`` runs in workers: functions travel by module and name."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.pipeline.exporting import export
from exporters.pipeline.options import ExportOptions
from exportgate.contract import IoContract, encoder_contract
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.onnx_runtime import OrtSession
from harness.measure.paired import Plan, measure_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Arrays, Elapsed, TimedSession


@dataclass(frozen=True, slots=True)
class Cost:
    """What making a file took, in seconds of processor time; None where it was not made here."""

    seconds: float | None = None
    peak_mb: float | None = None


class NamedEncoder:
    """A peer's encoder under this project's names: the order of its tensors is the same."""

    def __init__(self, session: TimedSession, names: IoContract) -> None:
        """Take an open session and the names by which it is to be called."""
        self._session, self.contract = session, names

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        outputs, theirs = self._session.run(self._given(inputs)), self._session.contract
        return {
            ours.name: outputs[spec.name]
            for ours, spec in zip(self.contract.outputs, theirs.outputs, strict=True)
        }

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``; renaming is not timed."""
        return self._session.elapsed([self._given(item) for item in inputs], runs)

    def _given(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        pairs = zip(self.contract.inputs, self._session.contract.inputs, strict=True)
        return {theirs.name: inputs[ours.name] for ours, theirs in pairs}


def open_peer(path: Path, spec: ModelSpec) -> TimedSession:
    """Open a peer's encoder in a worker."""
    contract = encoder_contract(spec, batch=1)
    if path.suffix == ".pte":
        return PteSession(path, contract)
    return NamedEncoder(OrtSession(path), contract)


def pin_to_one_core() -> None:
    """Keep a worker, and every thread that its runtimes start, on one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def timed(function: Callable[..., object], *args: object) -> Cost:
    """Run a function in a worker that does nothing else; its peak memory is the process's."""
    function(*args)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kib = next(int(s.split()[1]) for s in status.splitlines() if s.startswith("VmHWM"))
    return Cost(time.process_time(), peak_kib * 1024 / 1e6)


def latency_ratio(
    candidate: TimedSession, baseline: TimedSession, inputs: tuple[list[Any], list[Any]], plan: Plan
) -> float:
    """Return the median over blocks of candidate's ÷ baseline's processor time, in a worker.

    Args:
        candidate: An open session.
        baseline: Another.
        inputs: Of the candidate and of the baseline.
        plan: Blocks and runs.
    """
    samples = measure_blocks(
        lambda: candidate.elapsed(inputs[0], plan.runs),
        lambda: baseline.elapsed(inputs[1], plan.runs),
        plan,
    )
    ours, theirs = samples.legs("cpu")
    return float(np.median(ours.sum(axis=1) / theirs.sum(axis=1)))


def step_latency_ratio(candidate: TimedSession, baseline: TimedSession, plan: Plan) -> float:
    """Return ``latency_ratio`` of two steps that may name their inputs differently."""
    inputs = [_ones(candidate)], [_ones(baseline)]
    return latency_ratio(candidate, baseline, inputs, plan)


def _ones(step: TimedSession) -> dict[str, NDArray[Any]]:
    """Return inputs of one symbol: a label of 1, states and a frame of ones."""
    return {
        spec.name: np.ones(
            [1 if isinstance(size, str) else size for size in spec.shape], spec.dtype
        )
        for spec in step.contract.inputs
    }


def export_one(name: str, path: Path, checkpoint: Path, calibration: Path) -> None:
    """Make one of our files."""
    export({name: path}, ExportOptions(checkpoint, calibration=calibration))
