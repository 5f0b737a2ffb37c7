"""The seam for devices, proven by one that is another process with another clock."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

# Torch cannot be loaded twice, and a run inside a test forgets what it has loaded itself.
import exporters.nemo.peek  # noqa: F401
from exporters.variants import variant
from exportgate import resources
from exportgate.artifacts.sidecar import Sidecar, sha256_of, sidecar_path, write_text
from exportgate.contract import ModelSpec, encoder_contract
from exportgate.data.features import feature_spec
from exportgate.runtime.isolate import WorkerError
from harness.devices.device import DeviceDiedError
from harness.devices.registry import DEVICES, UnknownDeviceError, device
from harness.history.store import read_runs
from harness.run.context import RunContext
from harness.run.request import Request
from harness.run.workers import Workers
from tests.devices.far import LACKING, SECONDS_PER_BYTE
from tests.test_plugin import CONFTEST, write_golden

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE, BASELINE = "encoder_int8.onnx", "encoder_fp32.onnx"
SPEC = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("a", "b"), 10)
GATES = f"""
schema = 1
[checkpoint]
swipes_min = 1
["{FILE}"]
nonfinite_max = 0
encoded_length_mismatches_max = 0
unequal_repeats_max = 0
speedup_min = 1.5
sqnr_db_min = {{ limit = 1e9, reason = "exact", devices = ["host"] }}
"""
SUITE = """
import numpy as np
import pytest

@pytest.mark.measures("swipes")
def test_swipes(artifact, context, record):
    record("swipes", len(context.swipes.features()))

@pytest.mark.measures("unequal_repeats")
def test_repeats(artifact, context, record):
    record("unequal_repeats", len(context.outputs.unequal_repeats(artifact)))

@pytest.mark.measures("nonfinite")
def test_outputs(artifact, context, record):
    encoded = context.outputs.encoder(artifact).encoded
    record("nonfinite", sum(np.count_nonzero(~np.isfinite(item)) for item in encoded))

@pytest.mark.measures("encoded_length_mismatches")
def test_contract(artifact, context, record):
    record("encoded_length_mismatches", len(context.outputs.contract(artifact).inputs) - 2)

@pytest.mark.measures("sqnr_db")
def test_here(artifact, record):
    record("sqnr_db", 0)

@pytest.mark.measures("speedup", "latency_ms")
def test_time(artifact, context, record):
    ours, theirs = context.timing.paired_round(artifact)
    record("speedup", theirs / ours, samples=[theirs, ours])
    record("latency_ms", ours * 1e3)

@pytest.mark.measures("load_ms")
def test_alone(artifact, context, record):
    record("load_ms", context.timing.alone(artifact).load_ms[0])
"""


# --- example of a device, in harness/devices/registry.py
ROW = {"next-door": "tests.devices.next_door:next_door"}
# --- end of the example


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {kind: f"tests.devices.far:{kind}" for kind in ("far", "clockless")}
    for kind, factory in (rows | ROW).items():
        monkeypatch.setitem(DEVICES, kind, factory)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Write a checkout with a small suite, and two files of which one has twice the bytes."""
    monkeypatch.setattr(resources, "CHECKOUT", pytester.path)
    pytester.makeconftest(CONFTEST)
    pytester.makefile(".toml", **{"suites/gates": GATES})
    pytester.makepyfile(**{"suites/test_all": SUITE})
    write_golden(pytester.path / "golden")
    (pytester.path / "files").mkdir()
    write_encoder(pytester.path / "files" / FILE, padding=0)
    write_encoder(pytester.path / "files" / BASELINE, padding=20_000)
    return pytester


def write_encoder(path: Path, padding: int) -> None:
    """Write one layer that keeps every fourth frame, and bytes that nobody reads."""
    weight = np.random.default_rng(0).normal(size=(96, 37)).astype(np.float32)
    constants = {"w": weight, "zero": [0], "end": [2**31], "axis": [2], "four": [4], "three": [3]}
    nodes = [
        ("Slice", ["features_bft", "zero", "end", "axis", "four"], "some"),
        ("MatMul", ["w", "some"], "encoded_bdt"),
        ("Add", ["lengths", "three"], "more"),
        ("Div", ["more", "four"], "encoded_lengths"),
    ]
    contract = encoder_contract(SPEC)
    inputs, outputs = (
        [
            helper.make_tensor_value_info(
                t.name, TensorProto.FLOAT if t.dtype == "float32" else TensorProto.INT64, t.shape
            )
            for t in tensors
        ]
        for tensors in (contract.inputs, contract.outputs)
    )
    graph = helper.make_graph(
        [helper.make_node(kind, given, [found]) for kind, given, found in nodes],
        "encoder", inputs, outputs,
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        doc_string=" " * padding,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    row, size = variant(path.name), path.stat().st_size
    sidecar = Sidecar(
        row.name, row.precision, sha256_of(path), size, "0" * 64, SPEC, 2, contract, 200,
        feature_spec(), None, {},
    )  # fmt: skip
    write_text(sidecar_path(path), sidecar.to_json())


def judged(project: pytest.Pytester, name: str) -> tuple[pytest.RunResult, dict[str, Any]]:
    result = project.runpytest_inprocess(
        "suites", "-p", "no:cacheprovider", "--target", "android", "--variant", FILE,
        "--artifacts", "files", "--history", "history.db", "--device", name,
    )  # fmt: skip
    path = project.path / "build" / "report" / "report.json"
    return result, json.loads(path.read_text(encoding="utf-8"))


def verdicts(report: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {gate["metric"]: (gate["status"], gate["detail"]) for gate in report["gates"]}


def test_a_device_is_a_row_of_the_table() -> None:
    assert device("far").name == "far"
    assert device("far:some/file").name == "far:some/file"
    with pytest.raises(UnknownDeviceError, match=r"known: .*host.*, next-door$"):
        device("near")


def test_a_new_device_is_a_module_and_a_row(project: pytest.Pytester) -> None:
    result, report = judged(project, "next-door")
    found = {metric: status for metric, (status, _) in verdicts(report).items()}
    fast = found.pop("speedup")  # timed there; which of the two files is faster is nobody's promise
    assert fast in ("PASS", "FAIL")
    assert result.ret == (pytest.ExitCode.OK if fast == "PASS" else pytest.ExitCode.TESTS_FAILED)
    assert set(found) == {
        *("swipes", "nonfinite", "encoded_length_mismatches", "unequal_repeats"),
    }
    assert set(found.values()) == {"PASS"}
    assert report["request"]["device"] == "next-door"
    session = device("next-door").open(project.path / "files" / FILE)
    session._worker._kill()
    with pytest.raises(DeviceDiedError, match=r"device next-door died: .*SIGKILL"):
        session.run({})


def test_everybody_knows_the_device_and_its_clock(project: pytest.Pytester) -> None:
    result, report = judged(project, "far")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*target android on far", "*a far processor*"])
    assert report["request"]["device"] == "far"
    assert report["environment"]["machine"] == "far64"
    assert {gate["device"] for gate in report["gates"]} == {"far"}
    assert "sqnr_db" not in verdicts(report), "a gate of the host alone"
    left = f"not judged on far: sqnr_db of {FILE}; judge it on host (--device)"
    assert left in report["request"]["notes"]
    result.stdout.fnmatch_lines([f"*{left}"])
    (run,) = read_runs(project.path / "history.db")
    assert run.device == "far"
    sizes = [(project.path / "files" / name).stat().st_size for name in (BASELINE, FILE)]
    measured = {found["metric"]: found for found in report["measurements"]}
    seconds = [size * SECONDS_PER_BYTE for size in sizes]
    assert measured["speedup"]["samples"] == pytest.approx(seconds)
    # What it lacks and nothing is judged by is left out, with a word.
    assert "load_ms" not in measured
    assert f"not measured: load_ms: {LACKING}" in report["request"]["notes"]
    result.stdout.fnmatch_lines([f"*not measured: load_ms: {LACKING}"])


def test_what_it_lacks_is_not_measured(project: pytest.Pytester) -> None:
    result, report = judged(project, "clockless")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    status, detail = verdicts(report).pop("speedup")
    assert status == "NOT_MEASURED"
    assert detail == f"device clockless cannot time files in turns: {LACKING}"
    assert [s for s, _ in verdicts(report).values()].count("PASS") == 4


def test_its_death_fails_one_check_and_not_the_run(project: pytest.Pytester) -> None:
    poison = project.path / "poison"
    poison.touch()
    result, report = judged(project, f"far:{poison}")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    found = verdicts(report)
    status, detail = found.pop("unequal_repeats")
    assert status == "NOT_MEASURED"
    assert detail.startswith(f"device far:{poison} died: the far process: ")
    assert "exit status 7" in detail
    assert "\n" not in detail
    assert {status for status, _ in found.values()} == {"PASS"}
    assert "Traceback" not in result.stdout.str()


@pytest.fixture
def contexts(project: pytest.Pytester) -> Iterator[list[RunContext]]:
    """Open one run on the host and one on the device, which share their workers."""
    root, workers = project.path, Workers()
    here = Request(
        root / "golden" / "golden.nemo", root / "golden" / "val.jsonl", None, (variant(FILE),),
        root / "files", root, 200,
    )  # fmt: skip
    requests = (here, replace(here, device=device("far")))
    yield [RunContext(request, lambda _: None, workers) for request in requests]
    workers.close()


def test_it_gives_the_hosts_bits_and_shares_no_session(contexts: list[RunContext]) -> None:
    here, there = (context.outputs.encoder(FILE).encoded for context in contexts)
    assert len(here) == len(there) > 0
    for ours, theirs in zip(here, there, strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.any()
    names = [context.sessions.opened(FILE)[0].name for context in contexts]
    assert names == ["onnx on host", "onnx on far"]


def test_an_input_that_the_runtime_refuses_is_no_death(contexts: list[RunContext]) -> None:
    _, there = contexts
    first = there.sessions.opened(FILE)
    with pytest.raises(WorkerError, match="inputs are"):
        there.sessions.call(FILE, run_nothing)
    assert there.sessions.opened(FILE) == first


def run_nothing(session: Any) -> None:
    session.run({})
