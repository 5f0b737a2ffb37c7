"""Ctrl-C, a full disk and a killed worker: no half-written file, and never a pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from exportgate.artifacts.sidecar import atomic_write, sidecar_path, write_text
from exportgate.runtime.isolate import Worker, WorkerCrashError
from harness.gate.report.outcome import Report
from harness.gate.report.writing import write_report
from harness.measure.environment import environment
from tests.faults.client_faults import kill_myself_while_writing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITE_FOREVER = """
import signal, sys, time
from pathlib import Path
from exportgate.artifacts.sidecar import atomic_write
# A shell has its background jobs ignore Ctrl-C, and this process inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)
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
from exportgate.artifacts.sidecar import atomic_write
with atomic_write(Path(sys.argv[1])) as draft:
    draft.write_bytes(b"x" * 100_000)
"""
FULL_CACHE = """
import resource, signal, sys
from pathlib import Path
from exportgate.artifacts.cache import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
source = Path(sys.argv[1])
store(source.parent / "cache", "key", source)
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
    request |= dict.fromkeys(("checkpoint_sha256", "manifest_sha256", "calibration_sha256"), "x")
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


EXPORT = (
    "-m", "exporters.release", "--checkpoint", "golden/golden.nemo",
    "--val_manifest", "golden/calib.jsonl", "--variant", "step_fp32.onnx",
)  # fmt: skip


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Programs begun in a shell's background, and what they begin, would ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("more", [(), ("--variant", "step_fp32.pte", "--jobs", "2")])
def test_ctrl_c_during_an_export_leaves_whole_files_only(
    tmp_path: Path, golden: Path, more: tuple[str, ...]
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    command = [sys.executable, *EXPORT, *more, "--out", str(out), "--cache", str(cache)]
    with subprocess.Popen(
        command, cwd=golden.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        while "  export " not in said:
            said += process.stderr.read(1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_full_disk_loses_no_entry_of_the_cache(tmp_path: Path) -> None:
    entry = tmp_path / "cache" / "key" / "artifact.onnx"
    source = tmp_path / "encoder_int8.onnx"
    for path in (entry, source):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100_000)
        sidecar_path(path).write_text("{}", encoding="utf-8")
    before = {path: path.read_bytes() for path in entry.parent.iterdir()}
    source.write_bytes(b"y" * 100_000)
    process = run(FULL_CACHE, source)
    _, said = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "File too large" in said
    assert {path: path.read_bytes() for path in entry.parent.iterdir()} == before


def test_a_killed_worker_leaves_no_target(target: Path) -> None:
    """SIGKILL leaves the draft behind, hidden, until the next write."""
    with Worker("doomed") as worker, pytest.raises(WorkerCrashError, match="SIGKILL"):
        worker.call(kill_myself_while_writing, target)
    assert target.read_bytes() == b"the one before"
    (draft,) = [path for path in target.parent.iterdir() if path != target]
    assert draft.name.startswith(".")
    write_text(target, "young drafts are left alone")
    assert draft.exists()
    os.utime(draft, (0, 0))
    write_text(target, "the next one")
    assert [*target.parent.iterdir()] == [target]


def test_the_draft_of_a_living_writer_is_left_alone(target: Path) -> None:
    with atomic_write(target) as draft:
        draft.write_bytes(b"half")
        os.utime(draft, (0, 0))
        write_text(target, "another writer")
        assert draft.exists()
    assert target.read_bytes() == b"half"
