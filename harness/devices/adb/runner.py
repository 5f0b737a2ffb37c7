"""The runner on a phone, at the other end of ``adb shell``: tensors and answers as bytes.

The protocol stands in the runners' ``frames.h``. ``adb shell -T`` carries bytes as they are.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
import weakref
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np

from exportgate.runtime.session import RunError
from harness.devices.device import DeviceDiedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

ANSWER_S = 120.0
"""Longest wait for an answer; less than a worker waits, so that the phone is named."""
_SCALAR_TYPES = {"int32": 3, "int64": 4, "float16": 5, "float32": 6}
_TAIL = 300


class PhoneRunner:
    """A process here that stands for the one there."""

    def __init__(self, device: str, command: Sequence[str]) -> None:
        """Start it; it ends when its pipe is closed, there too.

        Raises:
            DeviceDiedError: adb cannot be started.
        """
        self._device, self._unread = device, b""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            self._process = subprocess.Popen(
                list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said,
                bufsize=0,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise DeviceDiedError(device, f"adb cannot be started: {error}") from error
        self.close = weakref.finalize(self, _end, self._process, self._said)

    def declared(self) -> tuple[list[tuple[str, int, tuple[int, ...]]], ...]:
        """Return name, ``c10::ScalarType`` and sizes of inputs and of outputs, after the start.

        Raises:
            RunError: ExecuTorch does not load the file.
            DeviceDiedError: The phone is gone, or does not answer.
        """
        deadline = time.monotonic() + ANSWER_S
        rows = []
        for word in ("inputs", "outputs"):
            count = self._count(word, deadline)
            rows.append([_declared(self._line(deadline)) for _ in range(count)])
        return tuple(rows)

    def ask(self, word: str, inputs: Mapping[str, NDArray[Any]], *more: int) -> list[NDArray[Any]]:
        """Return the tensors of an answer.

        Raises:
            RunError: ExecuTorch failed.
            DeviceDiedError: The phone is gone, or does not answer.
        """
        deadline = time.monotonic() + ANSWER_S
        request = [" ".join(map(str, [word, len(inputs), *more])).encode() + b"\n"]
        for name, value in inputs.items():
            axes = ",".join(map(str, value.shape))
            request += [f"{name} {value.dtype} {axes}\n".encode(), value.tobytes()]
        self._send(b"".join(request))
        return [self._tensor(deadline) for _ in range(self._count("outputs", deadline))]

    def _count(self, word: str, deadline: float) -> int:
        line = self._line(deadline)
        found, _, rest = line.partition(" ")
        if found == "failed":
            raise RunError(rest)
        if found != word or not rest.isdigit():
            self._die(f"it answered {line[:80]!r}, but should answer {word!r}")
        return int(rest)

    def _tensor(self, deadline: float) -> NDArray[Any]:
        line = self._line(deadline)
        _, code, sizes = _declared(line)
        dtype = np.dtype(next(name for name, known in _SCALAR_TYPES.items() if known == code))
        count = int(np.prod(sizes, dtype=np.int64)) * dtype.itemsize
        while len(self._unread) < count:
            self._receive(deadline)
        data, self._unread = self._unread[:count], self._unread[count:]
        return np.frombuffer(data, dtype).reshape(sizes)

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._unread:
            self._receive(deadline)
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def _send(self, request: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        left = memoryview(request)
        try:
            while left:
                left = left[self._process.stdin.write(left) or 0 :]
        except OSError:
            self._die(self._cause())

    def _receive(self, deadline: float) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        pipe = self._process.stdout.fileno()
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            self._die(f"no answer in {ANSWER_S:g} s")
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            self._die(self._cause())
        self._unread += chunk

    def _cause(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipes"
        return f"the connection ended with status {code}"

    def _die(self, reason: str) -> NoReturn:
        _stop(self._process)
        self._said.seek(0)
        said = " ".join(self._said.read().decode(errors="replace").split())[-_TAIL:]
        self.close()
        raise DeviceDiedError(self._device, f"{reason}; it had printed: {said}" if said else reason)


def _declared(line: str) -> tuple[str, int, tuple[int, ...]]:
    name, dtype, *axes = line.split(" ")
    sizes = tuple(int(axis) for axis in (axes[0].split(",") if axes and axes[0] else ()))
    return name, _SCALAR_TYPES.get(dtype, -1), sizes


def _end(process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    _stop(process)
    said.close()


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, which ends the runner, and do not wait for a phone that is gone."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
