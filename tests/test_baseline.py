"""Only a green run becomes the baseline, and a candidate that is worse than it turns red."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import pytest

from exportgate.artifacts.sidecar import ArtifactError, read_sidecar, sha256_of
from harness.gate.baseline import PREFIX, BaselineError, read_baseline
from harness.gate.gates import Status
from harness.gate.promote import PromoteError, promote
from harness.gate.report.outcome import Measured, Report
from harness.measure.instructions import X86_64, missing
from tests.faults.graph_edits import before_output, operate
from tests.faults.run import FaultLab, Workspace, open_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.gate.gates import Verdict
    from harness.run.context import RunContext

pytestmark = [pytest.mark.slow, pytest.mark.nested]

ENCODER, STEP = "encoder_int8.onnx", "step_fp32.onnx"


@pytest.fixture(scope="module")
def lab() -> Iterator[FaultLab]:
    opened = open_lab(["encoder_fp32.onnx", ENCODER, STEP])
    yield opened
    opened.close()


@pytest.fixture
def workspace(lab: FaultLab, tmp_path: Path) -> Workspace:
    return lab.workspace(tmp_path / "files")


def a_report(workspace: Workspace, verdict: str = "PASS", **files: str) -> Path:
    judged = {ENCODER: sha256_of(workspace.path(ENCODER)), **files}
    request = {
        "target": "edge", "device": "host", "checkpoint": "golden.nemo",
        "checkpoint_sha256": "0" * 64, "folder": str(workspace.folder), "files": judged,
    }  # fmt: skip
    measured = (Measured(ENCODER, "sqnr_db", 41.0),)
    data: dict[str, Any] = json.loads(Report(request, {}, (), measured).to_json())
    path = workspace.folder / "report.json"
    path.write_text(json.dumps({**data, "verdict": verdict}), encoding="utf-8")
    return path


@pytest.fixture
def accepted(workspace: Workspace, tmp_path: Path) -> Path:
    folder = tmp_path / "baseline"
    promote(a_report(workspace), folder)
    return folder


def judge(lab: FaultLab, workspace: Workspace, baseline: Path) -> dict[str, Status]:
    workspace.args = ("--baseline", str(baseline), "-k", "regression and not instructions")
    verdicts = lab.judge(workspace, [ENCODER])
    return {
        verdict.gate.metric: verdict.status
        for verdict in verdicts.values()
        # Counted under emulation: minutes, and only where an emulator is (tests/test_exact.py).
        if verdict.gate.metric.startswith(PREFIX) and "instruction" not in verdict.gate.metric
    }


def test_the_released_files_themselves_are_green(
    lab: FaultLab, workspace: Workspace, accepted: Path
) -> None:
    found = judge(lab, workspace, accepted)
    assert set(found) == {
        "baseline_size_ratio", "baseline_latency_ratio", "baseline_accuracy_drop",
        "baseline_sqnr_drop_db", "baseline_macs_ratio", "baseline_nodes_ratio",
    }  # fmt: skip
    assert set(found.values()) == {Status.PASS}


def test_a_larger_slower_worse_file_is_red(
    lab: FaultLab, workspace: Workspace, accepted: Path
) -> None:
    def worse(context: RunContext) -> None:
        context.words.memo["accuracy", ENCODER] = 0.5
        cost = context.files.cost(ENCODER)
        twice = {name: 2 * count for name, count in cost.macs.items()}
        context.files.memo["cost", ENCODER] = replace(cost, macs=twice, nodes=2 * cost.nodes)

    path = accepted / "accepted.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["values"][ENCODER] = {"sqnr_db": 200.0}
    path.write_text(json.dumps(data), encoding="utf-8")
    # The FP32 file in the place of the INT8 one: three times the bytes. Whether it takes more time
    # depends on the processor, so that it gets work to do: sines of every output.
    workspace.rewrite(ENCODER, workspace.path("encoder_fp32.onnx").read_bytes())
    outputs = read_sidecar(workspace.path(ENCODER)).contract.outputs
    operate(ENCODER, *[before_output(outputs[0].name, "Sin")] * 8)(workspace)
    workspace.change = worse
    found = judge(lab, workspace, accepted)
    assert set(found.values()) == {Status.FAIL}, found


def test_a_file_that_was_never_accepted_is_not_measured(
    lab: FaultLab, workspace: Workspace, accepted: Path
) -> None:
    (accepted / ENCODER).write_bytes(b"another file")
    assert set(judge(lab, workspace, accepted).values()) == {Status.NOT_MEASURED}


def test_a_green_run_is_accepted_and_judges_the_next(
    lab: FaultLab, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the emulator: counting takes longer than all the rest (tests/test_exact.py).
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {verdict.status for verdict in lab.judge(workspace, [STEP]).values()} == {Status.PASS}
    report, folder = tmp_path / "report" / "report.json", tmp_path / "baseline"
    assert promote(report, folder) == [STEP]

    workspace.args = ("--baseline", str(folder))
    verdicts = lab.judge(workspace, [STEP])
    beside = {v.gate.metric for v in verdicts.values() if v.gate.metric.startswith(PREFIX)}
    assert beside == {
        "baseline_size_ratio", "baseline_latency_ratio", "baseline_instruction_ratio",
        "baseline_macs_ratio", "baseline_nodes_ratio", "baseline_sqnr_drop_db",
    }  # fmt: skip
    assert not_kept(verdicts) == {"baseline_instruction_ratio"}
    assert json.loads(report.read_text(encoding="utf-8"))["verdict"] == "PASS"

    model = onnx.load(workspace.path(STEP))
    model.metadata_props.add(key="notes", value="x" * (workspace.path(STEP).stat().st_size // 30))
    workspace.rewrite(STEP, model.SerializeToString())
    workspace.args += ("-k", "regression")
    larger = lab.judge(workspace, [STEP])
    judged = {key: v for key, v in larger.items() if v.gate.metric in beside}
    assert not_kept(judged) == {"baseline_size_ratio", "baseline_instruction_ratio"}
    assert larger[f"{STEP} baseline_size_ratio_max"].value == pytest.approx(1.033, abs=2e-3)


@pytest.mark.skipif(bool(missing(X86_64)), reason="the emulator is optional: make setup-exact")
def test_more_instructions_are_red(lab: FaultLab, workspace: Workspace, accepted: Path) -> None:
    workspace.args = ("--baseline", str(accepted), "-k", "instructions")
    outputs = read_sidecar(workspace.path(STEP)).contract.outputs
    operate(STEP, *(before_output(spec.name, "Sin") for spec in outputs))(workspace)
    verdict = lab.judge(workspace, [STEP])[f"{STEP} baseline_instruction_ratio_max"]
    assert verdict.status is Status.FAIL
    assert verdict.value is not None
    assert 1.01 < verdict.value < 1.5


def not_kept(verdicts: dict[str, Verdict]) -> set[str]:
    return {v.gate.metric for v in verdicts.values() if v.status is not Status.PASS}


def test_an_absent_baseline_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match=r"promote a green run with exportgate promote"):
        read_baseline(tmp_path)


def test_a_red_run_is_not_accepted(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(PromoteError, match="only a green run becomes the baseline"):
        promote(a_report(workspace, verdict="FAIL"), tmp_path / "baseline")
    assert not (tmp_path / "baseline").exists()


def test_a_file_that_changed_since_is_not_accepted(workspace: Workspace, tmp_path: Path) -> None:
    report = a_report(workspace)
    workspace.rewrite(ENCODER, b"exported again")
    with pytest.raises(PromoteError, match="changed since it was judged"):
        promote(report, tmp_path / "baseline")
    workspace.path(ENCODER).write_bytes(b"damaged")
    with pytest.raises(ArtifactError):
        promote(report, tmp_path / "baseline")


def test_a_run_without_files_is_not_accepted(workspace: Workspace, tmp_path: Path) -> None:
    report = a_report(workspace)
    data = json.loads(report.read_text(encoding="utf-8"))
    data["request"]["files"] = {}
    report.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(PromoteError, match="judged no file"):
        promote(report, tmp_path / "baseline")


def test_a_baseline_brings_its_step_and_replaces_the_last_as_a_whole(
    workspace: Workspace, accepted: Path
) -> None:
    assert read_sidecar(accepted / STEP).sha256 == sha256_of(workspace.path(STEP))
    (accepted / "stray.pte").write_bytes(b"")
    promote(a_report(workspace), accepted)
    assert not (accepted / "stray.pte").exists()
    assert (accepted.with_name("baseline.previous") / "stray.pte").exists()
