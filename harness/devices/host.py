"""This machine, with the runtimes that are installed beside the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exportgate.runtime.opening import open_artifact
from harness.measure.environment import environment
from harness.measure.latency import measure_alone

if TYPE_CHECKING:
    from pathlib import Path

    from exportgate.runtime.session import Arrays, TimedSession
    from harness.devices.device import Need
    from harness.measure.environment import Environment
    from harness.measure.latency import Latency


@dataclass(frozen=True, slots=True)
class Host:
    """See ``device.Device``; it lacks nothing."""

    name: str = "host"

    def lacks(self, need: Need) -> str:  # noqa: ARG002 - the protocol's
        """Return nothing: both runtimes are installed here, and so is a clock."""
        return ""

    def environment(self) -> Environment:
        """Describe this machine."""
        return environment()

    def open(self, artifact: Path) -> TimedSession:
        """Open the file where it is."""
        return open_artifact(artifact)

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:
        """Time the file in a forked process."""
        return measure_alone(artifact, inputs)


HOST = Host()


def host(argument: str) -> Host:  # noqa: ARG001 - a machine has one host
    """Return this machine."""
    return HOST
