"""Files on emulated arm64 cores: the host's answers, by the core's own kernels, and its deaths."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from exportgate.contract import IoContract, TensorSpec
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.isolate import Worker, WorkerError
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import OpenError, RunError
from harness.devices.device import DeviceDiedError, Need, open_on
from harness.devices.qemu import build, runner
from harness.devices.qemu.arm64 import NO_CLOCK, Arm64, arm64
from harness.devices.qemu.build import SetupError
from harness.devices.qemu.cores import CORES, UnknownCoreError, core
from harness.devices.qemu.session import RunnerSession
from harness.devices.qemu.x86 import PROCESSORS, X86, Processor, X86Session
from tests.devices.full_disk import opened_on_a_full_disk
from tests.test_devices import FILE, write_encoder
from tests.test_pte_file import lowered

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.arm64

EACH = [Arm64(row) for row in CORES]
BY_NAME = [row.name for row in CORES]
A53, A76, I8MM = EACH
NAMES = IoContract(
    (TensorSpec("x", "float32", (1, "T", "K")), TensorSpec("lengths", "int64", ("B",))),
    (TensorSpec("y", "float32", (1, "T", 8)), TensorSpec("encoded", "int64", ("B",))),
)


def feeds(width: int, frames: int = 5) -> dict[str, Any]:
    x = np.random.default_rng(frames).normal(size=(1, frames, width)).astype(np.float32)
    return {"x": x, "lengths": np.array([frames], np.int64)}


def write_onnx(path: Path) -> Path:
    """Write a product, dynamically quantised as ONNX Runtime does it."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (64, 48)).astype(np.int8)
    constants = {"w": weight, "scale": np.float32(0.01), "zero": np.int8(0)}
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
        helper.make_node("MatMulInteger", ["q", "w", "qz", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["qs", "scale"], ["both"]),
        helper.make_node("Mul", ["real", "both"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, "T", 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, "T", 48))],
        [onnx.numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_onnx(tmp_path_factory.mktemp("onnx") / "product.onnx")


def opened(device: Arm64, path: Path) -> RunnerSession:
    return device._open(path, NAMES)


def classes(device: Arm64, path: Path, inputs: Mapping[str, Any], times: int = 2) -> list[str]:
    """Return what the plugin says of each inference."""
    plugin = ("-plugin", str(build.folder() / "libcount.so"))
    process = device._runner(path, plugin)
    session = RunnerSession(device.name, NO_CLOCK, path, NAMES, process)
    for _ in range(times):
        session.run(inputs)
    return [line for line in process.said().splitlines() if line.startswith("EXACT")]


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(100):
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("device", EACH, ids=BY_NAME)
def test_onnx_gives_the_hosts_answers(device: Arm64, product: Path) -> None:
    host, there = OrtSession(product), opened(device, product)
    assert there.contract == host.contract
    for frames in (1, 3, 17):
        inputs = {"x": feeds(64, frames)["x"]}
        ours, theirs = there.run(inputs)["y"], host.run(inputs)["y"]
        assert ours.shape == (1, frames, 48)
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("device", EACH, ids=BY_NAME)
@pytest.mark.parametrize(
    ("width", "four_bits"),
    [(32, False), (40, False), (64, True), (96, True), (40, True), (70, True)],
)
def test_a_quantised_program_gives_the_hosts_answers(
    device: Arm64, width: int, four_bits: bool, tmp_path: Path
) -> None:
    """Widths that fill KleidiAI's blocks of 32, and some that do not; 8 bits and 4."""
    path = tmp_path / "program.pte"
    path.write_bytes(lowered(quantized=True, four_bits=four_bits, inputs=width))
    host, there = PteSession(path, NAMES), opened(device, path)
    assert [spec.name for spec in there.contract.inputs] == ["x", "lengths"]
    for frames in (1, 2, 5, 64):
        inputs = feeds(width, frames)
        ours, theirs = there.run(inputs), host.run(inputs)
        assert np.array_equal(ours["encoded"], theirs["encoded"])
        # A value on the edge between two codes may fall the other way: a code of 255, of a sum.
        assert np.abs(ours["y"] - theirs["y"]).max() < 2e-3
        assert np.median(np.abs(ours["y"] - theirs["y"])) < 1e-6


def test_integers_take_the_cores_instructions_each_time_as_many(tmp_path: Path) -> None:
    path = tmp_path / "program.pte"
    path.write_bytes(lowered(quantized=True))
    found = {}
    for device in EACH:
        one, two = classes(device, path, feeds(32, 64))
        again = classes(device, path, feeds(32, 64))[1]
        assert two == again, "an inference takes the same instructions in every process"
        found[device.core.name] = dict(word.split("=") for word in two.split()[1:])
        del one
    assert {name: int(row["dot"]) > 0 for name, row in found.items()} == {
        "cortex-a53": False, "cortex-a76": True, "i8mm": False,
    }  # fmt: skip
    assert int(found["i8mm"]["matrix"]) * 2 == int(found["cortex-a76"]["dot"])
    assert int(found["cortex-a53"]["widening"]) > 0
    assert {row["scalable"] for row in found.values()} == {"0"}


def test_fp16_loads_where_the_core_calculates_in_it(tmp_path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    layer, half = torch.nn.Linear(16, 16).eval().half(), torch.ones(1, 4, 16).half()
    exported = torch.export.export(layer, (half,), strict=False)
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path = tmp_path / "half.pte"
    path.write_bytes(edge.to_executorch().buffer)
    names = IoContract(
        (TensorSpec("x", "float16", (1, 4, 16)),), (TensorSpec("y", "float16", (1, 4, 16)),)
    )
    inputs = {"x": half.numpy()}
    theirs = PteSession(path, names).run(inputs)["y"]
    for device in (A76, I8MM):
        assert device.lacks(Need.FP16) == ""
        ours = device._open(path, names).run(inputs)["y"]
        assert np.abs(ours - theirs).max() < 1e-2
    assert A53.lacks(Need.FP16) == "the core has no FP16 arithmetic"
    with pytest.raises(OpenError, match=r"ExecuTorch does not load it on qemu-arm64:cortex-a53"):
        A53._open(path, names)


def test_what_a_runtime_refuses_is_said_and_is_no_death(product: Path) -> None:
    session = opened(A53, product)
    wide = {"x": np.zeros((1, 2, 65), np.float32)}
    session.contract = IoContract((TensorSpec("x", "float32", (1, "T", 65)),), ())
    with pytest.raises(RunError, match="ONNX Runtime failed on qemu-arm64:cortex-a53"):
        session.run(wide)
    pid = session.pid
    session.contract = IoContract((TensorSpec("x", "float32", (1, "T", 64)),), ())
    assert session.run({"x": feeds(64)["x"]})["y"].shape == (1, 5, 48)
    assert session.pid == pid


@pytest.mark.parametrize("suffix", [".onnx", ".pte"])
@pytest.mark.parametrize("content", [b"", b"no model", b"\0" * 4096])
def test_a_damaged_file_does_not_open(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises((OpenError, DeviceDiedError), match="qemu-arm64:cortex-a76"):
        opened(A76, path)


def test_killed_while_it_runs_it_is_dead_with_a_reason(product: Path) -> None:
    session = opened(A76, product)
    os.kill(session.pid, signal.SIGKILL)
    with pytest.raises(DeviceDiedError, match=r"qemu-arm64:cortex-a76 died: signal SIGKILL"):
        session.run({"x": feeds(64)["x"]})
    assert gone(session.pid)


def test_hanging_it_is_killed_at_its_limit(product: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "RUN_LIMIT_S", 1.0)
    session = opened(A76, product)
    os.kill(session.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(DeviceDiedError, match="did not answer in time and was killed"):
        session.run({"x": feeds(64)["x"]})
    assert time.monotonic() - start < 5
    assert gone(session.pid)


def pid_of(session: RunnerSession) -> int:
    return session.pid


def run_once(session: RunnerSession | X86Session, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return session.run(inputs)


@pytest.mark.parametrize("how", ["closed", "killed", "killed beside a hanging emulator"])
def test_it_ends_with_the_worker_that_started_it(how: str, product: Path) -> None:
    worker = Worker("a worker")
    handle = worker.make(opened, A76, product)
    pid = worker.call(pid_of, handle)
    assert not gone_now(pid)
    if how != "closed":
        if "hanging" in how:
            os.kill(pid, signal.SIGSTOP)
        os.killpg(worker._process.pid, signal.SIGKILL)
    worker.close()
    assert gone(pid)


def gone_now(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("name", ["qemu-arm64:cortex-a76", "qemu-x86:avx2"])
def test_a_full_disk_stops_no_emulator_and_keeps_nothing(name: str, tmp_path: Path) -> None:
    write_encoder(tmp_path / FILE, padding=0)
    (tmp_path / "disk").mkdir()
    found = opened_on_a_full_disk(name, tmp_path / FILE, tmp_path / "disk")
    assert found == ("opened", "filling")


def x86_worker(session: X86Session) -> int:
    return session._worker._process.pid


@pytest.mark.parametrize("processor", PROCESSORS, ids=lambda each: each.name)
def test_an_older_x86_gives_the_hosts_answers_and_dies_alone(
    processor: Processor, tmp_path: Path
) -> None:
    write_encoder(tmp_path / FILE, padding=0)
    features = np.random.default_rng(0).normal(size=(37, 30)).astype(np.float32)
    ours = open_artifact(tmp_path / FILE).run(encoder_input(features))
    with Worker("a worker", timeout_s=200) as worker:
        session = worker.make(open_on, X86(processor), tmp_path / FILE)
        theirs = worker.call(run_once, session, encoder_input(features))
        assert np.abs(ours["encoded_bdt"] - theirs["encoded_bdt"]).max() < 1e-5
        pid = worker.call(x86_worker, session)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=f"qemu-x86:{processor.name} died") as caught:
            worker.call(run_once, session, encoder_input(features))
        assert caught.value.kind == DeviceDiedError.__name__
        again = worker.make(open_on, X86(processor), tmp_path / FILE)
        pid = worker.call(x86_worker, again)
    assert gone(pid)


def test_a_death_in_a_worker_is_told_by_its_kind(product: Path) -> None:
    with Worker("a worker") as worker:
        handle = worker.make(opened, A53, product)
        os.kill(worker.call(pid_of, handle), signal.SIGKILL)
        with pytest.raises(WorkerError) as caught:
            worker.call(run_once, handle, {"x": feeds(64)["x"]})
        assert caught.value.kind == DeviceDiedError.__name__
        again = worker.make(opened, A53, product)
        assert "y" in worker.call(run_once, again, {"x": feeds(64)["x"]})


def test_the_setup_does_nothing_twice() -> None:
    stamp = build.folder() / "built.json"
    before = stamp.stat().st_mtime_ns
    assert build.build() == build.folder()
    assert stamp.stat().st_mtime_ns == before


def test_a_build_of_other_sources_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "digest", lambda: "another")
    with pytest.raises(SetupError, match=r"other sources or versions; run: make setup-arm64"):
        arm64("cortex-a53")


def test_a_core_has_a_name() -> None:
    assert arm64("i8mm").name == "qemu-arm64:i8mm"
    assert core("cortex-a76").fp16
    with pytest.raises(UnknownCoreError, match="known: cortex-a53, cortex-a76, i8mm"):
        arm64("cortex-m0")
