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
