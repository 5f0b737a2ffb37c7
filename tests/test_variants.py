"""The table of files is consistent with itself, the exporters and the direction of imports."""

from __future__ import annotations

import importlib.util

import pytest

from exporters.variants import (
    TARGETS,
    VARIANTS,
    UnknownTargetError,
    UnknownVariantError,
    variant,
    variants_of,
)


def test_names_are_unique_and_end_in_their_format() -> None:
    names = [row.name for row in VARIANTS]
    assert len(set(names)) == len(names)
    for row in VARIANTS:
        assert row.name.endswith(f".{row.format}")
        assert row.name.startswith(f"{row.graph}_{row.precision}")


@pytest.mark.parametrize("row", VARIANTS, ids=lambda row: row.name)
def test_every_row_has_an_exporter_a_target_and_a_baseline(row: object) -> None:
    assert importlib.util.find_spec(f"exporters.{row.exporter}") is not None
    assert row.targets
    assert set(row.targets) <= set(TARGETS)
    if row.precision == "fp32":
        assert row.baseline is None
    else:
        baseline = variant(row.baseline)
        assert (baseline.graph, baseline.format, baseline.precision) == (
            row.graph,
            row.format,
            "fp32",
        )


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
