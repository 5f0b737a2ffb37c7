"""Ctrl-C, a full disk and a killed worker: no half-written file, and never a pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from harness.isolate import Worker, WorkerCrashError
from harness.measure import environment
from harness.report import Report, write_report
from tests.faults.consumers import kill_myself_while_writing

if TYPE_CHECKING:
    from pathlib import Path

WRITE_FOREVER = """
import sys, time
from pathlib import Path
from exporters.artifact import atomic_write
with atomic_write(Path(sys.argv[1])) as draft:
    draft.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""
FULL_DISK = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from exporters.artifact import atomic_write
with atomic_write(Path(sys.argv[1])) as draft:
    draft.write_bytes(b"x" * 100_000)
"""


def run(code: str, target: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "encoder_int8.onnx"
    path.write_bytes(b"the one before")
    return path


def left_alone(target: Path) -> bool:
    """Whether the old file stands there, and nothing else."""
    return target.read_bytes() == b"the one before" and [*target.parent.iterdir()] == [target]


def test_ctrl_c_leaves_the_old_file(target: Path) -> None:
    process = run(WRITE_FOREVER, target)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode != 0
    assert left_alone(target)


def test_a_full_disk_leaves_the_old_file(target: Path) -> None:
    process = run(FULL_DISK, target)
    _, said = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "File too large" in said
    assert left_alone(target)


def test_a_report_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = dict.fromkeys(("target", "device", "checkpoint", "manifest", "calibration"), "x")
    request |= {"artifacts": None, "variants": [], "max_trace_len": 200, "notes": []}
    report = Report(request, environment().to_json(), verdicts=(), measured=())
    before = write_report(report, tmp_path).read_text(encoding="utf-8")
    files = {path.name for path in tmp_path.iterdir()}

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_report(report, tmp_path)
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == before
    assert {path.name for path in tmp_path.iterdir()} == files


def test_a_killed_worker_leaves_no_target(target: Path) -> None:
    """SIGKILL leaves the draft behind, hidden, under a name that nobody reads."""
    with Worker("doomed") as worker, pytest.raises(WorkerCrashError, match="SIGKILL"):
        worker.call(kill_myself_while_writing, target)
    assert target.read_bytes() == b"the one before"
    drafts = [path for path in target.parent.iterdir() if path != target]
    assert all(path.name.startswith(".") and path.suffix == ".part" for path in drafts)
