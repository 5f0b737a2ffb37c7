"""The table of files is consistent with itself, the exporters and the direction of imports."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from exporters import release, variants
from exporters.pipeline.making import check_recipe
from exporters.variants import (
    TARGETS,
    VARIANTS,
    Recipe,
    UnknownTargetError,
    UnknownVariantError,
    UnsupportedVariantError,
    Variant,
    decoding_step,
    variant,
    variants_of,
)
from exportgate.artifacts.sidecar import read_sidecar
from exportgate.resources import folder
from harness.gate.gates import read_gates
from tests import pages

if TYPE_CHECKING:
    from pathlib import Path


def test_names_are_unique_and_end_in_their_format() -> None:
    names = [row.name for row in VARIANTS]
    assert len(set(names)) == len(names)
    for row in VARIANTS:
        assert row.name.endswith(f".{row.format}")
        assert row.name.startswith(f"{row.graph}_{row.precision}")


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_every_row_has_an_exporter_a_target_and_a_baseline(row: Variant) -> None:
    assert importlib.util.find_spec(f"exporters.{row.exporter}") is not None
    assert row.targets
    assert set(row.targets) <= set(TARGETS)
    if row.precision == "fp32":
        assert row.baseline is None
    else:
        assert row.baseline is not None
        baseline = variant(row.baseline)
        assert (baseline.graph, baseline.format, baseline.precision) == (
            row.graph,
            row.format,
            "fp32",
        )


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_every_row_can_be_made_and_decoded(row: Variant) -> None:
    check_recipe(row)
    step = decoding_step(row)
    assert (step.graph, step.format) == ("step", row.format)
    if row.graph == "encoder":
        assert step.precision == "fp32"
    else:
        assert step is row


def test_every_target_ships_an_encoder_and_a_step() -> None:
    for target in TARGETS:
        assert {row.graph for row in variants_of(target)} == {"encoder", "step"}, target


def test_all_is_the_union() -> None:
    assert variants_of("all") == VARIANTS


def test_unknown_names_are_errors() -> None:
    with pytest.raises(UnknownTargetError, match="unknown target 'ios'; known: web-dev"):
        variants_of("ios")
    with pytest.raises(UnknownVariantError, match="unknown variant 'x'; known: encoder"):
        variant("x")


def test_an_encoder_names_its_step_and_a_step_none() -> None:
    for name, step in (("encoder_fp32.onnx", None), ("step_fp32.onnx", "step_int8.onnx")):
        with pytest.raises(UnsupportedVariantError, match="names the step that decodes it"):
            replace(variant(name), step=step)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("encoder_int8.onnx", {"precision": "int4"}, "precision .* 'int4', .*: fp32, fp16, int8$"),
        ("step_int8.onnx", {"precision": "fp16"}, "precision of a onnx step is 'fp16'"),
        ("step_int8.pte", {"precision": "int4"}, "precision of a pte step is 'int4'"),
        ("encoder_int4.pte", {"quantizer": "pt2e"}, "quantizer .* 'pt2e', .*: eager$"),
        ("encoder_int8.onnx", {"quantizer": "dynamic"}, "quantizer .* 'dynamic', .*: static$"),
        ("encoder_int8.onnx", {"quantizer": None}, "quantizer .* 'None'"),
        ("encoder_fp32.pte", {"quantizer": "eager"}, "quantizer .* 'eager', .*: None$"),
        ("encoder_fp32.pte", {"flavour": "web"}, "flavour .* 'web', .*: standard$"),
        ("step_fp32.onnx", {"flavour": "web"}, "flavour of a onnx step is 'web'"),
        ("step_int8.onnx", {"shares": "INT8 graph for ONNX Runtime"}, "intermediate .*: None$"),
        ("encoder_fp32.pte", {"shares": "integer weights for XNNPACK"}, "intermediate .*: None$"),
        ("encoder_fp32.pte", {"rewrite": (("no_such", 1),)}, "rewrite's switch .*: layer_norm, "),
        ("encoder_int8.onnx", {"rewrite": (("flat", False),)}, "rewrite's switch .* 'flat'"),
    ],
)
def test_what_nothing_makes_is_refused_by_name(
    name: str, changes: dict[str, object], message: str
) -> None:
    row = variant(name)
    precision = changes.pop("precision", row.precision)
    with pytest.raises(UnsupportedVariantError, match=f"{name}: the {message}"):
        check_recipe(replace(row, precision=precision, recipe=replace(row.recipe, **changes)))


GATES = folder("suites") / "gates.toml"

# --- example of a variant, in exporters/variants.py
ROW = Variant(
    name="encoder_fp16_web.onnx",
    exporter="release",
    graph="encoder",
    format="onnx",
    precision="fp16",
    targets=("web",),
    summary="Encoder for ONNX Runtime Web: weights stored in FP16",
    recipe=Recipe(cost=5, flavour="web", rewrite=(("fold_batch_norm", False),)),
    baseline="encoder_fp32.onnx",
    step="step_fp32.onnx",
)
# --- example of a variant, in suites/gates.toml
SECTION = """
["encoder_fp16_web.onnx"]
profiles = ["contract", "weights", "onnx", "encoder", "encoder-fp16", "decode-fp16", "words"]
"""
# --- example of a variant, in README.md
LINE = (
    "| `encoder_fp16_web.onnx` | `release` | web | "
    "Encoder for ONNX Runtime Web: weights stored in FP16 |"
)
# --- end of the example


@pytest.mark.slow
def test_a_new_variant_is_a_row_a_section_and_a_line(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = (*VARIANTS, ROW)
    monkeypatch.setattr(variants, "VARIANTS", rows)
    path = tmp_path / "gates.toml"
    path.write_text(GATES.read_text(encoding="utf-8") + SECTION, encoding="utf-8")
    gates = read_gates([path], ["checkpoint", *(row.name for row in rows)]).of(ROW.name)
    least = next(gate.limit for gate in gates if gate.metric == "sqnr_db")
    checkpoint = str(golden / "golden.nemo")
    args = ["--checkpoint", checkpoint, "--variant", ROW.name, "--out", str(tmp_path)]
    assert release.main(args) == 0
    sidecar = read_sidecar(tmp_path / ROW.name)
    assert (sidecar.variant, sidecar.precision) == (ROW.name, "fp16")
    assert sidecar.recipe["flavour"] == "web"
    assert sidecar.sqnr_db is not None
    assert sidecar.sqnr_db > least
    monkeypatch.setattr(pages, "VARIANTS", rows)
    assert LINE in pages.variants_table().splitlines()
