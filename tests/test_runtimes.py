"""Other versions of the runtimes: names, pins, the process that they live in, and its death."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from exportgate import resources
from exportgate.artifacts.sidecar import read_sidecar, sha256_of, sidecar_path
from exportgate.runtime.adapter import OURS, Mapping, Tensor
from exportgate.runtime.isolate import Worker
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import InputError, OpenError, RunError
from harness.crossdevice import runtimes
from harness.crossdevice.agreement import Agreement, Status
from harness.devices.device import DeviceDiedError, Need, open_on
from harness.devices.registry import device, parts_of
from harness.devices.runtimes import device as device_module
from harness.devices.runtimes import environments
from harness.devices.runtimes.pins import PinError, add_pin, pin, pins, whole_version
from harness.gate.gates import Gate
from tests.test_devices import FILE, judged, project, registered, verdicts, write_encoder

if TYPE_CHECKING:
    from exportgate.runtime.session import Arrays
    from harness.devices.runtimes.device import OtherVersion

__all__ = ["project", "registered"]  # fixtures
VERSION = "onnxruntime==1.22.0"
OTHER_NAMES = {"features_bft": "audio_signal", "encoded_bdt": "outputs"}
INPUTS: Arrays = {
    "features_bft": np.ones((1, 37, 9), np.float32),
    "lengths": np.array([9], np.int64),
}


@pytest.mark.parametrize("name", ["onnxruntime==1.22.0", "onnxruntime==1.22", "onnxruntime:1.22"])
def test_a_version_is_named_as_pip_names_it(name: str) -> None:
    assert device(name).name == VERSION


def test_names_have_two_parts() -> None:
    assert parts_of("host") == ("host", "")
    assert parts_of("qemu-arm64:cortex-a76") == ("qemu-arm64", "cortex-a76")
    assert parts_of("far:a==b") == ("far", "a==b")
    assert parts_of("onnxruntime==1.22:x") == ("onnxruntime", "1.22:x")
    assert whole_version("1.22") == "1.22.0"
    assert whole_version("1.22.1") == "1.22.1"
    assert whole_version("newest") == "newest"


def test_a_gate_may_be_of_a_runtime_whatever_its_version() -> None:
    gate = Gate("checkpoint", "swipes", "min", 1.0, devices=("onnxruntime",))
    assert gate.judged_on("onnxruntime==1.22.0")
    assert not gate.judged_on("executorch==1.5.1")


@pytest.mark.parametrize("asked", ["", "1.2.3", "1.22.0.post1", "newest", "==1.22"])
def test_a_version_that_is_not_pinned_is_refused_with_the_known_ones(asked: str) -> None:
    with pytest.raises(PinError, match=r"no such version is pinned; there are 1\.22\.0, "):
        pin("onnxruntime", asked)


def test_the_last_five_minor_versions_are_pinned_by_hash() -> None:
    ours = version("onnxruntime")
    minor = int(ours.split(".")[1])
    versions = [each.version for each in pins() if each.runtime == "onnxruntime"]
    assert ours in versions, "the control: the version that the gate itself uses"
    assert {int(each.split(".")[1]) for each in versions} >= set(range(minor - 5, minor + 1))
    assert max(int(each.split(".")[1]) for each in versions) > minor, "and a newer one"
    assert version("executorch") in [e.version for e in pins() if e.runtime == "executorch"]
    line = re.compile(r"[a-z]+==[\d.]+ --hash=sha256:[0-9a-f]{64}")
    for each in pins():
        assert set(each.requirements) == {"x86_64", "aarch64"}
        for lines in each.requirements.values():
            assert len(lines) == 2
            assert all(line.fullmatch(text) for text in lines)
            assert lines[0].startswith(f"{each.name} ")


@pytest.mark.parametrize("name", ["onnxruntime", "torch==2.0", "==1.2", "onnxruntime=="])
def test_what_is_no_version_is_not_pinned(name: str, tmp_path: Path) -> None:
    with pytest.raises(PinError, match="expected onnxruntime or executorch==VERSION"):
        add_pin(name, tmp_path / "pins.toml")


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let no environment be installed."""
    monkeypatch.setattr(environments, "folder_of", lambda each: tmp_path / each.version)
    return tmp_path


@pytest.mark.usefixtures("nowhere")
def test_without_its_environment_a_version_lacks_everything() -> None:
    other = device(VERSION)
    for need in (Need.ONNX, Need.ALONE, Need.PAIRED_TIME):
        assert other.lacks(need).endswith("install it with: make setup-runtimes")
    assert other.lacks(Need.PTE) == "onnxruntime runs .onnx files only"
    assert device("executorch==1.5.1").lacks(Need.ONNX) == "executorch runs .pte files only"
    assert other.environment().versions["onnxruntime"] == "1.22.0"


@pytest.mark.usefixtures("nowhere")
def test_without_its_environment_the_gate_measures_nothing(project: pytest.Pytester) -> None:
    result, report = judged(project, VERSION)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert report["request"]["device"] == VERSION
    status, detail = verdicts(report)["nonfinite"]
    assert status == "NOT_MEASURED"
    assert "not installed" in detail


def test_an_environment_that_was_cut_short_is_none(nowhere: Path) -> None:
    other = pin("onnxruntime", "1.22.0")
    (nowhere / "1.22.0" / "bin").mkdir(parents=True)
    assert "not installed" in environments.missing(other)
    (nowhere / "1.22.0" / "ready").write_text("of other pins", encoding="utf-8")
    assert "by other pins" in environments.missing(other)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OtherVersion:
    """Return a version whose environment is this Python's: its process is real, and cheap."""
    home = tmp_path / "environment"
    (home / "bin").mkdir(parents=True)
    python = home / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    other = pin("onnxruntime", version("onnxruntime"))
    monkeypatch.setattr(environments, "folder_of", lambda _: home)
    (home / "ready").write_text(environments._state(other), encoding="utf-8")
    found = device(other.name)
    assert isinstance(found, device_module.OtherVersion)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_encoder(tmp_path / FILE, padding=0)
    return tmp_path / FILE


def test_it_gives_what_the_runtime_gives_here(beside: OtherVersion, file: Path) -> None:
    there, here = beside.open(file), open_artifact(file)
    assert there.contract == here.contract
    ours, theirs = here.run(INPUTS), there.run(INPUTS)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert np.array_equal(ours[name], theirs[name])
    took = there.elapsed([INPUTS], runs=200)
    assert 0 < took.processor_s < 10
    with pytest.raises(InputError, match="inputs are lengths, but should be"):
        there.run({"lengths": INPUTS["lengths"]})


def test_somebody_elses_file_runs_behind_its_adapter(beside: OtherVersion, file: Path) -> None:
    model = onnx.load(file)
    for node in model.graph.node:
        node.input[:] = [OTHER_NAMES.get(name, name) for name in node.input]
        node.output[:] = [OTHER_NAMES.get(name, name) for name in node.output]
    for tensor in [*model.graph.input, *model.graph.output]:
        tensor.name = OTHER_NAMES.get(tensor.name, tensor.name)
    onnx.save(model, file)
    names = [(OTHER_NAMES.get(name, name), name) for name in ("features_bft", "lengths")]
    outputs = [(OTHER_NAMES["encoded_bdt"], "encoded_bdt"), ("encoded_lengths",) * 2]
    mapping = Mapping(
        tuple(Tensor(theirs, ours, OURS[ours]) for theirs, ours in names),
        tuple(Tensor(theirs, ours, OURS[ours]) for theirs, ours in outputs),
    )
    foreign = {"mapping": mapping.to_json(), "max_trace_len": 200, "subsampling_factor": 4}
    amend(file, {"recipe": {"foreign": foreign}})
    there, here = beside.open(file), open_artifact(file)
    assert np.array_equal(there.run(INPUTS)["encoded_bdt"], here.run(INPUTS)["encoded_bdt"])
    assert len(beside.alone(file, INPUTS).run_ms) == 200


def amend(file: Path, changes: dict[str, Any]) -> None:
    """Let a sidecar state what has become of its file."""
    data = json.loads(sidecar_path(file).read_text(encoding="utf-8"))
    data |= {"sha256": sha256_of(file), "size_bytes": file.stat().st_size, **changes}
    sidecar_path(file).write_text(json.dumps(data), encoding="utf-8")


def test_it_is_measured_alone(beside: OtherVersion, file: Path) -> None:
    found = beside.alone(file, INPUTS)
    assert len(found.load_ms) == len(found.first_run_ms) == 5
    assert len(found.run_ms) == 200
    assert found.peak_memory_bytes > 0


def test_a_file_that_it_does_not_load_is_named_with_the_version(
    beside: OtherVersion, file: Path
) -> None:
    file.write_bytes(b"not a model")
    amend(file, {})
    assert read_sidecar(file).sha256 == sha256_of(file)
    with pytest.raises(OpenError, match=rf"{FILE}: {beside.name} does not load it \(Invalid"):
        beside.open(file)


def test_what_the_runtime_refuses_is_no_death(beside: OtherVersion, file: Path) -> None:
    session = beside.open(file)
    with pytest.raises(RunError, match="unknown request 'sing'"):
        server_of(session).ask("sing")
    assert session.run(INPUTS)


def test_its_death_is_told_with_its_cause(beside: OtherVersion, file: Path) -> None:
    session = beside.open(file)
    process = server_of(session)._process
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with pytest.raises(DeviceDiedError, match=rf"device {beside.name} died: signal SIGKILL"):
        session.run(INPUTS)


def test_a_hanging_one_is_ended(
    beside: OtherVersion, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = beside.open(file)
    process = server_of(session)._process
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr(device_module, "ANSWER_S", 0.3)
    with pytest.raises(DeviceDiedError, match=r"no answer to run in 0\.3 s"):
        session.run(INPUTS)
    assert process.poll() is not None


def test_it_ends_with_its_session(beside: OtherVersion, file: Path) -> None:
    session = beside.open(file)
    process = server_of(session)._process
    del session
    assert process.wait(timeout=5) is not None


def test_an_environment_without_python_is_a_death_not_a_crash(
    beside: OtherVersion, file: Path
) -> None:
    environments.python_of(beside.pin).unlink()
    with pytest.raises(DeviceDiedError, match="cannot be started"):
        beside.open(file)


def server_of(session: Any) -> Any:
    return session._server


def test_the_summary_names_each_version_that_differs() -> None:
    rows = [
        Agreement("a.onnx", "onnxruntime==1.1.0", "host", None, Status.PASS),
        Agreement("a.onnx", "onnxruntime==1.2.0", "host", None, Status.FAIL),
        Agreement("b.onnx", "onnxruntime==1.2.0", "host", None, Status.NOT_MEASURED),
        Agreement("a.pte", "executorch==1.1.0", "host", None, Status.PASS),
    ]
    assert runtimes.summary(rows) == [
        "**onnxruntime** 1.1.0, 1.2.0: these cannot, or differ:",
        "- 1.2.0: differs with a.onnx, cannot run b.onnx",
        "**executorch** 1.1.0: all load every file, no word differs.",
    ]


@pytest.mark.runtimes
@pytest.mark.parametrize("each", pins(), ids=lambda each: each.name)
def test_every_pinned_version_is_what_it_says(each: Any) -> None:
    """Its environment has that version of the runtime, and nothing of the gate's."""
    import subprocess

    program = f"import importlib.metadata as m; print(m.version('{each.runtime}'))"
    command = [environments.python_of(each), "-I", "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == each.version
    assert environments.missing(each) == ""
    assert not environments.install(each), "made again, though it is there"


@pytest.mark.runtimes
def test_the_same_version_gives_the_same_bits_and_another_the_same_words(tmp_path: Path) -> None:
    from harness.crossdevice.command import main

    ours = f"onnxruntime=={version('onnxruntime')}"
    words = ["--devices", f"host,{VERSION},{ours}", "--target", "server", "--max-swipes", "24"]
    words += ["--workdir", str(resources.build_folder()), "--out", str(tmp_path)]
    assert main(words) == 0
    data = json.loads((tmp_path / "devices.json").read_text(encoding="utf-8"))
    found = {(row["device"], row["file"]): row["figures"] for row in data["agreements"]}
    assert found[ours, FILE]["max_difference"] == 0.0
    assert found[VERSION, FILE]["max_difference"] > 0.0, "another version, indeed"
    assert {figures["swipes"] for figures in found.values()} == {24}


@pytest.mark.runtimes
def test_programs_run_on_another_executorch(tmp_path: Path) -> None:
    from harness.crossdevice.command import main

    words = ["--devices", "host,executorch==1.5.1", "--target", "edge", "--max-swipes", "12"]
    words += ["--workdir", str(resources.build_folder()), "--out", str(tmp_path)]
    assert main(words) == 0


@pytest.mark.runtimes
def test_it_ends_with_a_worker_that_is_killed(file: Path) -> None:
    worker = Worker("a worker")
    session = worker.make(open_on, device(VERSION), file)
    pid = worker.call(pid_of, session)
    assert Path(f"/proc/{pid}").exists()
    os.kill(worker._process.pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
    worker.close()


def pid_of(session: Any) -> int:
    pid: int = server_of(session)._process.pid
    return pid
