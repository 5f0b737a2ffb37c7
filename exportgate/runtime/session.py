"""One small protocol in front of each runtime: open a file, run it on named arrays.

Opened inside a worker (``isolate``), except in tests. Inputs are checked before they reach a
runtime: ExecuTorch silently accepts lengths of 0, negative or above T, and NaN.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import IoContract, TensorSpec

    Arrays = Mapping[str, NDArray[Any]]


class OpenError(ExportGateError, RuntimeError):
    """A runtime does not load a file."""


class RunError(ExportGateError, RuntimeError):
    """A runtime failed on an input."""


class InputError(ExportGateError, ValueError):
    """An input does not fit the contract, or holds what no swipe can hold."""


@dataclass(frozen=True, slots=True)
class Elapsed:
    """What work took, by the clocks of the device that did it.

    Attributes:
        processor_s: Processor seconds: other work on the device does not count.
        wall_s: Seconds that passed.
    """

    processor_s: float
    wall_s: float


class Session(Protocol):
    """A file, opened where it runs."""

    @property
    def contract(self) -> IoContract:
        """Inputs and outputs as the runtime declares them."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once.

        Args:
            inputs: Each input of the contract by name.

        Returns:
            Each output by name.

        Raises:
            InputError: The input is none that an application may give.
            RunError: The runtime refused the input or failed.
        """


class TimedSession(Session, Protocol):
    """A session whose device has a clock."""

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """Run each input some times, and say what it took by the device's own clocks.

        Raises:
            RunError: The runtime refused an input or failed.
        """


def elapsed_here(run: Callable[[Arrays], object], inputs: Sequence[Arrays], runs: int) -> Elapsed:
    """Time runs in this process: what a session does whose runtime lives in it."""

    def work() -> None:
        for _ in range(runs):
            for item in inputs:
                run(item)

    return elapsed_of(work)


def elapsed_of(work: Callable[[], object]) -> Elapsed:
    """Time work in this process."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Elapsed(time.process_time() - processor, time.perf_counter() - wall)


def check_inputs(contract: IoContract, inputs: Arrays) -> None:
    """Check names, dtypes, shapes and values of inputs against a contract.

    How long a trace may be is left to the file: that it refuses one beyond its bound is judged.

    Raises:
        InputError: They do not fit; the message names the input.
    """
    names = [spec.name for spec in contract.inputs]
    if sorted(inputs) != sorted(names):
        msg = f"inputs are {', '.join(sorted(inputs))}, but should be {', '.join(names)}"
        raise InputError(msg)
    for spec in contract.inputs:
        array = inputs[spec.name]
        problem = _shape_problem(spec, array)
        if problem is None and array.dtype.kind == "f" and not np.isfinite(array).all():
            problem = "holds NaN or infinite values"
        if problem:
            msg = f"{spec.name} {problem}"
            raise InputError(msg)
    if {"lengths", "features_bft"} <= inputs.keys():  # others call only one of them so
        frames = inputs["features_bft"].shape[2]
        if not ((inputs["lengths"] >= 1) & (inputs["lengths"] <= frames)).all():
            msg = f"lengths are {inputs['lengths'].tolist()}, but should be 1 to {frames}"
            raise InputError(msg)


def _shape_problem(spec: TensorSpec, array: NDArray[Any]) -> str | None:
    if str(array.dtype) != spec.dtype:
        return f"is {array.dtype}, but should be {spec.dtype}"
    fits = array.ndim == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == found
        for wanted, found in zip(spec.shape, array.shape, strict=True)
    )
    return None if fits else f"has shape {array.shape}, but should have {spec.shape}"


def first_line(error: BaseException) -> str:
    """Return what a runtime said first: its tracebacks are of no use to a reader."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
