"""``--device qemu-x86:PROCESSOR``: files on older x86 processors, by the runtimes installed here.

This machine's own Python runs under QEMU's user-mode emulation, which hides what a processor does
not have: without VNNI and AVX-512, integer kernels compute in another way, and words have differed.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError
from exportgate.runtime.isolate import Handle, Worker, WorkerCrashError, WorkerTimeoutError
from exportgate.runtime.opening import contract_of, open_artifact
from exportgate.runtime.session import OpenError
from harness.devices.device import DeviceDiedError, DeviceLacksError, Need
from harness.measure import instructions
from harness.measure.environment import Environment, environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.runtime.session import Arrays, Elapsed, Session
    from harness.measure.instructions import Count
    from harness.measure.latency import Latency

NO_CLOCK = "emulation takes a hundred times as long, and not the same for each instruction"
NO_FP16 = "the processor cannot convert FP16"
NO_MEMORY = "what the emulator takes is not what the processor would"
SWIPES = 64
LIMIT_S = 280.0
"""Longest time for one call: to import a runtime and open a file takes longest, half a minute."""
EMULATOR = "qemu-x86_64"
HOW = "run: make setup-arm64"


class ProcessorError(ExportGateError, ValueError):
    """No such processor is emulated, or nothing here emulates it."""


@dataclass(frozen=True, slots=True)
class Processor:
    """An x86 processor.

    Attributes:
        name: As ``--device qemu-x86:NAME`` names it.
        cpu: QEMU's ``-cpu``.
        flags: What decides which kernels a runtime takes.
    """

    name: str
    cpu: str
    flags: tuple[str, ...]


PROCESSORS = (
    # Haswell and Zen, 2013 to 2020: QEMU emulates neither AVX-512 nor VNNI whatever is asked for.
    Processor("avx2", "max", ("sse4_2", "avx", "f16c", "avx2", "fma")),
    # Nehalem, 2008; x86-64-v2: the least that today's packages of numpy run on.
    Processor("sse42", "Nehalem", ("sse4_2",)),
)


@dataclass(frozen=True, slots=True)
class X86:
    """See ``harness.devices.device.Device``.

    Attributes:
        processor: What is emulated.
        swipes_max: See ``harness.devices.device.Sampled``.
    """

    processor: Processor
    swipes_max: int = SWIPES

    @property
    def name(self) -> str:
        """With the processor."""
        return f"qemu-x86:{self.processor.name}"

    def lacks(self, need: Need) -> str:
        """Say why there is no clock, and FP16 only where it can be converted."""
        reasons = {Need.PAIRED_TIME: NO_CLOCK, Need.ALONE: NO_MEMORY}
        if "f16c" not in self.processor.flags:
            reasons[Need.FP16] = NO_FP16
        return reasons.get(need, "")

    def environment(self) -> Environment:
        """Describe the emulated processor."""
        cpu = f"{self.processor.name}, emulated"
        return replace(environment(), cpu=cpu, cpu_flags=self.processor.flags, cores=1)

    def open(self, artifact: Path) -> X86Session:
        """Open the file in the emulated process that this worker has for all of them."""
        return X86Session(self.name, _emulated(self), artifact)

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:  # noqa: ARG002 - the protocol's
        """Never asked for: it is said to lack this."""
        raise DeviceLacksError(self.name, Need.ALONE, NO_MEMORY)

    @property
    def cannot_count(self) -> str:
        """What is missing to count instructions."""
        return instructions.missing(self._guest)

    def count(self, artifact: Path, inputs: Arrays) -> Count:
        """Count the instructions of an inference."""
        return instructions.count(artifact, inputs, self._guest)

    @property
    def _guest(self) -> instructions.Guest:
        return instructions.Guest(self.name, EMULATOR, self.processor.cpu, sys.executable)


class X86Session:
    """A file in the emulated process."""

    def __init__(self, device: str, emulated: Emulated, artifact: Path) -> None:
        """Open the file there."""
        self._device, self._emulated = device, emulated
        worker = emulated.worker()
        try:
            self._session: Handle = worker.make(open_artifact, artifact.resolve())
            self.contract = worker.call(contract_of, self._session)
        except (WorkerCrashError, WorkerTimeoutError) as error:
            msg = f"{artifact}: does not open on {device} ({error})"
            raise OpenError(msg) from error
        self._worker = worker

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """See ``Session.run``."""
        try:
            return self._worker.call(_run, self._session, dict(inputs))
        except (WorkerCrashError, WorkerTimeoutError) as error:
            raise DeviceDiedError(self._device, str(error)) from error

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:  # noqa: ARG002 - the protocol's
        """Never asked for: the device is said to lack this."""
        raise DeviceLacksError(self._device, Need.PAIRED_TIME, NO_CLOCK)


class Emulated:
    """The emulated process of a device, begun anew after a death."""

    def __init__(self, device: X86) -> None:
        """Start nothing yet."""
        self._device = device
        self._worker: Worker | None = None

    def worker(self) -> Worker:
        """Return the process, alive."""
        if self._worker is None or not self._worker.alive:
            emulator = shutil.which(EMULATOR) or EMULATOR
            launcher = (emulator, "-cpu", self._device.processor.cpu)
            name = f"the emulated {self._device.processor.name}"
            self._worker = Worker(name, timeout_s=LIMIT_S, launcher=launcher)
        return self._worker


@cache
def _emulated(device: X86) -> Emulated:
    return Emulated(device)


def _run(session: Session, inputs: Arrays) -> dict[str, Any]:
    return session.run(inputs)


def x86(argument: str) -> X86:
    """Return the device with this processor.

    Raises:
        ProcessorError: None is called so, or the emulator is not installed.
    """
    found = next((row for row in PROCESSORS if row.name == argument), None)
    if found is None:
        known = ", ".join(row.name for row in PROCESSORS)
        msg = f"--device qemu-x86: unknown processor {argument!r}; known: {known}"
        raise ProcessorError(msg)
    if shutil.which(EMULATOR) is None:
        msg = f"--device qemu-x86: {EMULATOR} is not installed; {HOW}"
        raise ProcessorError(msg)
    return X86(found)
