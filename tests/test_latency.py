"""A file is timed in a process of its own, and what it takes there is all that is measured."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from exportgate.artifacts.sidecar import Sidecar, sha256_of, sidecar_path, write_text
from exportgate.contract import ModelSpec, encoder_contract
from exportgate.data.features import feature_spec
from exportgate.runtime.isolate import Worker, WorkerError
from harness.measure import latency
from harness.measure.latency import OPENINGS, RUNS, Latency, LatencyError

if TYPE_CHECKING:
    from pathlib import Path

INPUT = {"x": np.ones((4, 1024), np.float32)}
WEIGHTS = 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a file of matrix products with 32 MiB of weights."""
    nodes = [
        helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"])
        for i in range(WEIGHTS)
    ]
    weight = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 1024])],
        [helper.make_tensor_value_info(f"x{WEIGHTS}", TensorProto.FLOAT, [4, 1024])],
        [numpy_helper.from_array(weight, f"w{i}") for i in range(WEIGHTS)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = tmp_path / "encoder_fp32.onnx"
    seal(path, model.SerializeToString())
    return path


def seal(path: Path, payload: bytes) -> None:
    path.write_bytes(payload)
    spec = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("a", "b"), 10)
    sidecar = Sidecar(
        path.name, "fp32", sha256_of(path), len(payload), "0" * 64, spec, 2,
        encoder_contract(spec), 200, feature_spec(), None, {},
    )  # fmt: skip
    write_text(sidecar_path(path), sidecar.to_json())


def measured(path: Path) -> Latency:
    with Worker("alone") as worker:
        found: Latency = worker.call(latency.measure_alone, path, INPUT)
    return found


def test_every_opening_and_every_run_is_a_sample(file: Path) -> None:
    found = measured(file)
    assert (len(found.load_ms), len(found.first_run_ms)) == (OPENINGS, OPENINGS)
    assert len(found.run_ms) == OPENINGS * RUNS
    assert min(found.run_ms + found.load_ms + found.first_run_ms) > 0
    weights = WEIGHTS * 4 * 1024**2
    assert weights < found.peak_memory_bytes < 4 * weights


def test_what_no_runtime_loads_is_an_error(file: Path) -> None:
    seal(file, b"no graph")
    with pytest.raises(WorkerError, match="ONNX Runtime does not load it"):
        measured(file)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_death_is_an_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_measure", die)
    with pytest.raises(LatencyError, match="the process that ran it died"):
        latency.measure_alone(file, INPUT)


@given(st.lists(st.floats(0.01, 1e4), min_size=1), st.sampled_from([50, 90, 99]))
def test_a_percentile_is_kept_by_its_share(runs: list[float], share: int) -> None:
    found = Latency((1.0,), (1.0,), tuple(runs), 0).percentile_ms(share)
    kept = np.mean(np.array(runs) <= found * (1 + 1e-12))
    assert min(runs) <= found * (1 + 1e-12)
    assert found <= max(runs) * (1 + 1e-12)
    assert kept >= (share / 100) * (len(runs) - 1) / len(runs)
