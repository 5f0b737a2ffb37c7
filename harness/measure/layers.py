"""Compare two ONNX files of one graph layer by layer, at the matrix products that both have.

Behind the last layer an error of one channel drowns in the rounding of all others: in an INT8 file
a scale that is 5 % off costs 0.1 dB there. At the layer that makes it, it stands out. Of a .pte
nothing but the weights can be compared.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.contents.pte_file import read_weights
from exportgate.decibel import EQUAL_DB, ratio_db
from exportgate.errors import ExportGateError
from exportgate.levels import level
from exportgate.runtime.onnx_runtime import open_model
from exportgate.runtime.session import OpenError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays

_PRODUCTS = ("Gemm", "MatMul", "Conv")
# Smoothing moves a scale from the values to the projection behind the attention: the last third of
# the fused query, key and value is in other units by design.
_FUSED_QKV = "qkv"
_SMOOTHED = "front.out"
_SILENT = 1e-30
"""Power below which a channel gives nothing."""


class LayersError(ExportGateError, ValueError):
    """Two files have no layer in common, or a layer gives another number of channels."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """How far a layer's output, or its weights, are from the FP32 file's.

    Attributes:
        name: The value's name in the graph.
        sqnr_db: Signal to noise over all channels, in dB.
        gain_error: |Σ ref·out ÷ Σ ref² − 1| of the channel where it is most above what rounding
            explains: a scale that is off.
        gain_excess: That ÷ what rounding explains there.
        gain_channel: Which channel that is.
        shift: |mean error| ÷ root mean square of a channel, likewise: a zero point that is off.
        shift_excess: That ÷ what rounding explains there.
        shift_channel: Which channel that is.
    """

    name: str
    sqnr_db: float
    gain_error: float
    gain_excess: float
    gain_channel: int
    shift: float
    shift_excess: float
    shift_channel: int


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding may do to a channel.

    A rounded value is off by half a step at most, √3 times the noise of rounding, and by as much in
    the mean over a channel that hardly moves. Weights are each rounded once, so that their errors
    cancel in a channel's gain: its standard deviation is noise ÷ √weights; six are allowed.
    GPTQ may lean a channel's roundings one way, where its inputs do not notice: less than the whole
    step (√12 times the noise) of a zero point that is off by one.

    Attributes:
        relative: What a format's own roundings of constants move every value of a channel by.
        independent: Whether values are weights.
    """

    relative: float
    independent: bool

    @classmethod
    def of_values(cls, precision: str) -> Rounding:
        """Return what a layer's output may be off by."""
        return cls(level("layer_rounding", precision), independent=False)

    @classmethod
    def of_weights(cls, precision: str) -> Rounding:
        """Return what a layer's weights may be off by."""
        return cls(level("weight_rounding", precision), independent=True)


def layer_errors(
    candidate: Path,
    baseline: Path,
    precision: str,
    feeds: Sequence[Arrays],
    baseline_feeds: Sequence[Arrays] | None = None,
) -> tuple[list[LayerError], list[str]]:
    """Run two files on the same inputs and compare every product that both have by name.

    Args:
        candidate: An ONNX file.
        baseline: The FP32 file of the same graph.
        precision: The candidate's.
        feeds: Inputs of single runs.
        baseline_feeds: The same for the baseline, where it has other names for them.

    Returns:
        Errors in the baseline's order, and names of the baseline's layers that the candidate lacks.

    Raises:
        LayersError: No layer in common, or another number of channels.
        OpenError: ONNX Runtime does not load a file.
    """
    wanted = product_outputs(baseline)
    computed = set(all_outputs(candidate))
    rectified = _rectified_outputs(baseline)
    # Optimised ahead, a convolution and its ReLU are one node: they are compared behind it.
    value = {name: name if name in computed else rectified.get(name, name) for name in wanted}
    shared = [name for name in wanted if value[name] in computed]
    if not shared:
        msg = f"{candidate}: no layer has the name of one in {baseline.name}: not the same graph"
        raise LayersError(msg)
    values = [value[name] for name in shared]
    reference = run_with_outputs(baseline, values, baseline_feeds or feeds)
    found = run_with_outputs(candidate, values, feeds)
    errors = [
        layer_error(
            name,
            _channels_last(name, wanted[name], reference[value[name]]),
            _channels_last(name, wanted[name], found[value[name]]),
            Rounding.of_values(precision),
        )
        for name in shared
    ]
    return errors, [name for name in wanted if name not in shared]


def product_outputs(path: Path) -> dict[str, str]:
    """Return the outputs of a file's products and convolutions with the operator, in order."""
    graph = _load(path).graph
    constants = {tensor.name for tensor in graph.initializer}
    return {
        node.output[0]: node.op_type
        for node in graph.node
        if node.op_type in _PRODUCTS and any(name in constants for name in node.input)
    }


def _rectified_outputs(path: Path) -> dict[str, str]:
    """Return the ReLU's output for each value that nothing but a ReLU reads."""
    graph = _load(path).graph
    readers = Counter(name for node in graph.node for name in node.input)
    return {
        node.input[0]: node.output[0]
        for node in graph.node
        if node.op_type == "Relu" and readers[node.input[0]] == 1
    }


def all_outputs(path: Path) -> list[str]:
    """Return every value that a file computes."""
    return [name for node in _load(path).graph.node for name in node.output]


def run_with_outputs(
    path: Path, names: Sequence[str], feeds: Sequence[Arrays]
) -> dict[str, list[NDArray[Any]]]:
    """Run a file with inner values added to its outputs; return them for each run.

    Raises:
        OpenError: ONNX Runtime does not load the file.
    """
    import onnx  # noqa: PLC0415 - only diagnosis pays for it

    model = _load(path)
    declared = {value.name for value in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in declared
    )
    try:
        session = open_model(model.SerializeToString())
    except OpenError as error:
        msg = f"{path}: with its inner values as outputs, {error}"
        raise OpenError(msg) from error
    values: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for feed in feeds:
        for name, value in zip(names, session.run(list(names), dict(feed)), strict=True):
            values[name].append(value)
    return values


def first_bad(layers: Sequence[LayerError], precision: str) -> LayerError | None:
    """Return the first layer whose signal to noise falls below what its precision gives.

    It lies well below every layer before it and below the level of a healthy file, or has a channel
    whose scale or zero point is off (INT8), which the decibels of the whole layer hide.
    """
    least, drop = level("healthy_layer_db", precision), level("bad_layer_drop_db")
    for layer in layers:
        if layer.sqnr_db < least - drop:
            return layer
        if layer.gain_excess > 1 or layer.shift_excess > 1:
            return layer
        least = min(least, layer.sqnr_db)
    return None


def is_healthy(sqnr_db: float, precision: str) -> bool:
    """Whether a file's output is what its precision gives, when no layer of it is bad."""
    return sqnr_db > level("healthy_layer_db", precision) - level("bad_layer_drop_db")


def weight_errors(
    candidate: Path,
    reference: Sequence[tuple[str, NDArray[np.float64]]],
    *,
    smoothed: bool,
    precision: str,
) -> list[LayerError]:
    """Compare the weights in a .pte with those that it should hold, in the order of the graph.

    ExecuTorch shows no inner value (its wheel lacks the event tracer), but a layer that went wrong
    in quantizing or lowering, or was damaged since, has other weights.

    Args:
        candidate: A .pte.
        reference: Name and filter, (outputs, everything else), of each product and convolution.
        smoothed: Whether quantizing divided what the front end's linear reads, channel by channel,
            and multiplied its weights: this is undone.
        precision: The file's.

    Raises:
        LayersError: The file has other layers.
        PteFileError: It cannot be read.
    """
    stored = [weight.astype(np.float64) for _, weight in read_weights(candidate) if len(weight) > 1]
    if [w.shape for w in stored] != [w.shape for _, w in reference]:
        msg = f"{candidate}: {len(stored)} layers, which are not the checkpoint's {len(reference)}"
        raise LayersError(msg)
    rounding = Rounding.of_weights(precision)
    errors = []
    for (name, exact), found in zip(reference, stored, strict=True):
        wanted = _smoothed_like(exact, found) if smoothed and name == _SMOOTHED else exact
        errors.append(layer_error(name, wanted.T, found.T, rounding))
    return errors


def _smoothed_like(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale each input's weights by the factor that fits the other ones best."""
    factors: NDArray[np.float64] = (a * b).sum(axis=0) / np.maximum((a**2).sum(axis=0), 1e-30)
    return a * factors


def sentence(bad: LayerError | None) -> str:
    """Say in words which layer is the first bad one."""
    if bad is None:
        return "no layer differs from a fresh export's: the fault is in the export itself"
    return (
        f"first bad layer: {bad.name} ({bad.sqnr_db:.1f} dB; channel {bad.gain_channel} is off by "
        f"a factor of {bad.gain_error:.2g}, channel {bad.shift_channel} by {bad.shift:.2g} of its "
        f"RMS: {bad.gain_excess:.2g} and {bad.shift_excess:.2g} times what rounding explains)"
    )


def _load(path: Path) -> Any:  # noqa: ANN401 - onnx has no types
    import onnx  # noqa: PLC0415

    return onnx.load(str(path))


def layer_error(
    name: str, a: NDArray[np.float64], b: NDArray[np.float64], rounding: Rounding
) -> LayerError:
    """Compare what a layer gives, or its weights, channel by channel.

    Args:
        name: The layer's.
        a: (samples, channels) of the reference.
        b: The same of the file.
        rounding: What is no fault.

    Raises:
        LayersError: The shapes differ.
    """
    if a.shape != b.shape:
        msg = f"{name}: shape {b.shape}, but in the FP32 file {a.shape}"
        raise LayersError(msg)
    error = b - a
    if not np.isfinite(error).all():
        infinite = float("inf")
        return LayerError(name, -EQUAL_DB, infinite, infinite, 0, infinite, infinite, 0)
    power = (a**2).mean(axis=0)
    rms = np.sqrt(np.maximum(power, _SILENT))
    gain = np.abs((a * error).mean(axis=0)) / rms**2
    shift = np.abs(error.mean(axis=0)) / rms
    noise = _noise(a, error, weights=rounding.independent) / rms
    gain_spread = 6.0 / np.sqrt(len(a)) if rounding.independent else np.sqrt(3.0)
    shift_spread = np.sqrt(6.0 if rounding.independent else 3.0)
    gain_excess = gain / (rounding.relative + gain_spread * noise)
    shift_excess = shift / (rounding.relative + shift_spread * noise)
    worst, shifted = int(gain_excess.argmax()), int(shift_excess.argmax())
    return LayerError(
        name,
        float(ratio_db(float(power.sum()), float((error**2).mean(axis=0).sum()))),
        float(gain[worst]),
        float(gain_excess[worst]),
        worst,
        float(shift[shifted]),
        float(shift_excess[shifted]),
        shifted,
    )


def _noise(
    a: NDArray[np.float64], error: NDArray[np.float64], *, weights: bool
) -> NDArray[np.float64]:
    """Return the RMS of what is left of each channel's error beside its gain and its shift.

    A fault of one channel thus adds nothing to what excuses it. A channel has at least the noise
    that the layer has on average: one that hardly moves may be rounded away whole. Of weights,
    whose channels have steps of their own, it is the median beside a channel's largest weight.
    """
    moving, rest = a - a.mean(axis=0), error - error.mean(axis=0)
    rest -= (moving * rest).sum(axis=0) / np.maximum((moving**2).sum(axis=0), _SILENT) * moving
    power: NDArray[np.float64] = (rest**2).sum(axis=0) / max(1, len(a) - 2)
    least = np.full_like(power, power.mean())
    if weights:
        largest = np.maximum((a**2).max(axis=0), _SILENT)
        least = np.median(power / largest) * largest
    return np.asarray(np.sqrt(np.maximum(power, least)))


def _channels_last(name: str, op: str, values: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """Stack runs as (samples, channels): a product has channels last, a convolution second."""
    rows = []
    for value in values:
        moved = np.moveaxis(value, 1, -1) if op == "Conv" else value
        rows.append(moved.reshape(-1, moved.shape[-1]).astype(np.float64))
    stacked = np.concatenate(rows)
    return stacked[:, : stacked.shape[1] * 2 // 3] if _FUSED_QKV in name else stacked
