"""Which half costs the words, and the page that shows it."""

from __future__ import annotations

from harness.diagnose.localize import Stage, half_sentence, matrix_lines, stage_lines
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
    layers = [LayerError("a<b", 12.0, 0.5, 3, 0.0, 0), LayerError("c", 200.0, 0.0, 0, 0.0, 0)]
    text = page("<name>", stages, layers, "first bad layer: a<b", MATRIX, half_sentence(MATRIX))
    for part in ("&lt;name&gt;", "&lt;file&gt;", "a&lt;b", "#c43", "#3a7", "encoder_int8 30.0%"):
        assert part in text
    fp32 = [LayerError("gate", 60.0, 0.05, 3, 0.0, 0)]
    assert "#c43" in page("", stages, fp32, "first bad layer: gate (60.0 dB", MATRIX, "")
    assert "equal" in stage_lines(stages)[1]
    assert "<b" not in text.replace("<body", "")
