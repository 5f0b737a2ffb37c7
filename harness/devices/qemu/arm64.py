"""``--device qemu-arm64:CORE``: files on the arm64 runtimes, on an emulated core.

What it shows: whether a file loads there, what its kernels compute, which kernels they are, how
many instructions an inference takes. It shows no milliseconds.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporters.variants import variant
from exportgate.artifacts.sidecar import read_sidecar
from exportgate.runtime.adapter import AdapterSession, foreign_names
from exportgate.runtime.session import OpenError
from harness.devices.device import DeviceLacksError, Need
from harness.devices.qemu.build import (
    EMULATOR,
    WHEELS,
    SetupError,
    emulator_version,
    folder,
    missing,
)
from harness.devices.qemu.cores import Core, core
from harness.devices.qemu.runner import Runner
from harness.devices.qemu.session import RunnerSession
from harness.measure.environment import Environment, environment
from harness.measure.instructions import Count, ExactError, NotInstalledError

if TYPE_CHECKING:
    from pathlib import Path

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays, TimedSession
    from harness.measure.latency import Latency

NO_CLOCK = "emulation takes a hundred times as long, and not the same for each instruction"
NO_MEMORY = "what the emulator takes is not what a phone would"
NO_FP16 = "the core has no FP16 arithmetic"
SWIPES = 64
INFERENCES = 3
_RUNNERS = {".onnx": "run_onnx", ".pte": "run_pte"}
_EXACT = re.compile(r"^EXACT (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Arm64:
    """See ``harness.devices.device.Device``.

    Attributes:
        core: The core that is emulated.
        swipes_max: See ``harness.devices.device.Sampled``.
    """

    core: Core
    swipes_max: int = SWIPES

    @property
    def name(self) -> str:
        """With the core."""
        return f"qemu-arm64:{self.core.name}"

    def lacks(self, need: Need) -> str:
        """Say why there is no clock, and FP16 only on some cores."""
        reasons = {Need.PAIRED_TIME: NO_CLOCK, Need.ALONE: NO_MEMORY}
        if not self.core.fp16:
            reasons[Need.FP16] = NO_FP16
        return reasons.get(need, "")

    @property
    def cannot_count(self) -> str:
        """Nothing: without its plugin there is no such device."""
        return ""

    def environment(self) -> Environment:
        """Describe the emulated core, and what emulates it."""
        versions = {name: pinned for name, (pinned, _) in WHEELS.items()}
        here = environment()
        return replace(
            here,
            machine="aarch64",
            cpu=f"{self.core.name}, emulated",
            cpu_flags=self.core.features,
            cores=1,
            versions={**here.versions, **versions, "qemu": emulator_version()},
        )

    def open(self, artifact: Path) -> TimedSession:
        """Open the file; the emulator reads it where it is.

        Raises:
            ArtifactError: File and sidecar do not fit each other.
            OpenError: The runtime does not load it.
            SetupError: The runtimes are not installed.
        """
        sidecar = read_sidecar(artifact)
        if "foreign" in sidecar.recipe:
            foreign = sidecar.recipe["foreign"]
            inner = self._open(artifact, foreign_names(foreign))
            return AdapterSession(artifact, sidecar.contract, foreign, inner)
        return self._open(artifact, sidecar.contract)

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:  # noqa: ARG002 - the protocol's
        """Never asked for: it is said to lack this."""
        raise DeviceLacksError(self.name, Need.ALONE, NO_MEMORY)

    def count(self, artifact: Path, inputs: Arrays) -> Count:
        """Count the instructions of an inference, by class.

        Raises:
            NotInstalledError: The runtimes are not installed.
            ExactError: The count makes no sense.
            OpenError: The runtime does not load the file.
        """
        if reason := missing():
            raise NotInstalledError(reason)
        sidecar = read_sidecar(artifact)
        plugin = ("-plugin", str(folder() / "libcount.so"))
        runner = self._runner(artifact, plugin)
        session = RunnerSession(self.name, NO_CLOCK, artifact, sidecar.contract, runner)
        for _ in range(INFERENCES):
            session.run(inputs)
        rows = [
            {name: int(number) for name, _, number in (w.partition("=") for w in line.split())}
            for line in _EXACT.findall(runner.said())
        ]
        if len(rows) != INFERENCES or any(row["instructions"] <= 0 for row in rows):
            msg = f"{artifact}: the plugin reported {rows}, but should report {INFERENCES} counts"
            raise ExactError(msg)
        each = tuple(row.pop("instructions") for row in rows[1:])
        best = [self.core.integers]
        if variant(sidecar.variant).graph == "step":
            best.append(self.core.one_row)
        return Count(self.name, each, rows[-1], tuple(dict.fromkeys(best)))

    def _open(self, artifact: Path, names: IoContract) -> RunnerSession:
        return RunnerSession(self.name, NO_CLOCK, artifact, names, self._runner(artifact))

    def _runner(self, artifact: Path, options: tuple[str, ...] = ()) -> Runner:
        if reason := missing():
            raise SetupError(reason)
        if artifact.suffix not in _RUNNERS:
            msg = f"{artifact}: {self.name} opens {' and '.join(_RUNNERS)} only"
            raise OpenError(msg)
        home = folder()
        root = home / "roots" / self.core.name
        command = [
            shutil.which(EMULATOR) or EMULATOR,
            "-L",
            str(root),
            "-cpu",
            self.core.cpu,
            *options,
        ]
        program = str(home / _RUNNERS[artifact.suffix])
        # An empty environment: where variables lie on the stack would move what is counted.
        return Runner(self.name, [*command, program, str(artifact.resolve())], {})


def arm64(argument: str) -> Arm64:
    """Return the device with this core.

    Raises:
        UnknownCoreError: None is called so.
        SetupError: The runtimes are not installed.
    """
    found = Arm64(core(argument))
    if reason := missing():
        msg = f"--device {found.name}: {reason}"
        raise SetupError(msg)
    return found
