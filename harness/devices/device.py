"""The seam between the gate and the places where files run."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from exportgate.errors import ExportGateError
from exportgate.runtime.canonical import canonical

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.variants import Variant
    from exportgate.runtime.session import Arrays, TimedSession
    from harness.measure.environment import Environment
    from harness.measure.instructions import Count
    from harness.measure.latency import Latency


class Need(StrEnum):
    """What a measurement needs of a device, in words for a report.

    Attributes:
        PTE: To run an ExecuTorch program.
        ONNX: To run an ONNX file.
        PAIRED_TIME: A clock that tells two files apart that run in turns.
        ALONE: To say what a file takes in a process of its own: load, first run, memory.
        FP16: Arithmetic in 16-bit floating point.
    """

    PTE = "run .pte files"
    ONNX = "run .onnx files"
    PAIRED_TIME = "time files in turns"
    ALONE = "measure load time and memory of a file alone"
    FP16 = "calculate in FP16"


class DeviceLacksError(ExportGateError, RuntimeError):
    """A device cannot measure something: what depends on it is NOT_MEASURED, for this reason."""

    def __init__(self, device: str, need: Need, reason: str) -> None:
        """Say which device lacks what, and why."""
        super().__init__(f"device {device} cannot {need}: {reason}")


class DeviceDiedError(ExportGateError, RuntimeError):
    """A device died under a session; its files are opened anew for the next check."""

    def __init__(self, device: str, reason: str) -> None:
        """Say which, and what was heard of it last."""
        super().__init__(f"device {device} died: {reason}")


class Device(Protocol):
    """A place where files run.

    It is a small value that can be pickled: sessions are opened in a worker process, so that a
    device which crashes or hangs is one failed check. What it starts there (a browser, an emulator)
    must end when that process ends.
    """

    @property
    def name(self) -> str:
        """As ``--device`` names it, with its argument: ``qemu-arm64:cortex-a76``."""

    def lacks(self, need: Need) -> str:
        """Return why the device cannot do something; empty if it can."""

    def environment(self) -> Environment:
        """Describe machine, processor and versions that files meet there."""

    def open(self, artifact: Path) -> TimedSession:
        """Carry a file with its sidecar to the device and open it; called in a worker.

        What is opened raises ``DeviceDiedError`` if the device dies behind it.

        Raises:
            ArtifactError: File and sidecar do not fit each other.
            OpenError: The runtime there does not load it.
        """

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:
        """Time a file in a process that runs nothing else; called in a worker."""


@runtime_checkable
class Sampled(Protocol):
    """A device so slow that only some of the manifest's swipes are run on it."""

    @property
    def swipes_max(self) -> int:
        """How many, spread evenly over the manifest."""


@runtime_checkable
class Counting(Protocol):
    """A device that counts the instructions of an inference itself."""

    @property
    def cannot_count(self) -> str:
        """Why it cannot just now; empty if it can."""

    def count(self, artifact: Path, inputs: Arrays) -> Count:
        """Count those of a file, which is opened for it.

        Raises:
            NotInstalledError: What counts is not installed.
            ExactError: The count failed.
        """


def demand(device: Device, need: Need) -> None:
    """Go on only if a device can do something.

    Raises:
        DeviceLacksError: It cannot.
    """
    reason = device.lacks(need)
    if reason:
        raise DeviceLacksError(device.name, need, reason)


def not_for(device: Device, row: Variant) -> str:
    """Return why a file is not meant for a device that runs others; empty if it is.

    A device that is not installed runs no file at all: it lacks what every file needs.
    """
    needs = {"pte": Need.PTE, "onnx": Need.ONNX}
    mine = needs.pop(row.format)
    (other,) = needs.values()
    if reason := device.lacks(mine):
        return "" if device.lacks(other) else reason
    return device.lacks(Need.FP16) if row.fp16 else ""


def open_on(device: Device, artifact: Path) -> TimedSession:
    """Open a file on a device, in the worker that is to keep the session.

    However the file is called, the session is called as those of our own files are.
    """
    return canonical(device.open(artifact))


def alone_on(device: Device, artifact: Path, inputs: Arrays) -> Latency:
    """Time a file alone on a device, in a worker."""
    return device.alone(artifact, inputs)


def swipes_max(device: Device) -> int:
    """Return how many swipes are run on a device; 0 for all."""
    return device.swipes_max if isinstance(device, Sampled) else 0
