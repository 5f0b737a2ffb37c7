"""From a checkpoint to ExecuTorch programs for XNNPACK: rewrite, quantize, lower."""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, export

from exporters.graphs.step import (
    LogProbs,
    StepGraph,
    example_step_inputs,
    part_graphs,
)
from exporters.quantize.calibration import checked_features
from exporters.quantize.gptq import EncoderPlan
from exporters.quantize.hessians import matrix_layers, observe_hessians
from exporters.quantize.step_calibration import observe_steps
from exporters.variants import is_quantized
from exporters.xnnpack.delegation import lower
from exporters.xnnpack.encoder_graph import XnnpackEncoder, rewrite_encoder
from exporters.xnnpack.options import RewriteOptions
from exporters.xnnpack.time_axis import LoweringError, TimeAxis
from exportgate.artifacts.sidecar import Program
from exportgate.contract import METHODS, OURS, encoder_contract, part_contracts, step_contract
from exportgate.errors import check_supported

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import ModuleType

    import numpy as np

    from exporters.graphs.step import PartGraph
    from exporters.nemo.checkpoint import Checkpoint
    from exporters.quantize.gptq import MatrixCodes
    from exporters.recipes import MixedRecipe, Quantizer
    from exporters.variants import Precision
    from exportgate.contract import Interface, Part

_PRECISIONS = ("fp32", "fp16", "int8", "int4")
_QUANTIZERS = ("pt2e", "eager")
METHOD = "forward"
"""Of a program that is one graph."""


def encoder_to_pte(  # noqa: PLR0913 - each is a choice of its own
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[np.ndarray] | None,
    max_trace_len: int,
    quantizer: Quantizer = "pt2e",
    options: RewriteOptions | None = None,
    plan: EncoderPlan | None = None,
    skip_passes: bool = True,
    interface: Interface = OURS,
) -> Program:
    """Export the encoder for XNNPACK: batch 1, any T from 1 to the bound.

    Args:
        checkpoint: The model; it is not changed.
        precision: ``int8`` quantizes the weights of all linears per channel and their inputs at
            each call, ``int4`` the weights to 4 bits; ``fp16`` keeps the front end's
            convolutions in FP32.
        calibration: Features of real swipes, each (F, T) float32, for INT8 and INT4.
        max_trace_len: Largest T.
        quantizer: ``pt2e`` or ``eager``; only ``eager`` makes INT4.
        options: What to rewrite; everything by default.
        plan: From ``plan_encoder`` or ``plan_mixed``, same arguments; by default the first.
        skip_passes: Lower without passes that change nothing (``pass_skipping``).
        interface: How it is called.

    Raises:
        LoweringError: Another precision or quantizer, INT4 is asked of PT2E, or the program does
            not take every T.
        CalibrationError: INT8 without calibration, or calibration of another shape or not finite.
        UnsupportedEncoderError: The encoder has a part that cannot be rewritten.
    """
    check_supported(LoweringError, "the precision of a .pte encoder", precision, _PRECISIONS)
    check_supported(LoweringError, "the quantizer of a .pte encoder", quantizer, _QUANTIZERS)
    if precision == "int4" and quantizer == "pt2e":
        msg = "PT2E gives INT8, and a file named INT4 would hold it; quantize INT4 with eager"
        raise LoweringError(msg)
    prepared = prepare_encoder(
        checkpoint,
        precision=precision,
        calibration=calibration,
        max_trace_len=max_trace_len,
        options=options,
        plan=plan,
        interface=interface,
    )
    payload, lowering, recipe = _made(prepared, quantizer, skip_passes=skip_passes)
    return Program(
        payload=payload,
        contract=encoder_contract(checkpoint.spec, batch=1, interface=interface),
        precision=precision,
        max_trace_len=max_trace_len,
        recipe=recipe,
        lowering=lowering,
    )


def step_to_pte(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[np.ndarray] | None = None,
    skip_passes: bool = True,
    interface: Interface = OURS,
) -> Program:
    """Export one decoding step for XNNPACK; as ours are called, batch 1 and raw logits.

    Args:
        checkpoint: The model; it is not changed.
        precision: ``fp32``, or ``int8``: weights per channel, inputs at each call.
        calibration: Features of real swipes, each (F, T) float32, for INT8.
        skip_passes: Lower without passes that change nothing (``pass_skipping``).
        interface: How it is called.

    Raises:
        LoweringError: Another precision.
        CalibrationError: INT8 without calibration, or calibration of another shape or not finite.
        UnsupportedDecoderError: The decoder or the joint is of another kind.
    """
    check_supported(LoweringError, "the precision of a .pte step", precision, ("fp32", "int8"))
    prepared = prepare_step(
        checkpoint, precision=precision, calibration=calibration, interface=interface
    )
    payload, lowering, recipe = _made(prepared, "eager", skip_passes=skip_passes)
    if interface.part is not None:
        parts = part_contracts(checkpoint.spec, batch=1)
        recipe |= {METHODS: {name: contract.to_json() for name, contract in parts.items()}}
    return Program(
        payload=payload,
        contract=step_contract(checkpoint.spec, batch=interface.step_batch, interface=interface),
        precision=precision,
        max_trace_len=None,
        recipe=recipe,
        lowering=lowering,
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A rewritten graph in FP32, with what its precision needs to be traced.

    Attributes:
        module: Smoothed, where it is to be quantized.
        precision: Of the weights, once it is traced.
        inputs: To trace with.
        time_axis: The encoder's; None for a step.
        codes: Integers of the weights by layer; empty where nothing is quantized.
        recipe: What was done to it.
        log_probs: Log-softmax follows the first output.
        parts: Of a step whose parts are methods of their own, those.
    """

    module: nn.Module
    precision: Precision
    inputs: tuple[Tensor, ...]
    time_axis: TimeAxis | None
    codes: Mapping[str, MatrixCodes]
    recipe: dict[str, Any]
    log_probs: bool = False
    parts: Mapping[Part, PartGraph] = field(default_factory=dict)


def plan_encoder(
    checkpoint: Checkpoint,
    precisions: Collection[Precision],
    *,
    calibration: Sequence[np.ndarray] | None,
    max_trace_len: int,
    options: RewriteOptions | None = None,
) -> EncoderPlan:
    """Observe the swipes and decide on integer weights for these precisions, INT8, INT4 or both.

    Both cost little more than one. The other arguments are those of ``encoder_to_pte``.

    Raises:
        LoweringError: Another precision.
    """
    for precision in precisions:
        check_supported(LoweringError, "the precision to plan", precision, ("int8", "int4"))
    encoder = rewrite_encoder(
        checkpoint.model.encoder, max_trace_len=max_trace_len, options=options
    )
    swipes = checked_features(calibration, encoder.front.feature_dim, longest=max_trace_len)
    with quiet_and_reproducible():
        plan: EncoderPlan = quantization().plan_encoder(encoder, swipes, precisions)
    return plan


def plan_mixed(
    checkpoint: Checkpoint,
    mixed: MixedRecipe,
    precision: Precision,
    *,
    calibration: Sequence[np.ndarray] | None,
    max_trace_len: int,
    options: RewriteOptions | None = None,
) -> EncoderPlan:
    """Decide on the integers of a recipe, for a file of this precision's name.

    The other arguments are those of ``encoder_to_pte``, whose quantizer is ``eager`` then.

    Raises:
        RecipeError: It is another encoder's.
    """
    encoder = rewrite_encoder(
        checkpoint.model.encoder, max_trace_len=max_trace_len, options=options
    )
    swipes = checked_features(calibration, encoder.front.feature_dim, longest=max_trace_len)
    with quiet_and_reproducible():
        smoothing, codes = quantization().plan_mixed(encoder, swipes, mixed)
    return EncoderPlan(smoothing, {precision: codes}, mixed)


def prepare_encoder(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[np.ndarray] | None,
    max_trace_len: int,
    options: RewriteOptions | None = None,
    plan: EncoderPlan | None = None,
    interface: Interface = OURS,
) -> Prepared:
    """Rewrite the encoder; arguments as those of ``encoder_to_pte``."""
    options = options or RewriteOptions()
    encoder = rewrite_encoder(
        checkpoint.model.encoder, max_trace_len=max_trace_len, options=options
    )
    recipe: dict[str, Any] = {"rewrite": options.to_json()}
    codes: Mapping[str, MatrixCodes] = {}
    if is_quantized(precision):
        plan = plan or plan_encoder(
            checkpoint,
            [precision],
            calibration=calibration,
            max_trace_len=max_trace_len,
            options=options,
        )
        quantize = quantization()
        quantize.smooth_front_end(encoder, plan.smoothing)
        codes = plan.codes[precision]
        alike = {"smoothing_alpha": quantize.SMOOTHING_ALPHA}
        recipe |= plan.mixed.to_json() if plan.mixed else alike
    return Prepared(
        module=encoder,
        precision=precision,
        inputs=_example_encoder_inputs(encoder.front.feature_dim, max_trace_len, interface),
        time_axis=TimeAxis(max_trace_len, encoder.front.factor),
        codes=codes,
        recipe=recipe,
    )


def prepare_step(
    checkpoint: Checkpoint,
    *,
    precision: Precision,
    calibration: Sequence[np.ndarray] | None,
    interface: Interface = OURS,
) -> Prepared:
    """Rewrite the step and observe the swipes; arguments as those of ``step_to_pte``."""
    step = StepGraph(checkpoint.model).eval()
    codes: Mapping[str, MatrixCodes] = {}
    if is_quantized(precision):
        swipes = checked_features(calibration, checkpoint.spec.feature_dim)
        steps = observe_steps(checkpoint, step, swipes)
        hessians = observe_hessians(matrix_layers(step), lambda: step(*steps))
        codes = quantization().round_layers(step, hessians, [precision])[precision]
    spec = checkpoint.spec
    return Prepared(
        module=step,
        precision=precision,
        inputs=example_step_inputs(spec, batch=interface.step_batch),
        time_axis=None,
        codes=codes,
        recipe={"fold_embedding": step.prediction.folded},
        log_probs=interface.log_probs,
        parts=part_graphs(step, spec, batch=1) if interface.part else {},
    )


def trace(prepared: Prepared, quantizer: Quantizer) -> ExportedProgram:
    """Quantize a prepared graph or put it into FP16, in place; return what is lowered."""
    module, precision = prepared.module, prepared.precision
    with quiet_and_reproducible():
        if precision == "fp16" and isinstance(module, XnnpackEncoder):
            module.to_fp16()
        if is_quantized(precision) and quantizer == "eager":
            quantization().quantize_layers(module, prepared.codes)
        module = LogProbs(module) if prepared.log_probs else module
        exported = _export(module, prepared.inputs, prepared.time_axis)
        if is_quantized(precision) and quantizer == "pt2e":
            converted = quantization().quantize_by_pt2e(exported, prepared.inputs, prepared.codes)
            exported = _export(converted, prepared.inputs, prepared.time_axis)
    return exported


def traced_methods(prepared: Prepared, quantizer: Quantizer) -> dict[str, ExportedProgram]:
    """Return what is lowered, by the method's name."""
    if not prepared.parts:
        return {METHOD: trace(prepared, quantizer)}
    with quiet_and_reproducible():
        if is_quantized(prepared.precision):
            quantization().quantize_layers(prepared.module, prepared.codes)
        return {
            name: _export(part.module, part.inputs, None) for name, part in prepared.parts.items()
        }


def _made(
    prepared: Prepared, quantizer: Quantizer, *, skip_passes: bool
) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """Return the .pte's bytes, what was counted while lowering it, and its recipe."""
    recipe = dict(prepared.recipe)
    if prepared.precision == "fp16":
        recipe |= {"fp32_parts": ["front.convolutions", "positions"]}
    if is_quantized(prepared.precision):
        recipe |= {"quantization": quantizer}
    exported = traced_methods(prepared, quantizer)
    with quiet_and_reproducible():
        payload, lowering = lower(exported, prepared.time_axis, skip_passes=skip_passes)
    return payload, lowering, recipe


def lowered_payload(prepared: Prepared, quantizer: Quantizer = "eager") -> bytes:
    """Return the .pte's bytes of a prepared graph."""
    return _made(prepared, quantizer, skip_passes=True)[0]


def quantization() -> ModuleType:
    """Import late and quietly: torchao writes to the terminal when it is imported."""
    with quiet_and_reproducible():
        from exporters.xnnpack import quantize  # noqa: PLC0415

    return quantize


def _export(
    module: nn.Module, inputs: tuple[Tensor, ...], time_axis: TimeAxis | None
) -> ExportedProgram:
    shapes = time_axis.dynamic_shapes() if time_axis else None
    with torch.no_grad():
        exported = export(module, inputs, dynamic_shapes=shapes, strict=False)
    if time_axis:
        time_axis.check(exported, "torch.export")
    return exported


def _example_encoder_inputs(
    feature_dim: int, frames: int, interface: Interface
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn((1, feature_dim, frames), generator=generator)
    return features, torch.tensor([frames], dtype=getattr(torch, interface.lengths_dtype))


@contextlib.contextmanager
def quiet_and_reproducible() -> Iterator[None]:
    """Lower without the tools' chatter, and without what depends on the machine.

    oneDNN's availability guards shapes while lowering, which can narrow the range of T.
    """
    logging.disable(logging.WARNING)
    enabled, *_ = torch.backends.mkldnn.set_flags(_enabled=False)  # type: ignore[no-untyped-call]  # torch has no types for it
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)  # type: ignore[no-untyped-call]  # as above
        logging.disable(logging.NOTSET)
