"""Bytes that a user downloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.evidence import Evidence


@pytest.mark.measures("size_bytes", "deflated_bytes", "size_ratio")
def test_size(subject: str, evidence: Evidence, record: Callable[..., None]) -> None:
    """Raw and deflated size, and the raw size beside the FP32 file's."""
    size = evidence.sidecar(subject).size_bytes
    record("size_bytes", size)
    record("deflated_bytes", evidence.deflated_bytes(subject))
    baseline = variant(subject).baseline
    if baseline is not None:
        other = evidence.sidecar(baseline).size_bytes
        record("size_ratio", size / other, f"{size / 1e6:.3f} MB, {baseline} {other / 1e6:.3f} MB")


@pytest.mark.measures("int8_mac_share", "macs", "weight_bytes", "nodes", "planned_memory_bytes")
def test_cost(subject: str, evidence: Evidence, record: Callable[..., None]) -> None:
    """Multiply-accumulates, weights and nodes, counted and not timed."""
    found = evidence.cost(subject)
    by_type = ", ".join(f"{count} with {name}" for name, count in found.macs.items())
    record("int8_mac_share", found.int8_mac_share, by_type)
    record("macs", sum(found.macs.values()), by_type)
    by_type = ", ".join(f"{count} of {name}" for name, count in found.weight_bytes.items())
    record("weight_bytes", sum(found.weight_bytes.values()), by_type)
    record("nodes", found.nodes, f"{found.subgraphs} delegates")
    if found.planned_memory_bytes is not None:
        record("planned_memory_bytes", found.planned_memory_bytes)
