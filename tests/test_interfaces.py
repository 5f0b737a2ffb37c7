"""Files that are called otherwise: their names, contracts and gates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporters.pipeline.command import _as_called
from exporters.variants import (
    VARIANTS,
    UnknownVariantError,
    contract_of,
    plain_name,
    presented,
    variant,
)
from exportgate.contract import OURS, Interface
from harness.client.specification import specification
from harness.gate.gates import Status, judge, read_gates
from harness.gate.plugin.request import _with_interfaces
from tests.conftest import REPOSITORY
from tests.test_bundle import SPEC, artifact

if TYPE_CHECKING:
    from exporters.variants import Variant

GATES = REPOSITORY / "suites" / "gates.toml"
ALL = Interface("int32", 8, log_probs=True)
EVERY = [ALL, Interface("int32"), Interface(step_batch=4), Interface(log_probs=True)]


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
@pytest.mark.parametrize("interface", EVERY, ids=lambda one: one.suffix)
def test_a_name_says_how_a_file_is_called(row: Variant, interface: Interface) -> None:
    found = presented(row, interface)
    assert variant(found.name) == found
    assert plain_name(found) == row.name
    assert (found.name == row.name) == (found.interface == OURS)
    # What only one half or one runtime has is not said of the others.
    assert found.interface.lengths_dtype == (
        interface.lengths_dtype if row.graph == "encoder" else "int64"
    )
    assert found.interface.log_probs == (interface.log_probs and row.graph == "step")
    assert (found.interface.step_batch > 1) == (
        interface.step_batch > 1 and row.graph == "step" and row.format == "pte"
    )


@pytest.mark.parametrize(
    "name",
    [
        "encoder_fp32_log_probs.onnx",  # an encoder gives none
        "encoder_fp32_batch8.pte",
        "step_fp32_batch8.onnx",  # takes any number
        "step_fp32_int32.pte",
        "step_fp32_log_probs_batch8.pte",  # in another order it would be another name of one file
        "step_fp32_batch1.pte",
        "step_fp32_batch08.pte",
        "step_fp32_batch0.pte",
    ],
)
def test_other_names_are_none(name: str) -> None:
    with pytest.raises(UnknownVariantError):
        variant(name)


def test_contracts() -> None:
    encoder = contract_of(variant("encoder_int8_int32.pte"), SPEC)
    assert [t.dtype for t in (encoder.inputs[1], encoder.outputs[1])] == ["int32", "int32"]
    step = contract_of(variant("step_fp32_batch8_log_probs.pte"), SPEC)
    assert [t.shape[0] for t in (step.inputs[0], step.inputs[3], step.outputs[0])] == [8, 8, 8]
    assert step.inputs[1].shape[1] == 8
    assert step.outputs[0].name == "log_probs"


def test_gates_are_those_of_the_file_that_it_is() -> None:
    plain, name = "step_fp32.onnx", "step_fp32_log_probs.onnx"
    book = read_gates([GATES], ["checkpoint", *(row.name for row in VARIANTS), name])
    keys = {gate.key for gate in book.of(plain)}
    assert {gate.key for gate in book.of(name)} == keys | {"normalised_logits_min"}
    for share, right in ((1.0, name), (0.0, plain)):
        for file in (plain, name):
            verdicts = {
                judge(gate, share).status
                for gate in book.of(file)
                if gate.metric == "normalised_logits"
            }
            assert (verdicts == {Status.PASS}) == (file == right)


def test_a_folder_is_judged_by_what_is_in_it(tmp_path: Path) -> None:
    rows = (variant("encoder_fp32.onnx"), variant("step_fp32.onnx"))
    for name in ("encoder_fp32_int32.onnx", "step_fp32.onnx", "step_fp32_log_probs.onnx", "x.onnx"):
        (tmp_path / name).touch()
    found = [row.name for row in _with_interfaces(rows, tmp_path)]
    assert found == ["encoder_fp32_int32.onnx", "step_fp32.onnx", "step_fp32_log_probs.onnx"]
    assert _with_interfaces(rows, None) == rows


def test_log_probabilities_are_in_a_files_name() -> None:
    asked = {"step_fp32.onnx": Path("my.onnx")}
    assert _as_called(asked, ALL) == {"step_fp32_log_probs.onnx": Path("my_log_probs.onnx")}
    said = {"step_fp32.pte": Path("log_probs.pte")}
    assert _as_called(said, Interface(log_probs=True)) == {
        "step_fp32_log_probs.pte": Path("log_probs.pte")
    }


def test_the_decode_specification_says_it(tmp_path: Path) -> None:
    from exportgate.artifacts.sidecar import read_sidecar

    names = ("encoder_fp32_int32.onnx", "step_int8.onnx", "step_fp32_log_probs.onnx")
    sidecars = {name: read_sidecar(artifact(tmp_path / name, name)) for name in names}
    files = specification(sidecars, {"file": "words.tsv", "count": 1, "sha256": ""})["files"]
    assert files["encoder_fp32_int32.onnx"]["step"] == "step_fp32_log_probs.onnx"
    assert files["step_fp32_log_probs.onnx"]["scores"] == "log_probs"
    assert files["step_int8.onnx"]["scores"] == "logits"
