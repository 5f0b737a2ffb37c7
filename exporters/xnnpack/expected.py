"""The FP32 program whose constants a quantized .pte should hold, node by node.

``harness.inspect.pte_file.read_constants`` reads both in the order of their nodes; a quantized
file has the same matrices, convolutions, norms and tables, and nodes that convert between them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.xnnpack.to_pte import lowered_payload, prepare_encoder, prepare_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.xnnpack.options import RewriteOptions


def expected_program(
    checkpoint: Checkpoint,
    *,
    max_trace_len: int | None,
    calibration: Sequence[NDArray[np.float32]] | None = None,
    options: RewriteOptions | None = None,
) -> bytes:
    """Return a .pte in FP32 with the constants that the checkpoint says, as a file has them.

    Args:
        checkpoint: The model.
        max_trace_len: The file's bound; None for a step.
        calibration: For a quantized encoder, the (F, T) swipes that it was calibrated with: its
            front end's smoothing follows from them.
        options: What was rewritten; everything by default.
    """
    if max_trace_len is None:
        prepared = prepare_step(checkpoint, precision="fp32", calibration=None)
    else:
        prepared = prepare_encoder(
            checkpoint,
            precision="fp32" if calibration is None else "int8",
            calibration=calibration,
            max_trace_len=max_trace_len,
            options=options,
        )
    return lowered_payload(replace(prepared, precision="fp32", codes={}))
