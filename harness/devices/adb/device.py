"""A phone: files are pushed to it, run by the C++ runner, and timed by its own clocks.

Without a phone, or without a runner for it, everything is NOT_MEASURED with the reason.
"""

from __future__ import annotations

import uuid
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.runtime.adapter import AdapterSession, foreign_names
from exportgate.runtime.executorch_runtime import pte_contract
from exportgate.runtime.session import Elapsed, OpenError, RunError, check_inputs
from harness.devices.adb import build
from harness.devices.adb.bridge import AdbError, Phone
from harness.devices.adb.runner import PhoneRunner
from harness.devices.device import DeviceDiedError, Need, demand
from harness.measure.environment import environment
from harness.measure.latency import OPENINGS, RUNS, Latency

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays, TimedSession
    from harness.measure.environment import Environment

PLACE = "/data/local/tmp"
"""Where adb may write and start programs on every phone."""
ENTRY_CELSIUS = 38.0
"""Warmest that a phone's battery may be when it begins to be timed: charging and use in the hand
stay below it, and phones begin to slow down from about 40."""


@dataclass(frozen=True, slots=True)
class AdbDevice:
    """See ``harness.devices.device.Device``."""

    phone: Phone

    @property
    def name(self) -> str:
        """With the serial number, if one was named."""
        return f"adb:{self.phone.serial}" if self.phone.serial else "adb"

    def lacks(self, need: Need) -> str:
        """Say that there is no phone, no runner, or no runtime for such files on it."""
        if need is Need.ONNX:
            return "the runner on the phone is ExecuTorch's, which runs .pte files only"
        return self.phone.missing() or build.missing()

    def environment(self) -> Environment:
        """Describe the phone; one that does not answer is described as absent."""
        here = replace(
            environment(), machine="phone", cpu="no phone", cpu_flags=(), cores=0, load_1min=0.0
        )
        if self.phone.missing():
            return here
        try:
            found = self.phone.properties()
            warmth = f"{self.phone.battery_celsius():.1f} °C"
        except AdbError as error:
            return replace(here, cpu=f"unknown: {error}")
        return replace(
            here,
            machine=found["model"],
            cpu=found["soc"] or found["board"],
            cpu_flags=tuple(found["features"].split()),
            cores=int(found["cores"]),
            system=f"Android {found['android']}",
            versions={**here.versions, "battery at start": warmth},
        )

    def open(self, artifact: Path) -> TimedSession:
        """Push the file and its runner, and start it there."""
        demand(self, Need.PTE)
        sidecar = read_sidecar(artifact)
        if artifact.suffix != ".pte":
            msg = f"{artifact}: {self.lacks(Need.ONNX)}"
            raise OpenError(msg)
        if foreign := sidecar.recipe.get("foreign"):
            session = PhoneSession(self, artifact, foreign_names(foreign))
            return AdapterSession(artifact, sidecar.contract, foreign, session)
        return PhoneSession(self, artifact, sidecar.contract)

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:
        """Time openings of the file, each in a process of its own on the phone."""
        demand(self, Need.ALONE)
        self.cool()
        sidecar = read_sidecar(artifact)
        names = sidecar.contract
        if foreign := sidecar.recipe.get("foreign"):
            names = foreign_names(foreign)
        session = PhoneSession(self, artifact, names)
        if foreign:
            inputs = AdapterSession(artifact, sidecar.contract, foreign, session).feeds(inputs)
        openings = [session.opening(inputs) for _ in range(OPENINGS)]
        return Latency(
            load_ms=tuple(each[0][0] for each in openings),
            first_run_ms=tuple(each[0][1] for each in openings),
            run_ms=tuple(ms for each in openings for ms in each[0][2:]),
            peak_memory_bytes=openings[0][1],
        )

    def cool(self) -> None:
        """Go on only if the phone is cool enough to be timed.

        Raises:
            AdbError: It is too warm, or tells no temperature.
        """
        celsius = self.phone.battery_celsius()
        if celsius > ENTRY_CELSIUS:
            msg = (
                f"the phone has {celsius:.1f} °C, but should have {ENTRY_CELSIUS:g} at most before "
                "it is timed: let it cool"
            )
            raise AdbError(msg)


@dataclass(slots=True)
class _Folder:
    """A folder on the phone, removed when nobody uses it any more."""

    phone: Phone
    path: str = field(default_factory=lambda: f"{PLACE}/exportgate-{uuid.uuid4().hex[:12]}")

    def fill(self, artifact: Path) -> None:
        """Push a file and the runner."""
        self.phone.shell("mkdir", "-p", self.path)
        self.phone.push(build.runner(), f"{self.path}/run")
        self.phone.shell("chmod", "755", f"{self.path}/run")
        self.phone.push(artifact, f"{self.path}/{artifact.name}")


def _remove(phone: Phone, path: str) -> None:
    try:
        phone.shell("rm", "-rf", path)
    except AdbError:  # the phone is gone, and its folder with it as far as we can tell
        return


class PhoneSession:
    """See ``exportgate.runtime.session.TimedSession``."""

    def __init__(self, device: AdbDevice, artifact: Path, names: IoContract) -> None:
        """Push a file and open it.

        Raises:
            DeviceDiedError: The phone is full or gone.
            OpenError: ExecuTorch does not load it there.
        """
        self._device, self._artifact, self._timed = device, artifact, False
        folder = _Folder(device.phone)
        self._place = folder.path
        self.close = weakref.finalize(self, _remove, device.phone, folder.path)
        try:
            folder.fill(artifact)
        except AdbError as error:
            self.close()
            raise DeviceDiedError(device.name, str(error)) from error
        self._runner = self._started()
        try:
            inputs, outputs = self._runner.declared()
        except RunError as error:
            msg = f"{artifact}: {device.name} does not load it ({error})"
            raise OpenError(msg) from error
        self.contract = pte_contract(inputs, outputs, names)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        found = self._runner.ask("run", self._feeds(inputs))
        specs = self.contract.outputs
        if len(found) != len(specs):
            msg = f"{len(found)} outputs, but should be {len(specs)}"
            raise RunError(msg)
        return {spec.name: value for spec, value in zip(specs, found, strict=True)}

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``: by the phone's clocks, after a look at its temperature."""
        if not self._timed:
            self._device.cool()
            self._timed = True
        found = np.zeros(2)
        for item in inputs:
            (took,) = self._runner.ask("timed", self._feeds(item), runs)
            found += took
        processor_s, wall_s = (1e-9 * found).tolist()
        return Elapsed(processor_s, wall_s)

    def opening(self, inputs: Arrays) -> tuple[list[float], int]:
        """Open the file in a new process: milliseconds of loading and of each run, and bytes."""
        runner, feeds = self._started(), self._feeds(inputs)
        runner.declared()
        (load,) = runner.ask("loaded", {})
        took = [float(load[0])]
        took += [float(runner.ask("timed", feeds, 1)[0][1]) for _ in range(1 + RUNS)]
        ((before, peak),) = runner.ask("memory", {})
        runner.close()
        return [1e-6 * each for each in took], int(peak - before)

    def _started(self) -> PhoneRunner:
        command = f"cd {self._place} && exec ./run {self._artifact.name}"
        return PhoneRunner(self._device.name, self._device.phone.command("shell", "-T", command))

    def _feeds(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return {spec.name: np.ascontiguousarray(inputs[spec.name]) for spec in self.contract.inputs}


def adb(argument: str) -> AdbDevice:
    """Return a phone by its serial number, or the only one."""
    return AdbDevice(Phone(argument))
