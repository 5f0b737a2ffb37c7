"""What a checkpoint says that each constant of an ONNX file must be, and what it is in a file.

Both sides are real numbers under the FP32 graph's names, so that they can be compared one by one:
``expected_encoder`` and ``expected_step`` from the checkpoint, ``stored_constants`` from the bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from exporters.graphs.step import StepGraph, example_step_inputs
from exporters.ort.encoder_graph import OrtEncoder
from exporters.ort.to_onnx import traced_encoder
from exporters.ort.trace import trace_to_onnx
from exporters.quantize.smoothing import observe, smooth
from exportgate.contract import step_contract

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint

    Constants = dict[str, NDArray[np.float64]]

_PRODUCTS = ("Gemm", "MatMul")


def expected_encoder(
    checkpoint: Checkpoint,
    *,
    max_trace_len: int,
    calibration: Sequence[NDArray[np.float32]] | None = None,
) -> Constants:
    """Return every constant of the encoder's graph in FP32, by name, in float64.

    Args:
        checkpoint: The model.
        max_trace_len: The file's bound.
        calibration: For an INT8 file, the (F, T) swipes that it was calibrated with: smoothing
            follows from them, and moves factors between norms and matrices.
    """
    encoder = OrtEncoder(checkpoint.model.encoder, max_trace_len=max_trace_len)
    if calibration is not None:
        encoder, _ = smooth(encoder, observe(encoder, calibration))
    return stored_constants(traced_encoder(encoder, checkpoint.spec))


def expected_step(checkpoint: Checkpoint) -> Constants:
    """Return every constant of the step's graph in FP32, by name, in float64."""
    contract = step_contract(checkpoint.spec)
    example = example_step_inputs(checkpoint.spec, batch=2)
    return stored_constants(trace_to_onnx(StepGraph(checkpoint.model).eval(), example, contract))


def stored_constants(model: onnx.ModelProto) -> Constants:
    """Return the real numbers that a file of any precision holds, by the FP32 graph's names.

    Matrices are (out, in) and are named ``LAYER.weight``, also where the graph multiplies with the
    transposed one. What only quantization knows (steps and zero points of activations) keeps its
    own name.

    Args:
        model: FP32, FP16 storage or INT8, as ``to_onnx`` writes it; of the web's flavour those
            constants that the optimiser did not rename.
    """
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    constants = {
        name: array.astype(np.float64) for name, array in found.items() if not _is_part(name, found)
    }
    for name in found:
        constants |= _dequantized(name, found)
    for node in model.graph.node:
        layer = node.name.removesuffix(".biased")
        if layer != node.name:  # added to products before they get their output's share
            constants[f"{layer}.bias"] *= found[f"{layer}.shares"]
    return _with_layer_names(model, constants)


def _is_part(name: str, found: Mapping[str, NDArray[np.generic]]) -> bool:
    """Tell whether a constant is a part of a quantised one: codes, their steps, an exponent."""
    base, _, part = name.rpartition(".")
    of_codes = ("codes", "scale", "zero_point", "shares", "step")
    if part in of_codes:
        return f"{base}.codes" in found
    return part in ("fp16", "unscale") and f"{base}.fp16" in found


def _dequantized(name: str, found: Mapping[str, NDArray[np.generic]]) -> Constants:
    """Return the constants that a table of codes, or of FP16 numbers, stands for."""
    base, _, part = name.rpartition(".")

    def real(what: str) -> NDArray[np.float64]:
        return found[f"{base}.{what}"].astype(np.float64)

    if part == "fp16":
        factor = real("unscale") if f"{base}.unscale" in found else 1.0
        return {base: real("fp16") * factor}
    if part != "codes":
        return {}
    if f"{base}.shares" in found:  # a matrix of a step: one step for all, a share for each output
        shares = real("shares")
        return {f"{base}.weight": real("codes").T * real("scale") * shares[:, None]}
    if f"{base}.step" in found:  # a table to look up
        return {base: real("codes") * real("step")}
    axes = (-1, *[1] * (found[name].ndim - 1))
    return {base: (real("codes") - real("zero_point").reshape(axes)) * real("scale").reshape(axes)}


def _with_layer_names(model: onnx.ModelProto, constants: Constants) -> Constants:
    """Name the matrices that the exporter transposed ahead, and so lost the names of."""
    for node in model.graph.node:
        layer = re.sub(r"/(Gemm|MatMul)$", "", node.name).strip("/").replace("/", ".")
        if node.op_type in _PRODUCTS and len(node.input) > 1 and "::" in node.input[1]:
            matrix = constants.pop(node.input[1], None)
            if matrix is not None:
                constants[f"{layer}.weight"] = matrix.T
    return constants
