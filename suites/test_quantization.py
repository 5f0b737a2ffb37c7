"""An INT8 file is INT8 inside, an FP32 file is FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporters.variants import other_half, variant
from exportgate.artifacts.contents.reading import stored_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.context import RunContext


@pytest.mark.measures("int8_weight_share", "quantize_ops", "dequantize_ops")
def test_weights(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """The weights in the file have the precision that its name promises."""
    found = context.files.contents(artifact)
    detail = ", ".join(f"{size} bytes of {name}" for name, size in found.weight_bytes.items())
    record("int8_weight_share", found.int8_weight_share, detail)
    record("quantize_ops", found.quantize_ops)
    record("dequantize_ops", found.dequantize_ops)


@pytest.mark.measures("clip_noise_ratio")
def test_clipping(artifact: str, context: RunContext, record: Callable[..., None]) -> None:
    """Static ranges hold what real swipes reach."""
    found = context.layers.clipping(artifact)
    if not found:
        record("clip_noise_ratio", 0.0, "no static quantizer in the file")
        return
    worst = max(found, key=lambda quantizer: quantizer.noise_ratio)
    detail = f"{worst.name}: up to {worst.largest:.1f} steps beyond its range"
    record("clip_noise_ratio", worst.noise_ratio, detail)


@pytest.mark.measures("int8_matrix_share", "int4_weight_share", "weight_bytes_ratio")
def test_matrices(
    artifact: str,
    context: RunContext,
    record: Callable[..., None],
    show: Callable[..., None],
) -> None:
    """Every matrix has the precision of the file's name, and none is stored wider or twice."""
    found, row = context.files.contents(artifact), variant(artifact)
    show("weight_bytes", [{"type": n, "bytes": count} for n, count in found.weight_bytes.items()])
    detail = ", ".join(f"{count} weights of {name}" for name, count in found.matrix_weights.items())
    record("int8_matrix_share", found.int8_matrix_share, detail or "no matrix in the file")
    record("int4_weight_share", found.int4_weight_share, detail or "no matrix in the file")
    held = row.interface.part if other_half(row) and row.interface.part else row.graph
    needed = stored_bytes(context.nemo.reference().matrix_weights[held], row.precision)
    detail = f"{found.matrix_bytes:.0f} bytes, the checkpoint's in {row.precision} {needed:.0f}"
    record("weight_bytes_ratio", found.matrix_bytes / needed, detail)
