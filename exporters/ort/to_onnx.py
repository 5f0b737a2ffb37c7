"""Checkpoint to ONNX programs for ONNX Runtime: the encoder and the decoding step."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime
import torch

from exporters.graphs.step import StepGraph, example_step_inputs, part_graphs
from exporters.ort.encoder_graph import OrtEncoder, OrtRewriteOptions
from exporters.ort.qdq import MatrixConfig, quantize_gemms, quantize_matrices
from exporters.ort.storage import store_fp16, store_gathered_int8, store_sliced_int8
from exporters.ort.trace import OPSET, OnnxExportError, trace_to_onnx
from exporters.quantize.calibration import checked_features
from exporters.quantize.gptq import S8_PAIRS, Gptq
from exporters.quantize.hessians import matrix_layers, observe_hessians
from exporters.quantize.smoothing import observe, smooth
from exporters.quantize.static_config import configure_gemms
from exporters.quantize.step_calibration import noisy_inputs, observe_steps
from exportgate.artifacts.sidecar import Program
from exportgate.contract import encoder_contract, part_contracts, step_contract
from exportgate.errors import check_supported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.quantize.static_config import GemmConfig
    from exporters.quantize.step_calibration import Steps
    from exporters.recipes import Flavour
    from exporters.variants import Precision
    from exportgate.contract import ModelSpec, Part

_EMBEDDING = "prediction.table.weight"
_SMALL_SHARE = 0.02
"""A noisy matrix with less than this share of a step's weights stays FP32, which costs less than a
second code. The joint's last is one, but for a small model or a large vocabulary."""


def encoder_to_onnx(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[NDArray[np.float32]] | None,
    max_trace_len: int,
    flavour: Flavour,
    options: OrtRewriteOptions | None = None,
) -> Program:
    """Export the encoder for any batch and any T up to a bound: see ``contract.encoder_contract``.

    FP16 is storage: weights are FP16, arithmetic is FP32, which accelerations of 1e6 overflow
    otherwise. INT8 is static, QDQ around every Gemm (``static_config``), the same on every machine.

    Args:
        checkpoint: Only read.
        precision: Of the weights.
        calibration: For INT8: (F, T) float32 features of swipes, T up to ``max_trace_len``.
        max_trace_len: Largest T; the runtime refuses a longer trace.
        flavour: ``standard`` has QDQ around each quantized Gemm; ``web`` starts sooner on a page.
        options: What to rewrite, but for INT8; everything by default.

    Raises:
        OnnxExportError: Another precision or flavour, a bound below 2, or INT8 with options.
        CalibrationError: INT8 without calibration, or calibration of another shape or not finite.
    """
    check_supported(
        OnnxExportError, "the precision of an ONNX encoder", precision, ("fp32", "fp16", "int8")
    )
    check_supported(OnnxExportError, "the flavour of an ONNX encoder", flavour, ("standard", "web"))
    if max_trace_len < 2:
        msg = f"max_trace_len is {max_trace_len}, but should be 2 or more"
        raise OnnxExportError(msg)
    if options is not None and precision == "int8":
        msg = (
            "INT8 quantises the layers of the whole rewrite; leave parts of it out in fp32 or fp16"
        )
        raise OnnxExportError(msg)
    encoder = OrtEncoder(checkpoint.model.encoder, max_trace_len=max_trace_len, options=options)
    recipe: dict[str, Any] = {"exporter": "torchscript", "opset": OPSET, "flavour": "standard"}
    if precision == "int8":
        swipes = checked_features(calibration, checkpoint.spec.feature_dim, longest=max_trace_len)
        model, quantization = _int8_encoder(encoder, checkpoint.spec, swipes)
        recipe |= quantization
    else:
        model = traced_encoder(encoder, checkpoint.spec)
    if precision == "fp16":
        model = store_fp16(model)
        recipe["storage"] = "fp16 weights, fp32 arithmetic"
    program = Program(
        payload=model.SerializeToString(deterministic=True),
        contract=encoder_contract(checkpoint.spec),
        precision=precision,
        max_trace_len=max_trace_len,
        recipe=recipe,
    )
    return for_web(program) if flavour == "web" else program


def for_web(program: Program) -> Program:
    """Return the web's flavour of a standard encoder."""
    return ort_optimized(replace(program, recipe={**program.recipe, "flavour": "web"}))


def step_to_onnx(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[NDArray[np.float32]] | None = None,
    part: Part | None = None,
) -> Program:
    """Export one decoding step for any batch: see ``contract.step_contract``.

    INT8 quantises matrices, activations per call. Written out, the LSTM is smaller and faster than
    ONNX's own operator: by 20 % in FP32, and in INT8 by 10 % against DynamicQuantizeLSTM.

    Args:
        checkpoint: Only read.
        precision: Of the weights, fp32 or int8.
        calibration: For INT8: (F, T) float32 features of swipes.
        part: ``predict`` or ``joint``: that part alone, see ``contract.part_contracts``.

    Raises:
        OnnxExportError: Another precision: INT8 is smaller than FP16 and loses no word.
        CalibrationError: INT8 without calibration, or calibration of another shape or not finite.
    """
    check_supported(OnnxExportError, "the precision of an ONNX step", precision, ("fp32", "int8"))
    step = StepGraph(checkpoint.model).eval()
    configs: Mapping[str, MatrixConfig] = {}
    recipe: dict[str, Any] = {"exporter": "torchscript", "opset": OPSET}
    if precision == "int8":
        swipes = checked_features(calibration, checkpoint.spec.feature_dim)
        configs = _matrix_configs(step, observe_steps(checkpoint, step, swipes))
        recipe |= {
            "quantization": "u8 activations per call, s8 weights per channel (GPTQ)",
            "residual_layers": sorted(name for name, config in configs.items() if config.residual),
        }
    spec = checkpoint.spec
    model = part_graph(step, spec, configs, part) if part else step_graph(step, spec, configs)
    return Program(
        payload=model.SerializeToString(deterministic=True),
        contract=part_contracts(spec)[part] if part else step_contract(spec),
        precision=precision,
        max_trace_len=None,
        recipe=recipe,
    )


def step_graph(
    step: StepGraph, spec: ModelSpec, configs: Mapping[str, MatrixConfig]
) -> onnx.ModelProto:
    """Return a step's graph with its matrices quantised as configured; in FP32 if none is."""
    model = trace_to_onnx(step, example_step_inputs(spec, batch=2), step_contract(spec))
    if not configs:
        return model
    model = quantize_matrices(model, configs)
    return model if step.prediction.folded else store_gathered_int8(model, _EMBEDDING)


def part_graph(
    step: StepGraph, spec: ModelSpec, configs: Mapping[str, MatrixConfig], part: Part
) -> onnx.ModelProto:
    """Return the graph of a step's part, its matrices quantised as those of the step are."""
    graph = part_graphs(step, spec, batch=2)[part]
    model = trace_to_onnx(graph.module, graph.inputs, part_contracts(spec)[part])
    inside = f"{graph.name}."
    mine = {
        name.removeprefix(inside): config
        for name, config in configs.items()
        if name.startswith(inside)
    }
    if mine:
        model = quantize_matrices(model, mine)
    if not configs or part == "joint" or step.prediction.folded:
        return model
    return store_gathered_int8(model, _EMBEDDING.removeprefix(inside))


def ort_optimized(program: Program) -> Program:
    """Return the program with ONNX Runtime's optimisations done ahead.

    They stop at EXTENDED: what comes after it (nchwc layouts) is for the machine at hand only.

    Args:
        program: An ``.onnx`` program.

    Raises:
        OnnxExportError: The optimised graph holds operators of this machine only.
    """
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    options.log_severity_level = 3
    # Folding constants would undo FP16 storage; the opening session folds them anyway.
    kept_apart = ["ConstantFolding"] if program.precision == "fp16" else []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(
            program.payload,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=kept_apart,
        )
        payload = _portable(path.read_bytes())
    recipe = {**program.recipe, "ort_optimization": "extended", "container": "onnx"}
    return replace(program, payload=payload, recipe=recipe)


def _portable(payload: bytes) -> bytes:
    """Check that no operator is for one machine only, and drop the imports that nothing uses."""
    model = onnx.load_from_string(payload)
    domains = {node.domain for node in model.graph.node}
    if special := domains - {"", "ai.onnx", "com.microsoft"}:
        msg = f"the optimised graph holds operators of {sorted(special)}: they run here only"
        raise OnnxExportError(msg)
    imports = [opset for opset in model.opset_import if opset.domain in domains]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    portable: bytes = model.SerializeToString(deterministic=True)
    return portable


def traced_encoder(encoder: OrtEncoder, spec: ModelSpec) -> onnx.ModelProto:
    """Return the encoder's graph in FP32, as its contract says."""
    frames = encoder.front_end.frame_numbers.numel()
    lengths = torch.tensor([frames, frames // 2])
    example = (torch.zeros(2, spec.feature_dim, frames), lengths)
    model = trace_to_onnx(encoder, example, encoder_contract(spec))
    for node in model.graph.node:
        if "features_bft" in node.input and node.op_type == "Where":
            # What a runtime names when a longer trace fails there.
            node.name = f"trace_longer_than_{frames}_points"
    return model


def int8_graph(
    smoothed: OrtEncoder, spec: ModelSpec, configs: Mapping[str, GemmConfig]
) -> onnx.ModelProto:
    """Return the graph of a smoothed encoder with its layers quantised as configured."""
    model = quantize_gemms(traced_encoder(smoothed, spec), configs)
    return store_sliced_int8(model, wanted=lambda name: name.endswith(".positions"))


def _int8_encoder(
    encoder: OrtEncoder, spec: ModelSpec, swipes: Sequence[NDArray[np.float32]]
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    smoothed, ranges = smooth(encoder, observe(encoder, swipes))
    configs = configure_gemms(smoothed, ranges, swipes)
    return int8_graph(smoothed, spec, configs), {
        "quantization": "static u8 activations, s8 weights per channel (GPTQ), float outputs",
        "swipes": len(swipes),
        "residual_layers": sorted(name for name, config in configs.items() if config.residual),
    }


def _matrix_configs(step: StepGraph, steps: Steps) -> dict[str, MatrixConfig]:
    residual = quantised_matrices(step, steps)
    hessians = observe_hessians(matrix_layers(step), lambda: step(*steps))
    configs = {}
    for name, layer in matrix_layers(step):
        if name in residual:
            weight = Gptq(hessians.pop(name)).round(layer.weight, S8_PAIRS)
            configs[name] = MatrixConfig(weight.codes, weight.scales[:, 0], residual[name])
    return configs


def quantised_matrices(step: StepGraph, steps: Steps) -> dict[str, bool]:
    """Return the matrices that are to be quantised, and whether their inputs get a second code."""
    layers = matrix_layers(step)
    small = _SMALL_SHARE * sum(layer.weight.numel() for _, layer in layers)
    noisy = noisy_inputs(step, steps)
    return {
        name: name in noisy
        for name, layer in layers
        if name not in noisy or layer.weight.numel() >= small
    }
