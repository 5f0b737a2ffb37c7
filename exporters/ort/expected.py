"""What the checkpoint says that an ONNX file must hold: see ``exporters.quantize.expected``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.graphs.step import StepGraph, part_graphs
from exporters.ort.encoder_graph import OrtEncoder
from exporters.ort.presented import present
from exporters.ort.qdq import MatrixConfig
from exporters.ort.to_onnx import (
    encoder_to_onnx,
    for_web,
    int8_graph,
    part_graph,
    quantised_matrices,
    step_graph,
)
from exporters.quantize.calibration import checked_features
from exporters.quantize.expected import ExpectedFile, Rounding
from exporters.quantize.gptq import S8_PAIRS
from exporters.quantize.hessians import matrix_layers, observe_hessians
from exporters.quantize.smoothing import observe, smooth
from exporters.quantize.static_config import GemmConfig, activation_grid, run_swipes
from exporters.quantize.step_calibration import observe_steps
from exporters.variants import contract_of, plain_name, variant
from exportgate.artifacts.sidecar import Program
from exportgate.contract import encoder_contract

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.recipes import Flavour
    from exporters.variants import Precision, Variant
    from exportgate.contract import ModelSpec, Part


def expected_encoder(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    flavour: Flavour,
    max_trace_len: int,
    calibration: Sequence[NDArray[np.float32]] | None,
    residual: Collection[str],
) -> ExpectedFile:
    """Return what an encoder must hold; arguments as those of ``encoder_to_onnx``.

    Args:
        checkpoint: The model.
        precision: Of the weights.
        flavour: How the graph is left.
        max_trace_len: The file's bound.
        calibration: For INT8, the swipes that the file was calibrated with.
        residual: For INT8, the layers whose inputs have a second code.
    """
    if precision != "int8":
        program = encoder_to_onnx(
            checkpoint,
            precision=precision,
            calibration=None,
            max_trace_len=max_trace_len,
            flavour=flavour,
        )
        return ExpectedFile(program.payload, {})
    spec = checkpoint.spec
    swipes = checked_features(calibration, spec.feature_dim, longest=max_trace_len)
    encoder = OrtEncoder(checkpoint.model.encoder, max_trace_len=max_trace_len)
    smoothed, ranges = smooth(encoder, observe(encoder, swipes))
    hessians = observe_hessians(smoothed.linears(), lambda: run_swipes(smoothed, swipes))
    roundings = {
        name: Rounding.of(layer, hessians.pop(name), S8_PAIRS) for name, layer in smoothed.linears()
    }
    configs = {}
    for name, rounding in roundings.items():
        nearest, second = rounding.nearest(), name in residual
        grid = activation_grid(ranges[name], residual=second)
        configs[name] = GemmConfig(nearest.codes, nearest.scales[:, 0], *grid, second)
    payload = int8_graph(smoothed, spec, configs).SerializeToString(deterministic=True)
    if flavour == "web":
        standard = Program(payload, encoder_contract(spec), precision, max_trace_len, {})
        payload = for_web(standard).payload
    return ExpectedFile(payload, roundings)


def expected_step(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[NDArray[np.float32]] | None,
    part: Part | None = None,
) -> ExpectedFile:
    """Return what a step must hold; arguments as those of ``step_to_onnx``."""
    step = StepGraph(checkpoint.model).eval()
    roundings, configs = {}, {}
    if precision == "int8":
        swipes = checked_features(calibration, checkpoint.spec.feature_dim)
        steps = observe_steps(checkpoint, step, swipes)
        residual = quantised_matrices(step, steps)
        hessians = observe_hessians(matrix_layers(step), lambda: step(*steps))
        roundings = {
            name: Rounding.of(layer, hessians.pop(name), S8_PAIRS)
            for name, layer in matrix_layers(step)
            if name in residual
        }
        for name, rounding in roundings.items():
            nearest = rounding.nearest()
            configs[name] = MatrixConfig(nearest.codes, nearest.scales[:, 0], residual[name])
    spec = checkpoint.spec
    model = part_graph(step, spec, configs, part) if part else step_graph(step, spec, configs)
    if part is not None:
        inside = f"{part_graphs(step, spec, batch=1)[part].name}."
        roundings = {
            name.removeprefix(inside): rounding
            for name, rounding in roundings.items()
            if name.startswith(inside)
        }
    return ExpectedFile(model.SerializeToString(deterministic=True), roundings)


def presented(spec: ModelSpec, plain: ExpectedFile, row: Variant) -> ExpectedFile:
    """Return what a file must hold that is called by another interface than ours."""
    if row.interface.part is not None:
        return plain  # made as it is called
    usual = contract_of(variant(plain_name(row)), spec)
    program = Program(plain.payload, usual, row.precision, None, {})
    return replace(plain, payload=present(program, contract_of(row, spec)).payload)
