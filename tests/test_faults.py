"""Faults that shipped elsewhere, injected into real files: each turns its gate red.

``python -m tests.faults`` runs the whole registry; here stands one fault of each kind.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import onnx
import pytest

from exportgate.artifacts.contents.pte_file import read_weights
from exportgate.artifacts.sidecar import sidecar_path
from harness.diagnose import localize
from harness.gate.gates import Status
from harness.third_party.folder import CONTRACT_FILE
from harness.third_party.guess import guess
from tests.faults.fault import red_gates, run_fault
from tests.faults.graph_edits import before_output, operate, rename
from tests.faults.registry import FAULTS
from tests.faults.run import FaultLab, Workspace, open_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.fault import Fault

slow = pytest.mark.slow
pytestmark = pytest.mark.nested

FILES = (
    "encoder_fp32.onnx",
    "encoder_int8.onnx",
    "step_fp32.onnx",
    "step_int8.onnx",
    "step_fp32.pte",
)
QUICK = (
    "blank at 0",
    "weights dropped on load",
    "decoding starts with a label",
    "state advanced on blank",
    "logits (B,1,1,V)",
    "h and c exchanged",
    "encoder is (B,T,D)",
    "mask off by one",
    "channel scale 5 % off",
    "INT8 channel scale 5 % off",
    "INT8 zero point + 1",
    "FP32 under an INT8 name",
    "baseline damaged",
    "no swipe",
    ".pte cut off",
)


@pytest.fixture(scope="module")
def lab() -> Iterator[FaultLab]:
    opened = open_lab(FILES)
    yield opened
    opened.close()


@pytest.fixture
def workspace(lab: FaultLab, tmp_path: Path) -> Workspace:
    return lab.workspace(tmp_path / "files")


def test_every_known_failure_has_a_fault() -> None:
    assert {fault.known_failure for fault in FAULTS} - {None} == set(range(1, 25))


def test_faults_have_names_of_their_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
    assert set(QUICK) <= {fault.name for fault in FAULTS}


@slow
def test_unharmed_files_are_green(lab: FaultLab, workspace: Workspace) -> None:
    files = ["encoder_fp32.onnx", "encoder_int8.onnx", "step_fp32.onnx"]
    assert red_gates(lab.judge(workspace, files)) == ()


@slow
def test_another_order_gives_the_same_report(lab: FaultLab, workspace: Workspace) -> None:
    reports = []
    for order in ((), ("-p", "tests.faults.shuffled")):
        workspace.args = order
        lab.judge(workspace, ["step_fp32.onnx"])
        path = workspace.folder.parent / "report" / "report.json"
        reports.append(json.loads(path.read_text(encoding="utf-8")))
        del reports[-1]["environment"]["load_1min"], reports[-1]["gate"]["finished_utc"]
    assert reports[0] == reports[1]
    assert reports[0]["verdict"] == "PASS"


@slow
@pytest.mark.parametrize("fault", [pytest.param(f, id=f.name) for f in FAULTS if f.name in QUICK])
def test_a_fault_is_caught_by_the_gate_named_for_it(lab: FaultLab, fault: Fault) -> None:
    outcome = run_fault(lab, fault, named_only=True)
    assert outcome.caught, f"{fault.gate} is green; red: {outcome.red}; {outcome.reason}"


@slow
def test_faults_still_fit_the_files_that_are_made_today(lab: FaultLab, tmp_path: Path) -> None:
    graphs = {name for name in FILES if name.endswith(".onnx")}
    fitting = [fault for fault in FAULTS if set(fault.variants) <= graphs]
    assert len(fitting) > 50
    for number, fault in enumerate(fitting):
        fault.inject(lab.workspace(tmp_path / str(number)))


@slow
@pytest.mark.parametrize("missing", ["file", "sidecar"])
def test_a_missing_file_is_no_success(lab: FaultLab, workspace: Workspace, missing: str) -> None:
    path = workspace.path("step_fp32.onnx")
    (path if missing == "file" else sidecar_path(path)).unlink()
    verdicts = lab.judge(workspace, ["step_fp32.onnx"])
    mine = [v for key, v in verdicts.items() if key.startswith("step_fp32.onnx")]
    assert {v.status for v in mine} == {Status.NOT_MEASURED}
    assert all("step_fp32.onnx" in v.detail for v in mine)


@slow
@pytest.mark.long
def test_a_crashing_program_fails_its_own_checks_only(lab: FaultLab, workspace: Workspace) -> None:
    next(f for f in FAULTS if f.name == ".pte that crashes").inject(workspace)
    broken = red_gates(lab.judge(workspace, ["step_fp32.pte", "step_fp32.onnx"]))
    assert "step_fp32.pte contract_mismatches_max" in broken
    assert not any(key.startswith(("step_fp32.onnx", "checkpoint")) for key in broken)


@slow
@pytest.mark.long
def test_a_foreign_quantized_file_is_told_where_it_breaks(
    lab: FaultLab, workspace: Workspace, tmp_path: Path
) -> None:
    """Its names are its own, and it brings no decoder."""
    next(f for f in FAULTS if f.name == "INT8 scales of two layers exchanged").inject(workspace)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("encoder_fp32.onnx", "encoder_int8.onnx"):
        model = onnx.load(workspace.path(name))
        rename("features_bft", "signal")(model)
        onnx.save(model, theirs / name.replace("encoder", "model"))
    spec = lab.pristine.nemo.reference().spec
    (theirs / CONTRACT_FILE).write_text(guess(theirs, spec), encoding="utf-8")
    workspace.folder = theirs
    workspace.args = ("-k", "outputs or layers or matrices or words")
    verdicts = lab.judge(workspace, [])
    sqnr = verdicts["encoder_int8.onnx sqnr_db_min"]
    assert sqnr.status is Status.FAIL
    assert "first bad layer: /blocks.0/ff1_in" in sqnr.detail
    green = ("int8_matrix_share_min", "unmatched_layers_max")
    assert {verdicts[f"encoder_int8.onnx {key}"].status for key in green} == {Status.PASS}
    # Decoded with a fresh step of the checkpoint.
    words = verdicts["encoder_int8.onnx words_lost_p_min"]
    assert words.status is not Status.NOT_MEASURED


@slow
def test_a_broken_gate_names_the_first_bad_layer(lab: FaultLab, workspace: Workspace) -> None:
    next(f for f in FAULTS if f.name == "channel scale 5 % off").inject(workspace)
    verdicts = lab.judge(workspace, ["encoder_fp32.onnx"])
    detail = verdicts["encoder_fp32.onnx max_error_ratio_max"].detail
    assert "first bad layer: /blocks.1/ff1_out/Gemm_output_0" in detail
    assert "channel 7 is off by a factor of 0.05" in detail


@slow
@pytest.mark.long
def test_localize_names_stage_layer_and_half(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    next(f for f in FAULTS if f.name == "channel scale 5 % off").inject(workspace)
    args = ["--artifact", str(workspace.path("encoder_fp32.onnx")), "--swipes", "6"]
    args += ["--checkpoint", str(workspace.checkpoint), "--manifest", str(workspace.manifest)]
    assert localize.main(args) == 0
    said = capsys.readouterr().out
    marked = [line for line in said.splitlines() if "first bad layer" in line]
    assert marked[0].startswith("/blocks.1/ff1_out/Gemm_output_0")
    assert "fresh FP32 ONNX" in said
    assert "encoder_int8" in said
    page = (workspace.folder / "localize.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "/blocks.1/ff1_out/Gemm_output_0" in page


def one_channel_off(workspace: Workspace, name: str) -> None:
    """Scale a row of a program's last weights by 1.05."""
    _, weight = read_weights(workspace.path(name))[-1]
    harmed = weight.copy()
    harmed[7] *= 1.05
    payload = workspace.path(name).read_bytes()
    assert payload.count(weight.tobytes()) == 1
    workspace.rewrite(name, payload.replace(weight.tobytes(), harmed.tobytes()))


@slow
@pytest.mark.long
def test_a_pte_is_told_its_first_bad_layer_and_its_stages(
    lab: FaultLab, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    one_channel_off(workspace, "step_fp32.pte")
    workspace.args = ("-k", "outputs")
    detail = lab.judge(workspace, ["step_fp32.pte"])["step_fp32.pte max_error_ratio_max"].detail
    assert "first bad layer: joint.out" in detail
    assert "channel 7 is off by a factor of 0.05" in detail

    args = ["--artifact", str(workspace.path("step_fp32.pte")), "--swipes", "4"]
    args += ["--checkpoint", str(workspace.checkpoint), "--manifest", str(workspace.manifest)]
    assert localize.main(args) == 0
    said = capsys.readouterr().out
    stages = {line[:30].strip(): line for line in said.splitlines()}
    assert "equal" in stages["exported program, eager"]
    assert "equal" not in stages["step_fp32.pte (fp32)"]
    assert next(line for line in stages.values() if "◄" in line).startswith("joint.out")
    assert "<svg" in (workspace.folder / "localize.html").read_text(encoding="utf-8")


@slow
def test_a_fault_that_changes_nothing_is_not_caught(lab: FaultLab) -> None:
    """The judge of the judges: a harmless change must count as missed."""
    from dataclasses import replace

    harmless = replace(
        next(f for f in FAULTS if f.name == "h and c exchanged"),
        inject=operate("step_fp32.onnx", before_output("logits", "Identity")),
    )
    assert not run_fault(lab, harmless, named_only=True).caught
