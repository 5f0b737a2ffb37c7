"""XNNPACK runs the graph, in few pieces; ExecuTorch's portable kernels only move shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("delegates", "undelegated_qdq_ops", "unexpected_fallback_ops")
def test_fallbacks(
    artifact: str,
    context: RunContext,
    record: Callable[..., None],
    gate_settings: Callable[[str, str], tuple[str, ...]],
) -> None:
    """What the file leaves outside delegates is on the list of what may be."""
    found = context.files.contents(artifact)
    allowed = gate_settings(artifact, "allowed_fallback_ops")
    unexpected = {op: count for op, count in found.ops.items() if op not in allowed}
    listing = ", ".join(f"{op} ×{count}" for op, count in sorted(unexpected.items()))
    if unexpected:
        listing = f"what XNNPACK lacks cuts the graph, rewrite it for XNNPACK: {listing}"
    record("delegates", found.delegates, listing)
    record("undelegated_qdq_ops", found.undelegated_qdq_ops)
    record("unexpected_fallback_ops", sum(unexpected.values()), listing)


@pytest.mark.measures("delegated_node_ratio", "delegated_compute_ratio", "delegated_mac_ratio")
def test_ratios(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The exporter's count of delegated nodes; it refers to the hashed file of the sidecar."""
    lowering = context.files.sidecar(artifact).lowering
    for metric, key in (
        ("delegated_node_ratio", "node_ratio"),
        ("delegated_compute_ratio", "compute_ratio"),
        ("delegated_mac_ratio", "mac_ratio"),
    ):
        if key in lowering:
            record(metric, lowering[key])
