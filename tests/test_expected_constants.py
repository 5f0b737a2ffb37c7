"""Every constant and node of a file is compared with what the checkpoint says that it must be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from exporters.ort import expected as ort
from exporters.ort.to_onnx import encoder_to_onnx, step_to_onnx
from exporters.quantize.expected import ExpectedFile, Rounding
from exporters.quantize.gptq import S4, S8, S8_PAIRS, Gptq
from exporters.variants import variant
from exporters.xnnpack import expected as xnnpack
from exporters.xnnpack.options import RewriteOptions
from exporters.xnnpack.to_pte import encoder_to_pte, step_to_pte
from exportgate.artifacts.contents.pte_file import read_structure
from exportgate.artifacts.sidecar import Sidecar, package_versions, sha256_of, sidecar_path
from exportgate.contract import step_contract
from harness.gate.gates import Gate
from harness.gate.plugin.book import waived
from harness.inspect.constants import (
    all_lines,
    onnx_findings,
    pte_findings,
    rounding_findings,
    tree_findings,
)
from harness.run.request import Request
from tests.random_checkpoints import random_checkpoint, random_swipes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.quantize.gptq import Codes

BOUND = 40
SWIPES = 5
OUT, IN = 6, 64


def rounded_layer(codes: Codes, group: int | None = None) -> tuple[Rounding, NDArray[np.float64]]:
    """Return how a layer must be rounded, and the real numbers of a file that rounded it so."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(OUT, IN, generator=generator)
    inputs = torch.randn(400, IN, generator=generator) @ torch.randn(IN, IN, generator=generator)
    hessian = inputs.double().T @ inputs.double()
    found = Gptq(hessian.clone()).round(weight, codes, group=group)
    steps = found.scales.astype(np.float64).repeat(IN // found.scales.shape[1], axis=1)
    return Rounding(weight, Gptq(hessian), codes, group), found.codes * steps


@pytest.mark.parametrize(("codes", "group"), [(S8, None), (S8_PAIRS, None), (S4, 32)])
def test_honest_roundings_are_right_though_far_from_the_nearest(
    codes: Codes, group: int | None
) -> None:
    rounding, real = rounded_layer(codes, group)
    assert rounding_findings("layer", rounding, real) == []
    steps = rounding.nearest().scales.repeat(IN // rounding.nearest().scales.shape[1], axis=1)
    assert (np.abs(real - rounding.weight.numpy()) > steps).any()


def _times(row: int, factor: float) -> Callable[[NDArray[np.float64], float], NDArray[np.float64]]:
    def change(real: NDArray[np.float64], _step: float) -> NDArray[np.float64]:
        real[row] *= factor
        return real

    return change


def _one_code_further(real: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    real[3, 5] += 2 * step
    return real


@pytest.mark.parametrize("codes", [S8, S8_PAIRS])
@pytest.mark.parametrize(
    "change",
    [
        _times(2, 1.01),
        _times(2, -1.0),
        _times(2, 0.0),
        _one_code_further,
        lambda real, _: real[::-1].copy(),
        lambda real, _: np.roll(real, 1, axis=1),
        lambda real, step: real + step,
        lambda real, _: real * np.nan,
    ],
)
def test_codes_that_are_no_rounding_of_the_weights(codes: Codes, change: Any) -> None:
    rounding, real = rounded_layer(codes)
    step = float(rounding.nearest().scales[3, 0])
    assert rounding_findings("layer", rounding, change(real, step))


@pytest.mark.parametrize(
    ("found", "lines"),
    [
        ({"a": [1.0, {"b": 2}]}, 0),
        ({"a": [1.0 + 1e-6, {"b": 2}]}, 0),
        ({"a": [1.01, {"b": 2}]}, 1),
        ({"a": [1.0, {"b": 3}]}, 1),
        ({"a": [1.0]}, 1),
        ({"a": [1.0, {}], "c": 0}, 2),
    ],
)
def test_trees_of_values(found: Any, lines: int) -> None:
    assert len(tree_findings(found, {"a": [1.0, {"b": 2}]})) == lines


def test_many_findings_are_counted() -> None:
    assert all_lines(["a", "b", "c"], most=2) == "a; b; and 1 more"
    assert all_lines(["a"], most=2) == "a"


@cache
def made(kind: str) -> tuple[bytes, ExpectedFile]:
    """Return a file of random weights, and what it must hold."""
    graph, precision = kind.split("_")
    swipes = random_swipes(SWIPES, BOUND)
    checkpoint = random_checkpoint(labels=200 if graph == "wide-step" else 6, hidden=32)
    common: dict[str, Any] = {"precision": precision, "calibration": swipes}
    if graph != "encoder":
        program = step_to_onnx(checkpoint, **common)
        return program.payload, ort.expected_step(checkpoint, **common)
    common |= {"max_trace_len": BOUND, "flavour": "web" if precision == "int8" else "standard"}
    program = encoder_to_onnx(checkpoint, **common)
    residual = program.recipe.get("residual_layers", [])
    return program.payload, ort.expected_encoder(checkpoint, **common, residual=residual)


KINDS = ["encoder_fp32", "encoder_fp16", "encoder_int8", "step_fp32", "step_int8", "wide-step_int8"]


def changed(payload: bytes, change: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(payload)
    change(model)
    after: bytes = model.SerializeToString()
    return after


def multiplied(place: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    """Return what multiplies the first number of a constant whose name ends so."""

    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name.endswith(place))
        value = numpy_helper.to_array(tensor).copy()
        place_of_largest = np.unravel_index(int(np.abs(value).argmax()), value.shape)
        value[place_of_largest] = value[place_of_largest] * factor
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    return change


def exchanged(first: str, second: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        by_name = {t.name: t for t in model.graph.initializer}
        a, b = by_name[first].raw_data, by_name[second].raw_data
        by_name[first].raw_data, by_name[second].raw_data = b, a

    return change


def without_last_node(model: onnx.ModelProto) -> None:
    model.graph.node[-1].op_type = "Identity"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_files_of_ours_are_what_the_checkpoint_says(kind: str, tmp_path: Path) -> None:
    payload, expected = made(kind)
    (tmp_path / "a.onnx").write_bytes(payload)
    assert onnx_findings(tmp_path / "a.onnx", expected) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("encoder_fp32", multiplied("ff1_in.weight", 1.01)),
        ("encoder_fp32", multiplied("norm_out.bias", 1.01)),
        ("encoder_fp32", without_last_node),
        ("encoder_fp16", multiplied("ff1_in.weight.fp16", 1.019)),
        ("encoder_int8", multiplied("norm_out.weight", 1.01)),
        ("encoder_int8", multiplied("ff1_in.bias.codes", 0.99)),
        ("encoder_int8", multiplied("ff2_out.weight.scale", 1.01)),
        ("encoder_int8", multiplied("ff2_out.first.step", 1.01)),
        ("encoder_int8", multiplied("positions.codes", 0.9)),
        (
            "encoder_int8",
            exchanged("blocks.0.ff1_in.weight.scale", "blocks.0.ff2_in.weight.scale"),
        ),
        ("step_fp32", multiplied("table.weight", 1.01)),
        ("step_int8", multiplied("joint.enc.bias", 1.01)),
        ("step_int8", multiplied("joint.enc.codes", 0.9)),
        ("step_int8", multiplied("joint.enc.shares", 1.01)),
        ("wide-step_int8", multiplied("table.weight.step", 1.01)),
    ],
)
def test_one_number_or_node_that_is_off(kind: str, change: Any, tmp_path: Path) -> None:
    payload, expected = made(kind)
    (tmp_path / "a.onnx").write_bytes(changed(payload, change))
    assert 1 <= len(onnx_findings(tmp_path / "a.onnx", expected)) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_programs_of_ours_are_what_the_checkpoint_says(precision: Any, tmp_path: Path) -> None:
    checkpoint, swipes = random_checkpoint(d_model=64), random_swipes(SWIPES, BOUND)
    common: dict[str, Any] = {
        "precision": precision,
        "calibration": swipes,
        "max_trace_len": BOUND,
        "quantizer": "pt2e" if precision == "int8" else "eager",
    }
    program = encoder_to_pte(checkpoint, **common)
    expected = xnnpack.expected_encoder(checkpoint, **common, options=RewriteOptions())
    assert pte_findings(*written(tmp_path, program.payload, expected), expected) == []


@pytest.mark.slow
def test_a_byte_of_a_program_that_is_off(tmp_path: Path) -> None:
    checkpoint, swipes = random_checkpoint(), random_swipes(SWIPES)
    program = step_to_pte(checkpoint, precision="int8", calibration=swipes)
    expected = xnnpack.expected_step(checkpoint, precision="int8", calibration=swipes)
    path, beside = written(tmp_path, program.payload, expected)
    assert pte_findings(path, beside, expected) == []
    bias = checkpoint.model.joint.enc.bias.detach().numpy().tobytes()
    at = program.payload.index(bias)
    louder = (np.frombuffer(bias, "<f4") * np.float32(1.01)).tobytes()
    path.write_bytes(program.payload[:at] + louder + program.payload[at + len(bias) :])
    (finding,) = pte_findings(path, beside, expected)
    assert "bias of XNNFullyConnected" in finding
    assert read_structure(path) == read_structure(beside)


@pytest.mark.parametrize(
    ("versions", "calibration", "given", "reason"),
    [
        ({}, None, False, ""),
        ({}, {"source": "synthetic", "sha256": "0"}, False, ""),
        ({}, {"source": "manifest", "file": "c.jsonl", "sha256": "same"}, True, ""),
        ({}, {"source": "manifest", "file": "c.jsonl", "sha256": "same"}, False, "c.jsonl, with"),
        ({}, {"source": "manifest", "file": "c.jsonl", "sha256": "other"}, True, "c.jsonl, with"),
        ({"torch": "1.0"}, None, False, "made with torch 1.0: export it again"),
    ],
)
def test_a_file_is_compared_if_what_made_it_is_at_hand(
    versions: dict[str, str], calibration: Any, given: bool, reason: str, tmp_path: Path
) -> None:
    swipes = tmp_path / "swipes.jsonl"
    swipes.write_text("{}", encoding="utf-8")
    if calibration and calibration["sha256"] == "same":
        calibration = {**calibration, "sha256": sha256_of(swipes)}
    path = tmp_path / "step_int8.onnx"
    path.write_bytes(b"file")
    spec = random_checkpoint().spec
    sidecar = Sidecar(
        variant=path.name,
        precision="int8",
        sha256=sha256_of(path),
        size_bytes=4,
        checkpoint_sha256="0",
        model=spec,
        blank_id=spec.blank_id,
        contract=step_contract(spec),
        max_trace_len=None,
        feature_spec={},
        calibration=calibration,
        recipe={},
        versions=package_versions() | versions,
    )
    sidecar_path(path).write_text(sidecar.to_json(), encoding="utf-8")
    request = Request(
        checkpoint=tmp_path / "a.nemo",
        manifest=tmp_path / "m.jsonl",
        calibration=swipes if given else None,
        variants=(variant(path.name),),
        artifacts=tmp_path,
        workdir=tmp_path,
        max_trace_len=200,
    )
    gate = Gate(path.name, "constant_mismatches", "max", 0)
    found = [v.detail for v in waived([gate], request).values()]
    assert [reason in detail for detail in found] == ([True] if reason else [])
    fresh = waived([gate], replace(request, artifacts=None))
    assert not fresh


def written(folder: Path, payload: bytes, expected: ExpectedFile) -> tuple[Path, Path]:
    (folder / "a.pte").write_bytes(payload)
    (folder / "b.pte").write_bytes(expected.payload)
    return folder / "a.pte", folder / "b.pte"
