"""An INT8 file is INT8 inside, an FP32 file is FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

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
