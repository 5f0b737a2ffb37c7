"""The least that a device takes: files run in a process next door, which tells its own time.

It is this machine still, so that all that is left to say is how a file is opened. What stands
between the markers would be a module in ``harness/devices/``.
"""

from __future__ import annotations

from operator import call, methodcaller
from typing import TYPE_CHECKING, Any

from exportgate.runtime.isolate import Worker, WorkerCrashError
from exportgate.runtime.opening import open_artifact
from harness.devices.device import DeviceDiedError
from harness.devices.host import Host

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.runtime.session import Arrays, Elapsed


# --- example of a device, in harness/devices/next_door.py
class NextDoor(Host):
    def open(self, artifact: Path) -> Neighbour:
        return Neighbour(artifact)


class Neighbour:
    def __init__(self, artifact: Path) -> None:
        self._worker = Worker("next-door")
        self._session = self._worker.make(open_artifact, artifact)
        self.contract = self._worker.call(getattr, self._session, "contract")

    def run(self, inputs: Arrays) -> dict[str, Any]:
        return self._there("run", inputs)

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        return self._there("elapsed", inputs, runs)

    def _there(self, name: str, *args: Any) -> Any:
        try:
            return self._worker.call(call, methodcaller(name, *args), self._session)
        except WorkerCrashError as error:
            raise DeviceDiedError(self._worker.name, str(error)) from error


def next_door(argument: str) -> NextDoor:  # noqa: ARG001 - there is one
    return NextDoor("next-door")


# --- end of the example
