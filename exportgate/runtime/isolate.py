"""Run native code in a process of its own: a crash there is one failed check, not a dead gate.

A damaged .pte can end its process with SIGSEGV or SIGABRT. The parent notices the closed pipe,
names the signal and goes on. Functions travel by name, so they must stand at the top of a module;
objects that cannot travel (sessions) stay in the worker, and the parent holds a ``Handle``.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import TYPE_CHECKING, Any, Self, TypeVar

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

T = TypeVar("T")

DEFAULT_TIMEOUT_S = 300.0
_STDERR_TAIL = 400


class WorkerError(ExportGateError, RuntimeError):
    """A function raised in a worker; the message is its own."""

    def __init__(self, kind: str, message: str, trace: str) -> None:
        """Keep the exception's class name and the worker's traceback."""
        super().__init__(message or kind)
        self.kind = kind
        self.trace = trace


class WorkerCrashError(ExportGateError, RuntimeError):
    """A worker died."""


class WorkerTimeoutError(ExportGateError, TimeoutError):
    """A worker did not answer in time; it was killed."""


@dataclass(frozen=True, slots=True)
class Handle:
    """Stands for an object that lives in a worker."""

    key: int


class Worker:
    """A process that runs functions and keeps objects between calls."""

    def __init__(
        self, name: str, *, timeout_s: float = DEFAULT_TIMEOUT_S, launcher: Sequence[str] = ()
    ) -> None:
        """Start the process.

        Args:
            name: What runs in it, for messages.
            timeout_s: Longest time in seconds that a call may take.
            launcher: What runs the process's Python: an emulator and its options. The process then
                stays in the group of this one, and ends with it.
        """
        self.name = name
        self.timeout_s = timeout_s
        self._leads = not launcher
        self._connection, theirs = Pipe()
        # A file, not a pipe: nobody has to drain it while the worker runs.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        # One thread, so that results and timings do not depend on the machine's cores.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        # It finds the modules that this process finds, and no others.
        environment["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, sys.path))
        self._process = subprocess.Popen(
            # -P: a folder of the user's that is named like one of our packages is not imported.
            [
                *launcher,
                sys.executable,
                "-P",
                "-m",
                "exportgate.runtime.worker",
                str(theirs.fileno()),
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=self._stderr,
            stderr=self._stderr,
            env=environment,
            # A group of its own: what a device has started in it (a browser, an emulator) ends too.
            start_new_session=self._leads,
        )
        theirs.close()

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def call(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - transparent
        """Run a function in the worker and return its picklable result.

        Raises:
            WorkerError: The function raised.
            WorkerCrashError: The process died.
            WorkerTimeoutError: No answer within ``timeout_s``; the process was killed.
        """
        result: T = self._request("call", function, args)
        return result

    def make(self, function: Callable[..., Any], *args: Any) -> Handle:  # noqa: ANN401 - transparent
        """Run a function in the worker, keep its result there and return a handle to it."""
        handle = self._request("make", function, args)
        if not isinstance(handle, Handle):
            msg = f"worker {self.name} returned {handle!r}, but should return a handle"
            raise TypeError(msg)
        return handle

    def close(self) -> None:
        """End the process, and whatever it has started."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._kill()
        self._stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _request(self, verb: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:  # noqa: ANN401
        what = f"{function.__module__}.{function.__qualname__}"
        try:
            self._connection.send((verb, function.__module__, function.__qualname__, args))
            if not self._connection.poll(self.timeout_s):
                self._kill()
                msg = f"{self.name}: {what} took longer than {self.timeout_s:g} s; it was killed"
                raise WorkerTimeoutError(msg)
            status, answer = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError, OSError) as error:
            if isinstance(error, WorkerTimeoutError):
                raise
            raise WorkerCrashError(self._obituary(what)) from error
        if status == "raised":
            raise WorkerError(*answer)
        return pickle.loads(answer)  # noqa: S301 - from our own child over a private pipe

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._leads:
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _obituary(self, what: str) -> str:
        code = self._process.wait()
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._stderr.seek(0)
        tail = self._stderr.read().decode(errors="replace").strip()[-_STDERR_TAIL:]
        said = f"; it had printed: {tail}" if tail else ""
        return f"{self.name}: the process died with {cause} in {what}{said}"
