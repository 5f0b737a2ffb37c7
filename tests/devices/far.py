"""A device that is not this machine, as far as the gate can see: it proves the seam.

It copies files to a folder of its own, runs them in another process, tells the time by counting (a
microsecond for each byte of the file), lacks what it is told to, and dies once if a file lies where
it is told to look: ``far:FILE``. A test registers it in ``harness.devices.registry.DEVICES``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import sidecar_path
from exportgate.runtime.isolate import Worker, WorkerCrashError
from exportgate.runtime.opening import contract_of, open_artifact
from exportgate.runtime.session import Elapsed
from harness.devices.device import DeviceDiedError, DeviceLacksError, Need
from harness.measure.environment import Environment, environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.runtime.session import Arrays, Session
    from harness.measure.latency import Latency

SECONDS_PER_BYTE = 1e-6
LACKING = "nobody has built a meter for it"


@dataclass(frozen=True, slots=True)
class FarDevice:
    """See ``harness.devices.device.Device``.

    Attributes:
        kind: As ``--device`` names it.
        poison: A file that it dies of, once; empty for none.
        lacking: What it cannot do.
    """

    kind: str
    poison: str = ""
    lacking: tuple[Need, ...] = (Need.ALONE,)

    @property
    def name(self) -> str:
        """With the argument."""
        return f"{self.kind}:{self.poison}" if self.poison else self.kind

    def lacks(self, need: Need) -> str:
        """Say why."""
        return LACKING if need in self.lacking else ""

    def environment(self) -> Environment:
        """Describe a processor that is not here."""
        return replace(environment(), machine="far64", cpu="a far processor", cpu_flags=())

    def open(self, artifact: Path) -> FarSession:
        """Carry the file and its sidecar away, and open them there."""
        return FarSession(self, artifact)

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:  # noqa: ARG002 - the protocol's
        """Never asked for: it is said to lack this."""
        raise DeviceLacksError(self.name, Need.ALONE, LACKING)


class FarSession:
    """A copy of a file in another process."""

    def __init__(self, device: FarDevice, artifact: Path) -> None:
        """Copy the file and open the copy; once it is open, the copy can go."""
        self._device, self._worker = device, Worker("the far process")
        with tempfile.TemporaryDirectory(prefix="far-") as folder:
            for path in (artifact, sidecar_path(artifact)):
                shutil.copy(path, folder)
            there = Path(folder) / artifact.name
            self._session = self._worker.make(open_artifact, there)
            self._bytes = there.stat().st_size
        self.contract = self._worker.call(contract_of, self._session)

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """Run there, or die there."""
        poison = Path(self._device.poison or os.devnull)
        try:
            if poison.is_file():
                poison.unlink()
                self._worker.call(os._exit, 7)
            return self._worker.call(_run, self._session, inputs)
        except WorkerCrashError as error:
            raise DeviceDiedError(self._device.name, str(error)) from error

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """Run each once, and count for all."""
        for item in inputs:
            self.run(item)
        seconds = self._bytes * SECONDS_PER_BYTE * len(inputs) * runs
        return Elapsed(seconds, seconds)


def _run(session: Session, inputs: Arrays) -> dict[str, Any]:
    return session.run(inputs)


def far(argument: str) -> FarDevice:
    """Return the device; the argument is the file that it dies of."""
    return FarDevice("far", argument)


def clockless(argument: str) -> FarDevice:
    """Return one that cannot time anything."""
    return FarDevice("clockless", argument, (Need.ALONE, Need.PAIRED_TIME))
