"""Several files of one checkpoint: one that fails is one failed file, the others are written."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from exporters import release
from exporters.pipeline import checked
from exporters.pipeline.events import FileDone, FileFailed, read_events
from exporters.pipeline.exporting import _tasks
from exporters.pipeline.parallel import Task
from exporters.variants import VARIANTS, Variant
from exportgate.artifacts.sidecar import read_sidecar

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("step_fp32.onnx", "step_int8.onnx", "step_fp32.pte", "encoder_fp32.onnx")


def test_what_takes_longest_is_begun_first_and_what_is_shared_once() -> None:
    tasks = _tasks(VARIANTS)
    weights, graph = "integer weights for XNNPACK", "INT8 graph for ONNX Runtime"
    assert tasks[:2] == [Task(weights), Task("encoder_int8.pte", weights)]
    assert [task.name for task in tasks].count(weights) == 1
    assert {task.name for task in tasks if task.needs == graph} == {
        "encoder_int8.onnx",
        "encoder_int8_web.onnx",
    }
    assert tasks[-1] == Task("step_fp32.onnx")
    assert len(tasks) == len(VARIANTS) + 2


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_one_file_that_fails_is_one_failed_file(
    jobs: int,
    golden: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make = checked.make

    def sometimes(row: Variant, *args: Any) -> Any:
        if row.name == "step_int8.onnx":
            _ = {}["blocks.0.ff1_out.bias"]
        if row.name == "step_fp32.pte":
            os.kill(os.getpid(), signal.SIGSEGV)
        return make(row, *args)

    monkeypatch.setattr(checked, "make", sometimes)
    reading, writing = os.pipe()
    args = ["--checkpoint", str(golden / "golden.nemo"), "--out", str(tmp_path / "out")]
    args += ["--package_dir", str(tmp_path / "bundle"), "--cache", str(tmp_path / "cache")]
    args += ["--progress_fd", str(writing), "--jobs", str(jobs)]
    args += [part for name in FILES for part in ("--variant", name)]
    assert release.main(args) == 2
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as lines:
        events = list(read_events(lines))
    written = {event.name for event in events if isinstance(event, FileDone)}
    failed = {event.name: event for event in events if isinstance(event, FileFailed)}
    assert written == {"step_fp32.onnx", "encoder_fp32.onnx"}
    assert failed.keys() == {"step_int8.onnx", "step_fp32.pte"}
    assert "KeyError: 'blocks.0.ff1_out.bias'" in failed["step_int8.onnx"].reason
    assert "SIGSEGV" in failed["step_fp32.pte"].reason
    for name in written:
        assert read_sidecar(tmp_path / "out" / name).variant == name
    assert {path.name.removesuffix(".json") for path in (tmp_path / "out").iterdir()} == written
    assert not (tmp_path / "bundle").exists()
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert [line.split(": ")[1] for line in errors] == ["step_int8.onnx", "step_fp32.pte"]
    assert "calibrate with 256 synthetic swipes (no --calibration was given)" in said.err
    assert "encoder_fp32.onnx" in said.out
