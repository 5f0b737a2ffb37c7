"""A running page, or Node: it is asked one thing at a time, and dies with the process that asks."""

from __future__ import annotations

import json
import queue
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from harness.devices.browser.server import PageServer
from harness.devices.device import DeviceDiedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays
    from harness.devices.browser.web_socket import WebSocket

START_S = 60.0
"""Longest time that a page may take to call back: a browser starts in one or two seconds."""
ANSWER_S = 120.0
"""Longest time that a request may take; less than a worker is given."""
_GUARD = Path(__file__).with_name("guard.py")


class PageError(Exception):
    """The runtime in the page refused or failed; the page lives."""


class Engine:
    """A page under guard.

    Attributes:
        name: The device's.
        about: What the page says of itself: versions, isolation, graphics processor.
    """

    def __init__(
        self, name: str, runtime: Path, command: Callable[[PageServer], list[str]]
    ) -> None:
        """Start it and wait for its call.

        Args:
            name: The device's, for messages.
            runtime: Folder of onnxruntime-web's files.
            command: What is run, given the server; ``{folder}`` in it is a folder of its own.

        Raises:
            DeviceDiedError: It did not start.
        """
        self.name = name
        self._numbers = 0
        self._server = PageServer(runtime)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the page
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), *command(self._server)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            # Not in the worker's group: it outlives the worker for as long as it takes to tidy up.
            start_new_session=True,
        )
        self._socket: WebSocket | None = None
        self._socket = self._called()
        self.about = self.ask({"ask": "about"})[0]

    @property
    def guard_pid(self) -> int:
        """The process above everything that was started."""
        return self._guard.pid

    def new_id(self) -> int:
        """Return a number that no session of this page has."""
        self._numbers += 1
        return self._numbers

    def serve(self, name: str, folder: Path) -> None:
        """Let the page fetch what is in a folder, under a name beside ``ort``."""
        self._server.folders[name] = folder

    def ask(self, header: dict[str, Any], body: bytes = b"") -> tuple[dict[str, Any], bytes]:
        """Send a request and return header and body of the answer.

        Raises:
            PageError: The runtime refused or failed.
            DeviceDiedError: The page is gone, or gave no answer in time; all of it was killed.
        """
        answer = self._answer(header["ask"], json.dumps(header).encode() + b"\n" + body)
        line, _, rest = answer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        if "error" not in found:
            return found, rest
        if found["dead"]:
            self._die(f"trap in WebAssembly: {found['error']}")
        raise PageError(found["error"])

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self._socket is not None and self._guard.poll() is None

    def close(self) -> None:
        """Kill all of it, and wait until its folder is gone."""
        if self._socket is not None:
            self._socket.over.set()
            self._socket = None
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        try:
            self._guard.wait(20)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()
        if self._guard.stdout is not None:
            self._guard.stdout.close()
        self._server.stop()
        self._said.close()

    def _answer(self, what: str, request: bytes) -> bytes:
        if self._socket is None:
            self._die(f"it was gone before {what}")
        try:
            self._socket.send(request)
            return self._socket.receive(ANSWER_S)
        except TimeoutError:
            self._die(f"no answer to {what} in {ANSWER_S:g} s, it was killed")
        except OSError as error:
            self._die(f"{error} in {what}")

    def _called(self) -> WebSocket:
        until = time.monotonic() + START_S
        while True:
            try:
                return self._server.sockets.get(timeout=0.1)
            except queue.Empty:
                if self._guard.poll() is not None:
                    self._die(f"it ended at once{self._last_words()}")
                if time.monotonic() > until:
                    self._die(f"it did not call back in {START_S:g} s{self._last_words()}")

    def _die(self, reason: str) -> NoReturn:
        """Kill what is left, and say how it ended.

        Raises:
            DeviceDiedError: Always.
        """
        stdout = self._guard.stdout
        # Its end and the broken socket come together: give the guard a moment to say how.
        if stdout and not stdout.closed and select.select([stdout], [], [], 1.0)[0]:
            how = stdout.readline().decode().strip()
            reason = f"{reason} ({how})" if how else reason
        self.close()
        raise DeviceDiedError(self.name, reason)

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f"; it had printed: {lines[-1][:200]}" if lines else ""


def packed(sets: Sequence[Arrays]) -> tuple[list[list[dict[str, Any]]], bytes]:
    """Return how inputs are described in a request, and their bytes."""
    described, parts = [], []
    for inputs in sets:
        rows = []
        for name, array in inputs.items():
            whole = np.ascontiguousarray(array)
            dims, size = list(whole.shape), whole.nbytes
            rows.append({"name": name, "type": str(whole.dtype), "dims": dims, "bytes": size})
            parts.append(whole.tobytes())
        described.append(rows)
    return described, b"".join(parts)


def unpacked(described: Sequence[dict[str, Any]], body: bytes) -> dict[str, NDArray[Any]]:
    """Return outputs by name."""
    found, offset = {}, 0
    for row in described:
        dtype = np.dtype(row["type"])
        count = row["bytes"] // dtype.itemsize
        array = np.frombuffer(body, dtype, count, offset).reshape(row["dims"])
        found[row["name"]] = array.copy()
        offset += row["bytes"]
    return found
