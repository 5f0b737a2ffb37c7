"""Another version of a runtime on this machine, in an environment and a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from dataclasses import dataclass, replace
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import read_sidecar
from exportgate.runtime.adapter import AdapterSession, foreign_names
from exportgate.runtime.executorch_runtime import pte_contract
from exportgate.runtime.onnx_runtime import onnx_contract
from exportgate.runtime.session import (
    Elapsed,
    OpenError,
    RunError,
    check_inputs,
    first_line,
)
from harness.devices.device import DeviceDiedError, Need, demand
from harness.devices.runtimes.environments import missing, python_of
from harness.devices.runtimes.pins import pin
from harness.measure.environment import environment
from harness.measure.latency import OPENINGS, RUNS, Latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays, TimedSession
    from harness.devices.runtimes.pins import Pin
    from harness.measure.environment import Environment

SERVER = Path(__file__).with_name("server.py")
ANSWER_S = 240.0
"""Longest wait for an answer: less than a worker waits, so that the version is named."""
_SUFFIX = {"onnxruntime": ".onnx", "executorch": ".pte"}
_STDERR_TAIL = 300


@dataclass(frozen=True, slots=True)
class OtherVersion:
    """See ``harness.devices.device.Device``."""

    pin: Pin

    @property
    def name(self) -> str:
        """With the version: ``onnxruntime==1.22.0``."""
        return self.pin.name

    def lacks(self, need: Need) -> str:
        """Say that the version is not installed, or that it does not run such files."""
        other = {Need.ONNX: ".onnx", Need.PTE: ".pte"}.get(need)
        if other not in {None, _SUFFIX[self.pin.runtime]}:
            return f"{self.pin.runtime} runs {_SUFFIX[self.pin.runtime]} files only"
        return missing(self.pin)

    def environment(self) -> Environment:
        """Describe this machine, with the other version."""
        here = environment()
        return replace(here, versions={**here.versions, self.pin.runtime: self.pin.version})

    def open(self, artifact: Path) -> TimedSession:
        """Open the file where it is, in the other version's process."""
        sidecar = read_sidecar(artifact)
        foreign = sidecar.recipe.get("foreign")
        names = foreign_names(foreign) if foreign else sidecar.contract
        session = VersionSession(self, artifact, names)
        if foreign:
            return AdapterSession(artifact, sidecar.contract, foreign, session)
        return session

    def alone(self, artifact: Path, inputs: Arrays) -> Latency:
        """Time the file in a process that has opened nothing else."""
        demand(self, Need.ALONE)
        sidecar = read_sidecar(artifact)
        feeds = self._foreign_feeds(artifact, inputs) if "foreign" in sidecar.recipe else inputs
        server = Server(self)
        try:
            found = server.ask("alone", str(artifact), _raw(feeds), OPENINGS, RUNS)
        finally:
            server.close()
        return Latency(tuple(found[0]), tuple(found[1]), tuple(found[2]), found[3])

    def _foreign_feeds(self, artifact: Path, inputs: Arrays) -> Arrays:
        session = self.open(artifact)
        return session.feeds(inputs) if isinstance(session, AdapterSession) else inputs


class VersionSession:
    """See ``exportgate.runtime.session.TimedSession``."""

    def __init__(self, device: OtherVersion, artifact: Path, names: IoContract) -> None:
        """Open the file.

        Args:
            device: The version.
            artifact: The file.
            names: The tensors' names, for a .pte, which names none.

        Raises:
            OpenError: The version does not load it.
        """
        self._server = Server(device)
        try:
            inputs, outputs = self._server.ask("open", str(artifact))
        except RunError as error:
            self._server.close()
            msg = f"{artifact}: {device.name} does not load it ({error})"
            raise OpenError(msg) from error
        make = pte_contract if artifact.suffix == ".pte" else onnx_contract
        self.contract = make(inputs, outputs, names)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        check_inputs(self.contract, inputs)
        found = self._server.ask("run", self._feeds(inputs))
        specs = self.contract.outputs
        if len(found) != len(specs):
            msg = f"{len(found)} outputs, but should be {len(specs)}"
            raise RunError(msg)
        return {
            spec.name: np.frombuffer(data, np.dtype(dtype)).reshape(shape).copy()
            for spec, (dtype, shape, data) in zip(specs, found, strict=True)
        }

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``: by the clocks of the process that runs the file."""
        return Elapsed(*self._server.ask("elapsed", [self._feeds(item) for item in inputs], runs))

    def _feeds(self, inputs: Arrays) -> dict[str, Any]:
        return _raw({spec.name: inputs[spec.name] for spec in self.contract.inputs})


class Server:
    """The process of another version: ``server.py`` in its environment."""

    def __init__(self, device: OtherVersion) -> None:
        """Start it; it ends when the pipe to it is closed, as it is when this process ends."""
        self._device = device
        self._connection, theirs = Pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        try:
            self._process = subprocess.Popen(
                # -I: neither PYTHONPATH nor the user's packages reach into the environment.
                [python_of(device.pin), "-I", SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                env=environ,
            )
        except OSError as error:
            self._said.close()
            raise DeviceDiedError(device.name, f"cannot be started: {error}") from error
        finally:
            theirs.close()

    def ask(self, verb: str, *args: object) -> Any:  # noqa: ANN401 - the verb says what comes
        """Return the answer to a request.

        Raises:
            RunError: The runtime raised.
            DeviceDiedError: The process died, or did not answer in time.
        """
        try:
            self._connection.send((verb, args))
            if not self._connection.poll(ANSWER_S):
                self.close()
                raise DeviceDiedError(self._device.name, f"no answer to {verb} in {ANSWER_S:g} s")
            status, found = self._connection.recv()
        except (EOFError, OSError) as error:
            raise DeviceDiedError(self._device.name, self._obituary()) from error
        if status == "raised":
            raise RunError(first_line(RuntimeError(found)))
        return found

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._said.close()

    def __del__(self) -> None:
        """End with the session that it was started for."""
        if not self._said.closed:
            self.close()

    def _obituary(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.poll()
        cause = "its pipe broke"
        if code is not None:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._said.seek(0)
        said = " ".join(self._said.read().decode(errors="replace").split())[-_STDERR_TAIL:]
        return f"{cause}; it had printed: {said}" if said else cause


def _raw(inputs: Arrays) -> dict[str, Any]:
    return {
        name: (array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())
        for name, array in inputs.items()
    }


def onnxruntime(argument: str) -> OtherVersion:
    """Return a pinned version of ONNX Runtime."""
    return OtherVersion(pin("onnxruntime", argument))


def executorch(argument: str) -> OtherVersion:
    """Return a pinned version of ExecuTorch."""
    return OtherVersion(pin("executorch", argument))
