"""What runs in workers when a bad artifact is diagnosed: each stage of an export by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from exporters.quantize.calibration import calibration_from_manifest, synthetic_calibration
from exportgate.artifacts.sidecar import sha256_of
from exportgate.contract import Interface
from exportgate.errors import ExportGateError
from exportgate.runtime.split import held_part

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch.export import ExportedProgram

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.variants import Graph, Precision
    from exporters.xnnpack.to_pte import Prepared
    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.runtime.session import Arrays, Session
    from harness.measure.expected.rollout import Rollout

    Outputs = list[NDArray[np.float32]]

_PRODUCTS = {f"aten.{name}.default" for name in ("linear", "conv1d", "conv2d")}


class StagesError(ExportGateError, ValueError):
    """A stage cannot be made again."""


def fresh_onnx(
    checkpoint: Checkpoint,
    graph: Graph,
    max_trace_len: int,
    precision: Precision = "fp32",
    calibration: Sequence[NDArray[np.float32]] | None = None,
) -> bytes:
    """Export a graph of a checkpoint to ONNX, in the worker that holds it."""
    from exporters.ort import to_onnx  # noqa: PLC0415 - loads torch

    if graph == "step":
        return to_onnx.step_to_onnx(checkpoint, precision=precision).payload
    return to_onnx.encoder_to_onnx(
        checkpoint,
        precision=precision,
        calibration=calibration,
        max_trace_len=max_trace_len,
        flavour="standard",
    ).payload


def observed(
    artifact: Path, sidecar: Sidecar, path: Path | None
) -> tuple[NDArray[np.float32], ...] | None:
    """Return the features that a quantized file was calibrated with; None for other files.

    Raises:
        StagesError: They are not named, or are others.
    """
    used = sidecar.calibration
    if used is None:
        return None
    features = {
        "max_trace_len": used["max_trace_len"],
        "feature_dim": sidecar.model.feature_dim,
    }
    if used["source"] == "synthetic":
        return tuple(synthetic_calibration(swipes=used["swipes"], **features).features)
    if path is None or sha256_of(path) != used["sha256"]:
        msg = (
            f"{artifact}: name with --calibration the swipes that it was calibrated with (SHA-256 "
            f"{used['sha256'][:12]}…): it is quantized again to be compared"
        )
        raise StagesError(msg)
    return tuple(calibration_from_manifest(path, swipes=used["swipes"], **features).features)


@dataclass(frozen=True, slots=True)
class TracedPrograms:
    """What lies between the rewritten graph and a .pte; it stays in the worker that made it.

    Attributes:
        exported: As ``torch.export`` gives it, in FP32.
        quantized: What is lowered; the same program for FP32.
    """

    exported: ExportedProgram
    quantized: ExportedProgram


def trace_programs(
    checkpoint: Checkpoint, sidecar: Sidecar, calibration: Sequence[NDArray[np.float32]] | None
) -> TracedPrograms:
    """Make a .pte's programs again by its sidecar's recipe, short of lowering.

    Args:
        checkpoint: The model.
        sidecar: Of the file.
        calibration: (F, T) of the swipes that a quantized file was calibrated with.
    """
    from exporters.xnnpack import to_pte  # noqa: PLC0415 - loads torch

    precision = cast("Precision", sidecar.precision)
    quantizer = sidecar.recipe.get("quantization", "pt2e")
    exported = to_pte.trace(_prepared(checkpoint, sidecar, "fp32", None), quantizer)
    prepared = _prepared(checkpoint, sidecar, precision, calibration)
    return TracedPrograms(exported, to_pte.trace(prepared, quantizer))


def pte_weights(checkpoint: Checkpoint, sidecar: Sidecar) -> list[tuple[str, NDArray[np.float64]]]:
    """Return name and FP32 filter of each product and convolution that a .pte should hold.

    Returns:
        In the order of its graph; filters are (outputs, everything else).
    """
    from exporters.xnnpack import to_pte  # noqa: PLC0415 - loads torch

    prepared = _prepared(checkpoint, sidecar, "fp32", None)
    if not prepared.parts:
        return _products(to_pte.trace(prepared, "pt2e"), prepared.module)
    programs = to_pte.traced_methods(prepared, "eager")
    # A file holds its methods in the order of their names.
    return [
        (f"{part.name}.{layer}", filters)
        for method, part in sorted(prepared.parts.items())
        for layer, filters in _products(programs[method], part.module)
    ]


def _products(program: ExportedProgram, module: Any) -> list[tuple[str, NDArray[np.float64]]]:  # noqa: ANN401 - a module of torch
    """Return name and filter of each product of a traced module."""
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = dict([*module.named_parameters(), *module.named_buffers()])
    found = []
    for node in program.graph.nodes:
        if str(node.target) not in _PRODUCTS or node.args[1].name not in names:
            continue
        name = names[node.args[1].name]
        weight = tensors[name].detach().double().numpy()
        # Channels of the input come last in XNNPACK.
        rows = (np.moveaxis(weight, 1, -1) if weight.ndim > 2 else weight).reshape(len(weight), -1)
        # Filters of one value stand for a multiplication, those of one output for a mean.
        if len(rows) > 1:
            found.append((name.removesuffix(".weight"), rows))
    return found


def _prepared(
    checkpoint: Checkpoint,
    sidecar: Sidecar,
    precision: Precision,
    calibration: Sequence[NDArray[np.float32]] | None,
) -> Prepared:
    """Rewrite the graph of a .pte's sidecar as its exporter does."""
    from exporters.xnnpack import to_pte  # noqa: PLC0415 - loads torch
    from exporters.xnnpack.options import RewriteOptions  # noqa: PLC0415 - as above

    if sidecar.max_trace_len is None:
        called = Interface(part=held_part(sidecar))
        return to_pte.prepare_step(
            checkpoint, precision=precision, calibration=calibration, interface=called
        )
    return to_pte.prepare_encoder(
        checkpoint,
        precision=precision,
        calibration=calibration,
        max_trace_len=sidecar.max_trace_len,
        options=RewriteOptions(**sidecar.recipe["rewrite"]),
    )


def run_traced(programs: TracedPrograms, which: str, feeds: Sequence[Arrays]) -> Outputs:
    """Run one of the programs eagerly: ``exported`` or ``quantized``."""
    program: ExportedProgram = getattr(programs, which)
    return _run_eagerly(program.module(check_guards=False), feeds)


def rewritten(
    checkpoint: Checkpoint, suffix: str, feeds: Sequence[Arrays], max_trace_len: int
) -> Outputs:
    """Run the rewritten graph of a format eagerly, in the worker that holds the checkpoint."""
    from exporters.graphs.step import StepGraph  # noqa: PLC0415 - loads torch
    from exporters.ort.encoder_graph import OrtEncoder  # noqa: PLC0415 - loads torch
    from exporters.xnnpack.encoder_graph import rewrite_encoder  # noqa: PLC0415 - loads torch

    module: Any
    if "enc_t" in feeds[0]:
        module = StepGraph(checkpoint.model)
    elif suffix == ".onnx":
        module = OrtEncoder(checkpoint.model.encoder, max_trace_len=max_trace_len)
    else:
        module = rewrite_encoder(checkpoint.model.encoder, max_trace_len=max_trace_len)
    return _run_eagerly(module, feeds)


def _run_eagerly(module: Any, feeds: Sequence[Arrays]) -> Outputs:  # noqa: ANN401 - a module of torch
    """Return the encoder's valid frames, or the step's logits."""
    import torch  # noqa: PLC0415 - the parent process does without

    outputs = []
    with torch.no_grad():
        for feed in feeds:
            result = module(*(torch.from_numpy(value) for value in feed.values()))
            first = result[0]
            valid = int(result[1][0]) if "lengths" in feed else first.shape[-1]
            outputs.append(np.array(first[..., :valid], np.float32))
    return outputs


def run_all(opened: Session, feeds: Sequence[Arrays]) -> Outputs:
    """Run a file on single inputs; return the encoder's valid frames, or the step's logits."""
    outputs = []
    for feed in feeds:
        found = opened.run(feed)
        if "encoded_bdt" in found:
            valid = int(found["encoded_lengths"].reshape(-1)[0])
            outputs.append(np.array(found["encoded_bdt"][..., :valid]))
        else:
            outputs.append(np.array(found["logits"]))
    return outputs


def rollout_feeds(rollout: Rollout) -> list[dict[str, NDArray[Any]]]:
    """Return the step's inputs along a word, with NeMo's own states."""
    hidden = cell = np.zeros_like(rollout.h1[0][:, None])
    feeds = []
    for index, commit in enumerate(rollout.commit):
        feeds.append(
            {
                "y_prev": rollout.y_prev[index : index + 1],
                "h0": hidden,
                "c0": cell,
                "enc_t": rollout.enc_t[index : index + 1],
            }
        )
        if commit:
            hidden, cell = rollout.h1[index][:, None], rollout.c1[index][:, None]
    return feeds
