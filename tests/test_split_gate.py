"""The gate itself on golden's step in two parts: honest, harmed in either, one half gone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from exportgate.artifacts.sidecar import read_sidecar, sha256_of, sidecar_path, write_text
from exportgate.contract import OTHER_SHA256
from harness.gate.gates import Status
from tests.faults.graph_edits import change_constant
from tests.faults.run import FaultLab, Workspace, open_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from harness.gate.gates import Verdict

pytestmark = [pytest.mark.long, pytest.mark.nested]

PREDICT, JOINT, BOTH = "predict_fp32.onnx", "joint_fp32.onnx", "step_split_fp32.pte"
# Without searches and without what each process of its own takes.
QUICK = "(contract or parity or coverage or decode) and not words"


@pytest.fixture(scope="module")
def lab() -> Iterator[FaultLab]:
    opened = open_lab([PREDICT, BOTH])
    yield opened
    opened.close()


@pytest.fixture
def workspace(lab: FaultLab, tmp_path: Path) -> Workspace:
    found = lab.workspace(tmp_path / "files")
    found.args = ("-k", QUICK)
    return found


def judged(lab: FaultLab, workspace: Workspace, *names: str) -> dict[str, Verdict]:
    """Return the verdicts on files, of those gates that the quick tests measure."""
    verdicts = lab.judge(workspace, names)
    return {
        key: verdict
        for key, verdict in verdicts.items()
        if "no test measured it" not in verdict.detail
    }


def red(verdicts: dict[str, Verdict], status: Status = Status.FAIL) -> set[tuple[str, str]]:
    return {
        (verdict.gate.artifact, verdict.gate.metric)
        for verdict in verdicts.values()
        if verdict.status is status
    }


def test_honest_files_are_green_and_bound_by_their_hashes(
    lab: FaultLab, workspace: Workspace, tmp_path: Path
) -> None:
    # One half is named: the other is judged with it.
    verdicts = judged(lab, workspace, PREDICT, BOTH)
    assert {verdict.status for verdict in verdicts.values()} == {Status.PASS}
    judged_files = {verdict.gate.artifact for verdict in verdicts.values()}
    assert judged_files == {PREDICT, JOINT, BOTH}
    for name in judged_files:
        metrics = {v.gate.metric for v in verdicts.values() if v.gate.artifact == name}
        assert metrics >= {"sqnr_db", "token_mismatches", "constant_mismatches", "label_noise_p"}
    report = json.loads((tmp_path / "report" / "report.json").read_text("utf-8"))
    digests = {name: sha256_of(workspace.path(name)) for name in judged_files}
    assert report["request"]["files"] == digests


def harm(workspace: Workspace, name: str, change: Callable[[onnx.ModelProto], None]) -> None:
    """Change one half, as an exporter with a fault would have written both."""
    model = onnx.load(str(workspace.path(name)))
    change(model)
    workspace.rewrite(name, model.SerializeToString())
    other = PREDICT if name == JOINT else JOINT
    sidecar = read_sidecar(workspace.path(other))
    recipe = {**sidecar.recipe, OTHER_SHA256: sha256_of(workspace.path(name))}
    write_text(sidecar_path(workspace.path(other)), replace(sidecar, recipe=recipe).to_json())


def one_up(value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Raise one number by one part in a hundred of the largest."""
    flat = value.reshape(-1)
    flat[3] += 0.01 * np.abs(flat).max()
    return value


@pytest.mark.parametrize(
    ("name", "constant", "outputs"),
    [
        (JOINT, "out.bias", {"sqnr_db", "worst_symbol_sqnr_db"}),
        (PREDICT, "table.weight", {"max_error_ratio", "state_max_error_ratio"}),
    ],
)
def test_a_fault_in_one_half_is_named_there_and_seen_in_both(
    lab: FaultLab, workspace: Workspace, name: str, constant: str, outputs: set[str]
) -> None:
    every = (lambda v: 1.01 * v) if name == PREDICT else one_up
    harm(workspace, name, change_constant(constant, every))
    broken = red(judged(lab, workspace, PREDICT))
    assert {file for file, metric in broken if metric == "constant_mismatches"} == {name}
    for file in (PREDICT, JOINT):
        assert outputs <= {metric for artifact, metric in broken if artifact == file}


def test_a_half_that_is_missing_is_one_reason(lab: FaultLab, workspace: Workspace) -> None:
    workspace.path(JOINT).unlink()
    verdicts = judged(lab, workspace, PREDICT)
    unmeasured = red(verdicts, Status.NOT_MEASURED)
    assert (JOINT, "sidecar_mismatches") in unmeasured
    assert {(PREDICT, "sqnr_db"), (JOINT, "sqnr_db")} <= unmeasured
    reasons = {
        verdict.detail.partition(" ")[2]
        for verdict in verdicts.values()
        if verdict.status is Status.NOT_MEASURED
    }
    assert len(reasons) == 2, reasons
    assert any(f"the other half of the step, {JOINT}, is missing" in item for item in reasons)
    assert any("no such artifact; export it first" in item for item in reasons)
    # What can be read of the half that is there is judged all the same.
    assert (PREDICT, "constant_mismatches") not in unmeasured
    assert red(verdicts) == set()
