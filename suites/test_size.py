"""Bytes that a user downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("size_ratio")
def test_size(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Size beside the FP32 file's."""
    size, baseline = context.files.sidecar(artifact).size_bytes, variant(artifact).baseline
    assert baseline is not None, f"{artifact} has no FP32 file to be compared with"
    other = context.files.sidecar(baseline).size_bytes
    record("size_ratio", size / other, f"{size / 1e6:.3f} MB, {baseline} {other / 1e6:.3f} MB")


@pytest.mark.measures("int8_mac_share", "int8_compute_share")
def test_arithmetic(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """In which type the products are computed: not every file has a gate on it."""
    found = context.files.cost(artifact)
    by_type = ", ".join(f"{count} with {name}" for name, count in found.macs.items())
    record("int8_mac_share", found.int8_mac_share, by_type)
    computed = ", ".join(f"{count} weights in {k}" for k, count in found.matrix_arithmetic.items())
    record("int8_compute_share", found.int8_compute_share, computed or "no matrix in the file")


@pytest.mark.measures(
    "macs", "weight_bytes", "nodes", "planned_memory_bytes", "size_bytes", "deflated_bytes",
    "brotli_bytes",
)  # fmt: skip
def test_cost(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Bytes, multiply-accumulates, weights and nodes of every file, counted and not timed."""
    record("size_bytes", context.files.sidecar(artifact).size_bytes)
    record("deflated_bytes", context.files.deflated_bytes(artifact))
    if (downloaded := context.files.brotli_bytes(artifact)) is not None:
        record("brotli_bytes", downloaded)
    found = context.files.cost(artifact)
    by_type = ", ".join(f"{count} with {name}" for name, count in found.macs.items())
    record("macs", sum(found.macs.values()), by_type)
    by_type = ", ".join(f"{count} of {name}" for name, count in found.weight_bytes.items())
    record("weight_bytes", sum(found.weight_bytes.values()), by_type)
    record("nodes", found.nodes, f"{found.subgraphs} delegates")
    if found.planned_memory_bytes is not None:
        record("planned_memory_bytes", found.planned_memory_bytes)
