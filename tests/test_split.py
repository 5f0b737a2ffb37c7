"""A step whose prediction network and joint are called apart: names, contracts, gates, options."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from exporters.pipeline.bundle import BundleError, write_bundle
from exporters.pipeline.command import _as_called
from exporters.pipeline.options import ExportOptions, OptionError
from exporters.variants import (
    VARIANTS,
    UnknownVariantError,
    all_presented,
    called_contract,
    contract_of,
    other_half,
    parts_of,
    plain_name,
    variant,
)
from exportgate.artifacts.sidecar import ArtifactError, read_sidecar, sha256_of, sidecar_path
from exportgate.contract import (
    OTHER_SHA256,
    Interface,
    part_contracts,
    step_contract,
    whole_contract,
)
from exportgate.runtime.split import other_half_path
from harness.client.answers import pairs_of
from harness.client.schema import check_document
from harness.client.specification import in_words, specification
from harness.devices.host import HOST
from harness.gate.gates import read_gates
from harness.gate.plugin.request import RequestError, cannot_run, selected
from harness.run.files import lacking, needed
from tests.conftest import REPOSITORY
from tests.test_bundle import SPEC, artifact
from tests.test_client_files import WORDS

if TYPE_CHECKING:
    from exporters.variants import Variant

GATES = REPOSITORY / "suites" / "gates.toml"
SPLIT = Interface(part="split")
HALVES = ("predict_fp32.onnx", "joint_fp32.onnx")
BOTH = "step_split_fp32.pte"


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_a_step_is_in_two_parts_and_an_encoder_in_none(row: Variant) -> None:
    found = all_presented(row, SPLIT)
    assert len(found) == (2 if (row.graph, row.format) == ("step", "onnx") else 1)
    for called in found:
        assert variant(called.name) == called
        assert plain_name(called) == row.name
        assert (called == row) == (row.graph == "encoder")
        half = other_half(called)
        assert (half is not None) == (len(found) == 2)
        assert half is None or (half in found and half != called and other_half(half) == called)
    if row.baseline and row.graph == "step":
        assert all(variant(str(called.baseline)).precision == "fp32" for called in found)
        assert {called.baseline for called in found} == {
            called.name for called in all_presented(variant(row.baseline), SPLIT)
        }


@pytest.mark.parametrize(
    "name",
    [
        "predict_fp32.pte",  # a .pte holds both
        "joint_fp32.pte",
        "step_split_fp32.onnx",  # ONNX has a file for each
        "predict_step_fp32.onnx",
        "predict_encoder_fp32.onnx",
        "joint_fp32_log_probs.onnx",
        "step_split_fp32_batch8.pte",
        "predict_fp16.onnx",
    ],
)
def test_other_names_are_none(name: str) -> None:
    with pytest.raises(UnknownVariantError):
        variant(name)


@pytest.mark.parametrize("batch", [1, "B"])
def test_both_parts_are_the_step(batch: Any) -> None:
    parts = part_contracts(SPEC, batch=batch)
    assert whole_contract(parts) == step_contract(SPEC, batch=batch)
    assert parts["predict"].outputs[0] == parts["joint"].inputs[1]
    assert [spec.name for spec in parts["joint"].inputs] == ["enc_t", "prediction"]


def test_contracts_of_files() -> None:
    for name, part in zip(HALVES, ("predict", "joint"), strict=True):
        row = variant(name)
        assert contract_of(row, SPEC) == part_contracts(SPEC)[part]  # type: ignore[index]
        assert list(parts_of(row, SPEC)) == [part]
        assert called_contract(row, SPEC) == step_contract(SPEC)
    both = variant(BOTH)
    assert contract_of(both, SPEC) == called_contract(both, SPEC) == step_contract(SPEC, batch=1)
    assert parts_of(both, SPEC) == part_contracts(SPEC, batch=1)
    assert parts_of(variant("step_fp32.onnx"), SPEC) == {}


@pytest.mark.parametrize("name", [*HALVES, BOTH, "predict_int8.onnx", "step_split_int8.pte"])
def test_gates_are_all_of_the_step(name: str) -> None:
    plain = plain_name(variant(name))
    book = read_gates([GATES], ["checkpoint", *(row.name for row in VARIANTS), name])
    ours, theirs = (
        [replace(gate, artifact="") for gate in book.of(file)] for file in (name, plain)
    )
    assert ours == theirs
    assert len(ours) > 20


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        ("build/step_fp32.onnx", ["build/predict_fp32.onnx", "build/joint_fp32.onnx"]),
        ("build/joint_fp32.onnx", ["build/predict_fp32.onnx", "build/joint_fp32.onnx"]),
        ("build/mine.onnx", ["build/predict_mine.onnx", "build/joint_mine.onnx"]),
    ],
)
def test_two_files_are_named_after_the_one_that_was_asked_for(asked: str, paths: list[str]) -> None:
    found = _as_called({"step_fp32.onnx": Path(asked)}, SPLIT)
    assert found == dict(zip(HALVES, map(Path, paths), strict=True))
    assert other_half_path(Path(paths[0])) == Path(paths[1])
    assert other_half_path(Path(paths[1])) == Path(paths[0])
    assert _as_called(found, SPLIT) == found
    assert _as_called({"step_fp32.pte": Path("x.pte")}, SPLIT) == {BOTH: Path("x.pte")}


def test_a_half_under_another_name_is_refused() -> None:
    with pytest.raises(ArtifactError, match="name should begin with predict_ or joint_"):
        other_half_path(Path("step_fp32.onnx"))


@pytest.mark.parametrize("given", [{"log_probs": True}, {"step_batch": 8}])
def test_parts_take_one_hypothesis_and_give_logits(given: dict[str, Any]) -> None:
    args = argparse.Namespace(checkpoint=Path("x"), vocab=None, split=True)
    assert ExportOptions.of(args).interface == SPLIT
    vars(args).update(given)
    with pytest.raises(OptionError, match=f"--split and --{next(iter(given))}"):
        ExportOptions.of(args)


def asked(*names: str, target: str = "server", artifacts: Path | None = None) -> list[str]:
    given = {"--target": target, "--variant": list(names), "--artifacts": artifacts}
    config: Any = SimpleNamespace(getoption=given.__getitem__)
    return [row.name for row in selected(config)]


@pytest.mark.parametrize("name", HALVES)
def test_a_half_is_judged_with_its_other_half(name: str, tmp_path: Path) -> None:
    assert sorted(asked(name)) == sorted(HALVES)
    # A folder with one of both is judged by what should be in it.
    (tmp_path / name).touch()
    found = asked(target="server", artifacts=tmp_path)
    assert {*HALVES} <= {*found}
    assert "step_fp32.onnx" not in found
    rows = tuple(map(variant, HALVES))
    request: Any = SimpleNamespace(variants=rows, artifacts=tmp_path)
    assert sorted(needed(request)) == sorted(HALVES)
    assert lacking(request) == []  # no fresh export stands in for it
    request = SimpleNamespace(variants=(variant(name),), artifacts=None)
    assert sorted(needed(request)) == sorted(HALVES)


def test_a_named_file_of_another_target_is_refused() -> None:
    with pytest.raises(RequestError, match=r"target edge has no variant predict_fp32\.onnx"):
        asked("predict_fp32.onnx", target="edge")


def test_what_a_folder_lacks_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "joint_fp32.onnx").touch()
    for name in ("step_fp32.onnx", "joint_int8.onnx", "step_fp32_log_probs.onnx"):
        with pytest.raises(RequestError, match=f"has no variant {name}; it has .*joint_fp32"):
            asked(name, artifacts=tmp_path)


def test_parts_are_called_on_the_host_only() -> None:
    rows = (variant(HALVES[0]), variant(BOTH), variant("step_fp32.onnx"))
    assert cannot_run(HOST, rows) == {}
    elsewhere: Any = SimpleNamespace(name="browser", lacks=lambda _: "")
    found = cannot_run(elsewhere, rows)
    assert sorted(found) == sorted([HALVES[0], BOTH])
    assert all("on host only" in reason for reason in found.values())


def halves(folder: Path, **changes: Any) -> list[Path]:
    """Write two files that are no models, as halves of one step."""
    folder.mkdir()
    paths = [artifact(folder / name, name, name.encode()) for name in HALVES]
    for path, other in zip(paths, reversed(paths), strict=True):
        sidecar = read_sidecar(path)
        recipe = {OTHER_SHA256: sha256_of(other)}
        contract = contract_of(variant(path.name), SPEC)
        sidecar = replace(sidecar, recipe=recipe, contract=contract, **changes)
        sidecar_path(path).write_text(sidecar.to_json(), encoding="utf-8")
    return paths


def test_a_bundle_has_both_halves_of_one_export(tmp_path: Path) -> None:
    paths = halves(tmp_path / "one")
    for index in (0, 1):
        with pytest.raises(BundleError, match=rf"{HALVES[1 - index]}, is missing; add both files"):
            write_bundle(tmp_path / f"half{index}", [paths[index]])
    write_bundle(tmp_path / "whole", paths)
    other = halves(tmp_path / "two")
    other[1].write_bytes(b"another")
    sidecar = replace(read_sidecar_unchecked(other[1]), sha256=sha256_of(other[1]), size_bytes=7)
    sidecar_path(other[1]).write_text(sidecar.to_json(), encoding="utf-8")
    with pytest.raises(BundleError, match="is of another export; add both files"):
        write_bundle(tmp_path / "mixed", [paths[0], other[1]])


def read_sidecar_unchecked(path: Path) -> Any:
    from exportgate.artifacts.sidecar import _parse_sidecar

    return _parse_sidecar(sidecar_path(path))


def test_clients_are_told_how_the_parts_are_called(tmp_path: Path) -> None:
    encoder, both = (
        artifact(tmp_path / name, name) for name in ("encoder_int8.onnx", "step_split_fp32.pte")
    )
    paths = [encoder, both, *halves(tmp_path / "halves")]
    sidecars = {path.name: read_sidecar(path) for path in paths}
    document = json.loads(json.dumps(specification(sidecars, WORDS)))
    check_document(document, "decode.schema.json", "decode.json")
    files = document["files"]
    assert files["encoder_int8.onnx"]["step"] == HALVES[0]
    assert files[HALVES[0]]["other_half"] == HALVES[1]
    assert (files[HALVES[0]]["part"], files[HALVES[1]]["part"]) == ("predict", "joint")
    assert [spec["name"] for spec in files[BOTH]["methods"]["joint"]["inputs"]] == [
        "enc_t",
        "prediction",
    ]
    assert [name for name, item in files.items() if "scores" in item] == [HALVES[1], BOTH]
    assert pairs_of(files) == [("encoder_int8.onnx", HALVES[0])]
    assert "After a\nblank, call `joint` alone" in in_words(document)
    # A step in one piece comes first: clients of before take it.
    whole = artifact(tmp_path / "step_int8.onnx", "step_int8.onnx")
    files = specification({**sidecars, whole.name: read_sidecar(whole)}, WORDS)["files"]
    assert files["encoder_int8.onnx"]["step"] == HALVES[0]  # the one that it is judged with
    whole = artifact(tmp_path / "step_fp32.onnx", "step_fp32.onnx")
    document = specification({**sidecars, whole.name: read_sidecar(whole)}, WORDS)
    assert document["files"]["encoder_int8.onnx"]["step"] == "step_fp32.onnx"
    assert pairs_of(document["files"])[1:] == [("encoder_int8.onnx", HALVES[0])]


def test_a_bundle_without_parts_says_nothing_of_them(tmp_path: Path) -> None:
    path = artifact(tmp_path / "step_fp32.onnx", "step_fp32.onnx")
    document = specification({path.name: read_sidecar(path)}, WORDS)
    assert "apart" not in in_words(document)
    assert "part" not in document["files"][path.name]
