"""A worker answers, reports errors, and its death is one clear error."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exportgate.runtime.isolate import Worker, WorkerCrashError, WorkerError, WorkerTimeoutError


def test_call_returns_the_result() -> None:
    with Worker("test") as worker:
        assert worker.call(math.hypot, 3.0, 4.0) == 5.0


def test_objects_stay_in_the_worker() -> None:
    with Worker("test") as worker:
        handle = worker.make(os.getpid)
        assert worker.call(str, handle) == str(worker.call(os.getpid))
        assert worker.call(os.getpid) != os.getpid()


def test_an_exception_travels_with_its_message() -> None:
    with Worker("test") as worker:
        with pytest.raises(WorkerError, match=r"math domain|nonnegative") as caught:
            worker.call(math.sqrt, -1.0)
        assert caught.value.kind == "ValueError"
        assert worker.call(math.sqrt, 4.0) == 2.0


@pytest.mark.parametrize(("number", "name"), [(11, "SIGSEGV"), (6, "SIGABRT")])
def test_a_crash_names_the_signal_and_the_call(number: int, name: str) -> None:
    with Worker("ExecuTorch") as worker:
        pid = worker.call(os.getpid)
        with pytest.raises(WorkerCrashError, match=rf"ExecuTorch: .* {name} in posix\.kill"):
            worker.call(os.kill, pid, number)
        assert not worker.alive
        with pytest.raises(WorkerCrashError):
            worker.call(os.getpid)


def test_a_call_that_takes_too_long_is_killed() -> None:
    with Worker("test", timeout_s=0.5) as worker:
        with pytest.raises(WorkerTimeoutError, match=r"time\.sleep took longer than 0\.5 s"):
            worker.call(time.sleep, 30)
        assert not worker.alive


def start_a_child() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid


def ends(pid: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split(") ")[1].startswith("Z"):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("ending", ["closed", "timed out", "crashed"])
def test_what_a_worker_has_started_ends_with_it(ending: str) -> None:
    with Worker("device", timeout_s=2.0) as worker:
        pid = worker.call(start_a_child)
        assert not ends(pid, within_s=0.1)
        if ending == "timed out":
            with pytest.raises(WorkerTimeoutError):
                worker.call(time.sleep, 30)
        elif ending == "crashed":
            with pytest.raises(WorkerCrashError):
                worker.call(os.abort)
    assert ends(pid)
