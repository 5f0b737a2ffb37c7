"""Devices that compute something else than the host: what the comparison of devices is for.

``spoilt`` gives each swipe of more than 60 points the encoding of its mirror image: other words.
``scaled`` is a device whose encodings are 3 % too large: hardly another word, but no rounding.
``mute`` opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import OpenError
from harness.measure.environment import environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.runtime.session import Arrays, Elapsed, TimedSession
    from harness.devices.device import Need
    from harness.measure.environment import Environment
    from harness.measure.latency import Latency

POINTS = 60


@dataclass(frozen=True, slots=True)
class SpoiltDevice:
    """See ``harness.devices.device.Device``."""

    name: str

    def lacks(self, need: Need) -> str:  # noqa: ARG002 - the protocol's
        """Lack nothing, as such devices say."""
        return ""

    def environment(self) -> Environment:
        """Describe this machine."""
        return environment()

    def open(self, artifact: Path) -> TimedSession:
        """Open the file here, and harm what it gives."""
        if self.name == "mute":
            msg = f"{artifact}: the device does not load it (it is mute)"
            raise OpenError(msg)
        return SpoiltSession(self.name, open_artifact(artifact))

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:
        """Never asked for."""
        raise NotImplementedError


class SpoiltSession:
    """A session whose encodings are wrong."""

    def __init__(self, kind: str, inner: TimedSession) -> None:
        self._kind, self._inner = kind, inner
        self.contract = inner.contract

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """Run, with the wrong input or to the wrong output."""
        if "features_bft" not in inputs:
            return self._inner.run(inputs)
        if self._kind == "spoilt" and inputs["features_bft"].shape[2] > POINTS:
            mirrored = np.ascontiguousarray(inputs["features_bft"][:, :, ::-1])
            return self._inner.run({**inputs, "features_bft": mirrored})
        outputs = self._inner.run(inputs)
        factor = np.float32(1.03 if self._kind == "scaled" else 1.0)
        return {**outputs, "encoded_bdt": outputs["encoded_bdt"] * factor}

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """Tell the host's time."""
        return self._inner.elapsed(inputs, runs)


def spoilt(argument: str) -> SpoiltDevice:  # noqa: ARG001 - there is one
    """Return the device that gives other words."""
    return SpoiltDevice("spoilt")


def scaled(argument: str) -> SpoiltDevice:  # noqa: ARG001 - as above
    """Return the device that is 3 % off."""
    return SpoiltDevice("scaled")


def mute(argument: str) -> SpoiltDevice:  # noqa: ARG001 - as above
    """Return the device that opens nothing."""
    return SpoiltDevice("mute")
