"""A runner under emulation: a process that keeps one file open and answers through its pipes.

What the two say to each other stands in ``native/frames.h``. A runner ends when its pipe is closed,
so none outlives the worker that started it; it shares the worker's process group, so that one that
hangs ends with it too.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
import weakref
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from exportgate.contract import TensorSpec
from exportgate.runtime.session import RunError
from harness.devices.device import DeviceDiedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays

LOAD_LIMIT_S = 120.0
RUN_LIMIT_S = 60.0
"""Longest time that one inference may take: a hundred times what one of the largest takes."""
_CHUNK_BYTES = 1 << 16
_TAIL_BYTES = 4096


class Runner:
    """The process, from the gate's side."""

    def __init__(self, device: str, command: Sequence[str], environment: dict[str, str]) -> None:
        """Start it; ask ``declared`` what it opened.

        Args:
            device: For messages.
            command: The emulator, the runner and the file.
            environment: What the emulated program sees, and nothing else.
        """
        self._device = device
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            bufsize=0,
            env=environment,
        )
        self._unread = b""
        self.close = weakref.finalize(self, _end, self._process, self._stderr)

    @property
    def pid(self) -> int:
        """The emulator's process."""
        return self._process.pid

    def declared(self) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """Return inputs and outputs as the file declares them, once, after the start.

        Raises:
            RunError: The runtime does not load the file.
            DeviceDiedError: The process died, or took too long.
        """
        deadline = time.monotonic() + LOAD_LIMIT_S
        rows = []
        for word in ("inputs", "outputs"):
            count = self._answer(word, deadline)
            rows.append(tuple(self._spec(deadline) for _ in range(count)))
        return rows[0], rows[1]

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; see ``Session.run``.

        Raises:
            RunError: The runtime failed.
            DeviceDiedError: The process died, or took too long.
        """
        deadline = time.monotonic() + RUN_LIMIT_S
        request = [f"run {len(inputs)}\n".encode()]
        for name, value in inputs.items():
            axes = ",".join(map(str, value.shape))
            request += [f"{name} {value.dtype} {axes}\n".encode(), value.tobytes()]
        self._send(b"".join(request))
        count = self._answer("outputs", deadline)
        return dict(self._tensor(deadline) for _ in range(count))

    def said(self) -> str:
        """End the process and return all that it wrote to standard error."""
        _stop(self._process, patience_s=LOAD_LIMIT_S)
        self._stderr.seek(0)
        text = self._stderr.read().decode(errors="replace")
        self.close()
        return text

    def _answer(self, word: str, deadline: float) -> int:
        line = self._line(deadline)
        found, _, rest = line.partition(" ")
        if found == "failed":
            raise RunError(rest)
        if found != word or not rest.isdigit():
            self._die(f"it answered {line[:80]!r}, but should answer {word!r}")
        return int(rest)

    def _spec(self, deadline: float) -> TensorSpec:
        name, dtype, axes = self._line(deadline).split(" ")
        found: Any = dtype
        shape = (int(axis) if axis.lstrip("-").isdigit() else axis for axis in _split(axes))
        return TensorSpec(name, found, tuple(shape))

    def _tensor(self, deadline: float) -> tuple[str, NDArray[Any]]:
        name, dtype, axes = self._line(deadline).split(" ")
        shape = tuple(map(int, _split(axes)))
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return name, np.frombuffer(self._bytes(count, deadline), kind).reshape(shape)

    def _send(self, request: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - opened as a pipe
        try:
            left = memoryview(request)
            while left:
                left = left[self._process.stdin.write(left) or 0 :]
        except OSError:
            self._die(self._cause())

    def _line(self, deadline: float) -> str:
        while b"\n" not in self._unread:
            self._receive(deadline)
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode(errors="replace")

    def _bytes(self, count: int, deadline: float) -> bytes:
        while len(self._unread) < count:
            self._receive(deadline)
        found, self._unread = self._unread[:count], self._unread[count:]
        return found

    def _receive(self, deadline: float) -> None:
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        pipe = self._process.stdout.fileno()
        left = max(deadline - time.monotonic(), 0)
        if not select.select([pipe], [], [], left)[0]:
            self._die("it did not answer in time and was killed")
        chunk = os.read(pipe, _CHUNK_BYTES)
        if not chunk:
            self._die(self._cause())
        self._unread += chunk

    def _cause(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipes"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def _die(self, reason: str) -> None:
        _stop(self._process)
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(self._stderr.tell() - _TAIL_BYTES, 0))
        text = self._stderr.read().decode(errors="replace")
        # The emulator's own line tells the signal, which is told already.
        lines = [line for line in text.splitlines() if line.strip() and line[:5] != "qemu:"]
        self.close()
        said = f"; it had printed: {lines[-1][:200]}" if lines else ""
        raise DeviceDiedError(self._device, reason + said)


def _split(axes: str) -> list[str]:
    return axes.split(",") if axes else []


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """Leave nothing of a process."""
    _stop(process)
    stderr.close()


def _stop(process: subprocess.Popen[bytes], patience_s: float = 0.0) -> None:
    """Close the pipe, wait a little, and kill what is left."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(timeout=patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
