"""Every constant of an ONNX file is compared with what the checkpoint says that it must be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from exporters.ort.expected import expected_encoder, expected_step, stored_constants
from exporters.ort.to_onnx import encoder_to_onnx, step_to_onnx
from exporters.xnnpack.expected import expected_program
from exporters.xnnpack.to_pte import encoder_to_pte
from harness.inspect.pte_file import read_constants
from tests.random_checkpoints import random_checkpoint, random_swipes, sqnr_db

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.variants import Precision

pytestmark = pytest.mark.slow

BOUND = 40
LEAST_DB = {"fp32": 300.0, "fp16": 60.0, "int8": 30.0}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_encoders_constants_are_the_checkpoints(precision: Precision) -> None:
    checkpoint, swipes = random_checkpoint(n_layers=2), random_swipes(5, BOUND)
    program = encoder_to_onnx(
        checkpoint,
        precision=precision,
        calibration=swipes,
        max_trace_len=BOUND,
        flavour="standard",
    )
    found = stored_constants(onnx.load_from_string(program.payload))
    expected = expected_encoder(
        checkpoint, max_trace_len=BOUND, calibration=swipes if precision == "int8" else None
    )
    assert set(expected) <= set(found)
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, name
        if wanted.any():
            assert sqnr_db(wanted, found[name]) >= LEAST_DB[precision], name
        else:
            assert not found[name].any(), name


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("labels", [5, 200])
def test_a_steps_constants_are_the_checkpoints(precision: Precision, labels: int) -> None:
    checkpoint = random_checkpoint(labels=labels, hidden=32, layers=2)
    program = step_to_onnx(checkpoint, precision=precision, calibration=random_swipes(5))
    found, expected = (
        stored_constants(onnx.load_from_string(program.payload)),
        expected_step(checkpoint),
    )
    assert set(expected) <= set(found)
    for name, wanted in expected.items():
        assert found[name].shape == wanted.shape, name
        if np.any(wanted):
            assert sqnr_db(wanted, found[name]) >= LEAST_DB[precision], name


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_programs_filters_and_biases_are_the_checkpoints(
    precision: Precision, tmp_path: Path
) -> None:
    checkpoint, swipes = random_checkpoint(), random_swipes(5, BOUND)
    program = encoder_to_pte(
        checkpoint,
        precision=precision,
        calibration=swipes,
        max_trace_len=BOUND,
        quantizer="eager",
    )
    (tmp_path / "a.pte").write_bytes(program.payload)
    (tmp_path / "b.pte").write_bytes(
        expected_program(checkpoint, max_trace_len=BOUND, calibration=swipes)
    )
    found, wanted = (
        [c for c in read_constants(tmp_path / name) if c.role in ("filter", "bias")]
        for name in ("a.pte", "b.pte")
    )
    assert [(c.node, c.role) for c in found] == [(c.node, c.role) for c in wanted]
    for got, expected in zip(found, wanted, strict=True):
        if expected.values.any():
            least = 300.0 if got.dtype == "float32" else {"int8": 30.0, "int4": 12.0}[precision]
            assert sqnr_db(expected.values, got.values) >= least, (got.node, got.role)
