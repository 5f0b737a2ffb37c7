"""Which half costs the words, and the page that shows it."""

from __future__ import annotations

import pytest

from harness.diagnose.localize import (
    Stage,
    bad_layers,
    half_sentence,
    matrix_lines,
    stage_lines,
)
from harness.diagnose.localize_page import page
from harness.measure.layers import LayerError

MATRIX = {
    "NeMo": {"NeMo": 0.9, "step_fp32": 0.9, "step_int8": 0.88},
    "encoder_fp32": {"step_fp32": 0.9, "step_int8": 0.88},
    "encoder_int8": {"step_fp32": 0.6, "step_int8": 0.58},
}


def test_the_half_that_costs_words_is_named_first() -> None:
    assert (
        half_sentence(MATRIX) == "words lost by a half itself: encoder_int8 30.0%, step_int8 2.0%"
    )


def test_halves_that_lose_nothing() -> None:
    assert half_sentence({"NeMo": {"NeMo": 0.9, "step_fp32": 0.9}}) == (
        "no half loses words by itself"
    )


def test_without_an_fp32_step_encoders_are_not_blamed() -> None:
    matrix = {"NeMo": {"NeMo": 0.9, "step_int8": 0.8}, "encoder_int8": {"step_int8": 0.1}}
    assert half_sentence(matrix) == "words lost by a half itself: step_int8 10.0%"


def test_a_cell_that_does_not_exist_is_empty() -> None:
    heading, nemo, fp32, _ = matrix_lines(MATRIX)
    assert heading.split() == ["words", "right", "NeMo", "step_fp32", "step_int8"]
    assert nemo.split() == ["NeMo", "0.900", "0.900", "0.880"]
    assert fp32.split() == ["encoder_fp32", "0.900", "0.880"]
    assert len(nemo) == len(fp32)


def test_the_page_shows_stages_layers_and_halves_and_escapes_names() -> None:
    stages = [Stage("NeMo, eager", 200.0, 200.0, "word"), Stage("<file>", 12.0, 12.0, "word")]
    layers = [
        LayerError("a<b", 12.0, 0.5, 50.0, 3, 0.0, 0.0, 0),
        LayerError("c", 200.0, 0.0, 0.0, 0, 0.0, 0.0, 0),
    ]
    bad = bad_layers(layers, "fp32")
    assert bad == {"a<b"}
    text = page("<name>", stages, layers, bad, "a sentence", MATRIX, half_sentence(MATRIX))
    for part in ("&lt;name&gt;", "&lt;file&gt;", "a&lt;b", "#c43", "#3a7", "encoder_int8 30.0%"):
        assert part in text
    assert "equal" in stage_lines(stages)[1]
    assert "<b" not in text.replace("<body", "")


@pytest.mark.parametrize(
    ("precision", "sqnr_db", "bad"),
    [
        ("fp32", 89.0, True), ("fp32", 91.0, False), ("int8", 29.0, True), ("int8", 31.0, False),
        ("int4", 25.0, False), ("int4", 9.0, True),
    ],
)  # fmt: skip
def test_a_bar_is_coloured_by_the_level_of_its_precision(
    precision: str, sqnr_db: float, bad: bool
) -> None:
    layer = LayerError("gate", sqnr_db, 0.0, 0.0, 0, 0.0, 0.0, 0)
    text = page("", [], [layer], bad_layers([layer], precision), "", MATRIX, "")
    assert ("#c43" in text) is bad
