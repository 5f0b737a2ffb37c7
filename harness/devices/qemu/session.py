"""A file that a runner keeps open, as a session of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exportgate.contract import IoContract
from exportgate.runtime.session import OpenError, RunError, check_inputs
from harness.devices.device import DeviceLacksError, Need

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.contract import TensorSpec
    from exportgate.runtime.session import Arrays, Elapsed
    from harness.devices.qemu.runner import Runner

RUNTIMES = {".onnx": "ONNX Runtime", ".pte": "ExecuTorch"}


class RunnerSession:
    """See ``exportgate.runtime.session.TimedSession``; there is no clock."""

    def __init__(self, device: str, clock: str, path: Path, names: IoContract, runner: Runner):  # noqa: ANN204
        """Wait until the file is open.

        Args:
            device: For messages.
            clock: Why nothing is timed there.
            path: The file.
            names: Tensors of the sidecar: a program for ExecuTorch names none.
            runner: Just started.

        Raises:
            OpenError: The runtime does not load it.
        """
        self._device, self._clock, self._runner = device, clock, runner
        self._runtime = RUNTIMES[path.suffix]
        try:
            inputs, outputs = runner.declared()
        except RunError as error:
            msg = f"{path}: {self._runtime} does not load it on {device} ({error})"
            raise OpenError(msg) from error
        if path.suffix == ".pte":
            self.contract = IoContract(_named(inputs, names.inputs), _named(outputs, names.outputs))
        else:
            self.contract = IoContract(inputs, outputs)
        self._numbered = path.suffix == ".pte"

    @property
    def pid(self) -> int:
        """The emulator's process."""
        return self._runner.pid

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        ordered = {spec.name: inputs[spec.name] for spec in self.contract.inputs}
        try:
            found = self._runner.run(ordered)
        except RunError as error:
            msg = f"{self._runtime} failed on {self._device} ({error})"
            raise RunError(msg) from error
        if not self._numbered:
            return found
        names = [spec.name for spec in self.contract.outputs]
        return dict(zip(names, found.values(), strict=True))

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:  # noqa: ARG002 - the protocol's
        """Never asked for: the device is said to lack this.

        Raises:
            DeviceLacksError: Always.
        """
        raise DeviceLacksError(self._device, Need.PAIRED_TIME, self._clock)


def _named(
    declared: tuple[TensorSpec, ...], names: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Give numbered tensors the sidecar's names, and its names to axes that may be shorter."""
    found = []
    for place, spec in enumerate(declared):
        if place >= len(names) or len(names[place].shape) != len(spec.shape):
            found.append(spec)
            continue
        pairs = zip(names[place].shape, spec.shape, strict=True)
        axes = tuple(wanted if isinstance(wanted, str) else size for wanted, size in pairs)
        found.append(replace(spec, name=names[place].name, shape=axes))
    return tuple(found)
