"""A client as a program that answers a line of JSON to each line: ``native/run_client.cpp``."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

from exportgate.runtime.session import Elapsed
from harness.end_to_end.unit import Memory, Times, UnitError, memory_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exportgate.data.manifest import Swipe

ANSWER_S = 300.0
"""Longest time that an answer may take: under emulation a swipe takes seconds."""


class ClientProcess:
    """See ``unit.Unit``."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        """Start it, and wait until it is ready.

        Args:
            command: The program, the bundle, encoder and step, all that goes before them.
            environment: What it sees; None for what this process sees.

        Raises:
            UnitError: It does not start, or refuses the files.
        """
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=None if environment is None else dict(environment),
            bufsize=0,
        )
        self._unread = b""
        try:
            self.start_ms = float(self._answer()["start_ms"])
        except UnitError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def add(self, swipes: Sequence[Swipe]) -> None:
        """See ``Unit.add``."""
        for swipe in swipes:
            self.ask(f"add {json.dumps(swipe.points.tolist())}")

    def words(self, swipe: int) -> tuple[str, ...]:
        """See ``Unit.words``."""
        return tuple(text for text, _ in self.ask(f"words {swipe}")["words"])

    def times(self, swipes: Sequence[int], runs: int = 1) -> Times:
        """See ``Unit.times``."""
        found = self.ask(f"time {runs} {' '.join(map(str, swipes))}")
        return Times(tuple(found["wall_ms"]), tuple(found["processor_ms"]))

    def elapsed(self, swipes: Sequence[int], runs: int = 1) -> Elapsed:
        """See ``Unit.elapsed``."""
        found = self.ask(f"leg {runs} {' '.join(map(str, swipes))}")
        return Elapsed(found["processor_s"], found["wall_s"])

    def memory(self) -> Memory:
        """See ``Unit.memory``."""
        return memory_of(self.pid)

    def ask(self, request: str) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            UnitError: The client failed, died, or did not answer in time.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(request.encode() + b"\n")
        except OSError as error:
            msg = f"the client is gone{self._last_words()}"
            raise UnitError(msg) from error
        return self._answer()

    def said(self) -> str:
        """End it, and return what it wrote to standard error."""
        assert self._process.stdin is not None  # noqa: S101 - as above
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ANSWER_S)
        self._said.seek(0)
        text = self._said.read().decode(errors="replace")
        self.close()
        return text

    def close(self) -> None:
        """See ``Unit.close``."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._said.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        until = time.monotonic() + ANSWER_S
        while b"\n" not in self._unread:
            left = max(0.0, until - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                msg = f"the client gave no answer in {ANSWER_S:g} s"
                raise UnitError(msg)
            part = self._process.stdout.read(1 << 20)
            if not part:
                msg = f"the client ended{self._last_words()}"
                raise UnitError(msg)
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].removeprefix('error: ')[:300]}" if lines else ""
