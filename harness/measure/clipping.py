"""What static quantizers clip: values of real swipes beyond the range that calibration saw.

Rounding costs step² ÷ 12 for each value. A value beyond the range is moved to its end, which may be
far: a SiLU's output has no bound, and calibration on few or other swipes does not see how far it
reaches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.runtime.onnx_runtime import open_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays


@dataclass(frozen=True, slots=True)
class StaticQuantizer:
    """A QuantizeLinear with a constant scale, on values that the graph computes.

    Attributes:
        name: What it gives.
        source: The value that it quantizes.
        step: Scale: one, or one for each index of the axis.
        low: Smallest value that it represents, likewise.
        high: Largest.
        axis: Which axis that is.
    """

    name: str
    source: str
    step: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    axis: int


@dataclass(frozen=True, slots=True)
class Clipping:
    """What a quantizer did over all inputs.

    Attributes:
        name: The quantizer's.
        clip_noise: Σ (distance beyond the range)² of values that are farther out than half a step.
        rounding_noise: Σ step² ÷ 12 of all values.
        largest: Largest distance beyond the range, in steps.
    """

    name: str
    clip_noise: float
    rounding_noise: float
    largest: float

    @property
    def noise_ratio(self) -> float:
        """Noise of clipping ÷ noise of rounding."""
        return self.clip_noise / max(self.rounding_noise, 1e-300)


def clipping(path: Path, feeds: Sequence[Arrays]) -> list[Clipping]:
    """Run an ONNX file and compare what each static quantizer clips with what it rounds.

    Args:
        path: The file.
        feeds: Inputs of single runs, one at a time in memory.

    Returns:
        One for each static quantizer; none where all are dynamic.

    Raises:
        OpenError: ONNX Runtime does not load it with its inner values as outputs.
    """
    import onnx  # noqa: PLC0415 - only ONNX files pay for it

    model = onnx.load(str(path))
    quantizers = list(static_quantizers(model))
    if not quantizers:
        return []
    sources = list(dict.fromkeys(quantizer.source for quantizer in quantizers))
    declared = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in sources if name not in declared
    )
    session = open_model(model.SerializeToString())
    sums = np.zeros((len(quantizers), 3))
    for feed in feeds:
        values = dict(zip(sources, session.run(sources, dict(feed)), strict=True))
        for row, quantizer in zip(sums, quantizers, strict=True):
            clipped, rounded, largest = _noise(values[quantizer.source], quantizer)
            row[:] = row[0] + clipped, row[1] + rounded, max(row[2], largest)
    return [
        Clipping(quantizer.name, *map(float, row))
        for quantizer, row in zip(quantizers, sums, strict=True)
    ]


def static_quantizers(model: Any) -> Iterator[StaticQuantizer]:  # noqa: ANN401 - onnx has no types
    """Yield the quantizers of computed values whose scale is a constant."""
    from onnx import numpy_helper  # noqa: PLC0415 - as above

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        given = [numpy_helper.to_array(constants[n]) for n in node.input[1:] if n in constants]
        if len(given) != len(node.input) - 1:
            continue
        zero = given[1] if len(given) > 1 else np.zeros(1, np.uint8)
        if zero.dtype.kind not in "iu":
            continue
        codes, step = np.iinfo(zero.dtype), given[0].astype(np.float64)
        low, high = ((end - zero.astype(np.float64)) * step for end in (codes.min, codes.max))
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        yield StaticQuantizer(node.output[0], node.input[0], step, low, high, axis)


def _noise(values: NDArray[np.float32], quantizer: StaticQuantizer) -> tuple[float, float, float]:
    exact = values.astype(np.float64)
    shape = [1] * exact.ndim
    if quantizer.step.size > 1:
        shape[quantizer.axis] = -1
    step, low, high = (
        end.reshape(shape) for end in (quantizer.step, quantizer.low, quantizer.high)
    )
    beyond = np.abs(exact - np.clip(exact, low, high))
    far = np.where(beyond > step / 2, beyond, 0.0)
    rounding = float(np.broadcast_to(step**2 / 12, exact.shape).sum())
    return float((far**2).sum()), rounding, float((far / step).max(initial=0.0))
