"""Faults that shipped elsewhere, injected into real files: each turns its gate red."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exporters.artifact import sidecar_path
from harness.evidence import once
from harness.gates import Status
from tests.faults import consumers
from tests.faults.run import FaultLab, SharedEvidence, Workspace, open_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from harness.gates import Verdict
    from harness.isolate import Handle

pytestmark = pytest.mark.slow

FILES = (
    "encoder_fp32.onnx",
    "encoder_fp32.pte",
    "encoder_int8.pte",
    "step_fp32.pte",
    "step_fp32.onnx",
)


@pytest.fixture(scope="module")
def lab() -> Iterator[FaultLab]:
    opened = open_lab(FILES)
    yield opened
    opened.close()


@pytest.fixture
def workspace(lab: FaultLab, tmp_path: Path) -> Workspace:
    return lab.workspace(tmp_path / "files")


def red(verdicts: dict[str, Verdict]) -> set[str]:
    return {key for key, verdict in verdicts.items() if verdict.status is not Status.PASS}


def test_unharmed_files_are_green(lab: FaultLab, workspace: Workspace) -> None:
    assert red(lab.judge(workspace, ["encoder_fp32.onnx", "step_fp32.onnx"])) == set()


def test_1_blank_taken_from_the_labels_file(lab: FaultLab, workspace: Workspace) -> None:
    """The blank stands at 0: in the logits, in the symbols fed, and in the sidecar."""
    path = workspace.path("step_fp32.onnx")
    model = onnx.load(path)
    symbols = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    rolled = np.roll(np.arange(symbols), 1)
    add_constant(model, "blank_first", rolled)
    insert_before_output(model, "logits", "Gather", ["blank_first"], axis=1)
    add_constant(model, "labels_after_blank", np.roll(np.arange(symbols), 1))
    insert_after_input(model, "y_prev", "labels_after_blank")
    workspace.rewrite("step_fp32.onnx", model.SerializeToString(), blank_id=0)
    broken = red(lab.judge(workspace, ["step_fp32.onnx"]))
    assert "step_fp32.onnx provenance_mismatches_max" in broken
    assert "step_fp32.onnx token_mismatches_max" in broken


def test_3_state_advanced_on_blank(lab: FaultLab, workspace: Workspace) -> None:
    class Drifting(SharedEvidence):
        @once
        def hypotheses(self, name: str) -> list[object]:
            encoded = list(self.reference().encoded)
            decoder = consumers.decode_advancing_on_blank
            return self.run(name, decoder, encoded, self.reference().spec)

    workspace.evidence = Drifting
    broken = red(lab.judge(workspace, ["step_fp32.onnx"]))
    assert "step_fp32.onnx token_mismatches_max" in broken
    assert not any("error" in key and "score" not in key for key in broken)


def test_4_encoder_output_is_btd(lab: FaultLab, workspace: Workspace) -> None:
    model = onnx.load(workspace.path("encoder_fp32.onnx"))
    insert_before_output(model, "encoded_bdt", "Transpose", [], perm=[0, 2, 1])
    dims = model.graph.output[0].type.tensor_type.shape.dim
    first, second = (onnx.TensorShapeProto.Dimension() for _ in range(2))
    first.CopyFrom(dims[1])
    second.CopyFrom(dims[2])
    dims[1].CopyFrom(second)
    dims[2].CopyFrom(first)
    workspace.rewrite("encoder_fp32.onnx", model.SerializeToString())
    broken = red(lab.judge(workspace, ["encoder_fp32.onnx"]))
    assert "encoder_fp32.onnx contract_mismatches_max" in broken


def test_7_weights_dropped_on_load(lab: FaultLab, workspace: Workspace) -> None:
    class Dropped(SharedEvidence):
        @once
        def _nemo(self) -> Handle:
            return self._worker("NeMo").make(
                consumers.load_dropping_weights, self.request.checkpoint
            )

        def close(self) -> None:
            for worker in self._workers.values():
                worker.close()

    workspace.evidence, workspace.share_reference = Dropped, False
    verdicts = lab.judge(workspace, ["step_fp32.onnx"])
    broken = red(verdicts)
    assert "checkpoint differing_tensors_max" in broken
    assert "checkpoint reference_word_accuracy_min" in broken
    assert "decoder.prediction" in verdicts["checkpoint differing_tensors_max"].detail


def test_10_int8_that_is_fp32_inside(lab: FaultLab, workspace: Workspace) -> None:
    payload = workspace.path("encoder_fp32.pte").read_bytes()
    workspace.rewrite("encoder_int8.pte", payload)
    broken = red(lab.judge(workspace, ["encoder_int8.pte"]))
    assert "encoder_int8.pte int8_weight_share_min" in broken
    assert "encoder_int8.pte size_ratio_max" in broken


@pytest.mark.parametrize("missing", ["file", "sidecar", "both"])
def test_20_a_missing_file_is_no_success(lab: FaultLab, workspace: Workspace, missing: str) -> None:
    path = workspace.path("step_fp32.onnx")
    if missing in {"file", "both"}:
        path.unlink()
    if missing in {"sidecar", "both"}:
        sidecar_path(path).unlink()
    verdicts = lab.judge(workspace, ["step_fp32.onnx"])
    mine = [v for key, v in verdicts.items() if key.startswith("step_fp32.onnx")]
    assert {v.status for v in mine} == {Status.NOT_MEASURED}
    assert all("step_fp32.onnx" in v.detail for v in mine)


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_a_truncated_pte_is_one_clear_reason(lab: FaultLab, workspace: Workspace, cut: int) -> None:
    payload = workspace.path("step_fp32.pte").read_bytes()[:cut]
    workspace.rewrite("step_fp32.pte", payload)
    verdicts = lab.judge(workspace, ["step_fp32.pte", "step_fp32.onnx"])
    broken = red(verdicts)
    assert "step_fp32.pte contract_mismatches_max" in broken
    assert not any(key.startswith(("step_fp32.onnx", "checkpoint")) for key in broken)


def test_a_flipped_bit_is_found_before_the_file_is_opened(
    lab: FaultLab, workspace: Workspace
) -> None:
    path = workspace.path("step_fp32.pte")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    verdicts = lab.judge(workspace, ["step_fp32.pte"])
    verdict = verdicts["step_fp32.pte contract_mismatches_max"]
    assert verdict.status is Status.NOT_MEASURED
    assert "the file is damaged or was replaced" in verdict.detail


def test_a_crashing_program_fails_its_own_checks_only(lab: FaultLab, workspace: Workspace) -> None:
    """A damaged delegate aborts the process when it is loaded (SIGSEGV or SIGABRT)."""
    data = bytearray(workspace.path("step_fp32.pte").read_bytes())
    where = data.index(b"XH00")
    data[where : where + 64] = b"\xff" * 64
    workspace.rewrite("step_fp32.pte", bytes(data))
    verdicts = lab.judge(workspace, ["step_fp32.pte", "step_fp32.onnx"])
    broken = red(verdicts)
    assert "step_fp32.pte contract_mismatches_max" in broken
    assert not any(key.startswith(("step_fp32.onnx", "checkpoint")) for key in broken)


def add_constant(model: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    model.graph.initializer.append(numpy_helper.from_array(value.astype(np.int64), name))


def insert_before_output(
    model: onnx.ModelProto, output: str, op: str, inputs: list[str], **attributes: object
) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == output:
                node.output[index] = f"{output}_original"
    node = helper.make_node(op, [f"{output}_original", *inputs], [output], **attributes)
    model.graph.node.append(node)


def insert_after_input(model: onnx.ModelProto, name: str, table: str) -> None:
    """Replace an index input by its entry in a table."""
    for node in model.graph.node:
        for index, used in enumerate(node.input):
            if used == name:
                node.input[index] = f"{name}_mapped"
    node = helper.make_node("Gather", [table, name], [f"{name}_mapped"], axis=0)
    model.graph.node.insert(0, node)
