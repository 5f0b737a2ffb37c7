"""Propose a ``contract.toml`` for somebody else's files, from the shapes that they declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.third_party.contract_file import SCHEMA
from harness.third_party.folder import ThirdPartyError, models_of, not_judged
from harness.third_party.layouts import described

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.contract import IoContract, ModelSpec, TensorSpec

_JOIN_THEM = (
    "the gate judges both as one step; export them together, as NeMo's model.export() does "
    "(decoder_joint-*.onnx), or as python -m exporters.export_rnnt_step does. Without them a fresh "
    "step of the checkpoint decodes"
)


def guess(folder: Path, spec: ModelSpec) -> str:
    """Propose a ``contract.toml`` for the files of a folder, and say what to check.

    A file that is neither half of this model is a comment that says why.

    Raises:
        ThirdPartyError: There is no file to judge.
    """
    paths = models_of(folder)
    others = not_judged(folder, [path.name for path in paths])
    sections, comments = [], [f"# {line}" for line in others]
    for path in paths:
        raw, precision = described(path)
        reason = cannot_be(raw, spec)
        if reason is None:
            sections += ["", *_section(path, raw, precision, spec)]
        else:
            comments.append(f"# {path.name}: {reason}")
    if not sections:
        found = "; ".join(line.removeprefix("# ") for line in comments) or "it has no such files"
        msg = f"{folder}: no .onnx and no .pte file that can be judged; there is nothing to judge: "
        raise ThirdPartyError(msg + found)
    head = [f"schema = {SCHEMA}", f"blank = {spec.blank_id}  # the symbol that your decoder skips"]
    return "\n".join([*head, *comments, *sections]) + "\n"


def cannot_be(raw: IoContract, spec: ModelSpec) -> str | None:
    """Say why a file is neither the encoder nor the step of a model; None if it can be one.

    Args:
        raw: What the file declares; a dynamic axis is a name.
        spec: The model.
    """
    if _is_encoder(raw, spec):
        return None
    labels = [tensor for tensor in raw.inputs if _is_integer(tensor)]
    takes_frames = _with_axis(raw.inputs, spec.d_model)
    gives_logits = _with_axis(raw.outputs, spec.vocab_size)
    if labels and takes_frames and gives_logits:
        return None
    if labels and not gives_logits and _with_axis(raw.outputs, spec.pred_hidden):
        return f"the prediction network without the joint; {_JOIN_THEM}"
    if not labels and gives_logits and len(raw.inputs) >= 2:
        return f"the joint without the prediction network; {_JOIN_THEM}"
    return (
        f"neither the encoder nor the step of this checkpoint: it takes {_shapes(raw.inputs)} and "
        f"gives {_shapes(raw.outputs)}, but the encoder takes {spec.feature_dim} features and "
        f"gives {spec.d_model} channels, and the step takes a label and {spec.d_model} channels "
        f"and gives {spec.vocab_size} logits"
    )


def _is_encoder(raw: IoContract, spec: ModelSpec) -> bool:
    takes = any(len(t.shape) == 3 and spec.feature_dim in t.shape for t in raw.inputs)
    gives = [tensor for tensor in raw.outputs if len(tensor.shape) == 3]
    # A dynamic axis may be the channels: an exporter need not have fixed it.
    fits = [t for t in gives if spec.d_model in t.shape or all(_open(a) for a in t.shape[1:])]
    return takes and bool(fits)


def _with_axis(tensors: Sequence[TensorSpec], size: int) -> bool:
    """Tell whether a tensor of numbers has an axis of a size, or only axes that are left open."""
    floats = [tensor for tensor in tensors if not _is_integer(tensor)]
    return any(
        size in tensor.shape or (tensor.shape and all(map(_open, tensor.shape)))
        for tensor in floats
    )


def _open(axis: int | str | None) -> bool:
    return not isinstance(axis, int)


def _is_integer(tensor: TensorSpec) -> bool:
    return str(tensor.dtype).startswith("int")


def _shapes(tensors: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{tensor.name} {_shape(tensor)}" for tensor in tensors) or "nothing"


def _shape(tensor: TensorSpec) -> str:
    return f"({', '.join(str(axis) for axis in tensor.shape)})"


def _section(path: Path, raw: IoContract, precision: str, spec: ModelSpec) -> list[str]:
    is_encoder = _is_encoder(raw, spec)
    rows = _encoder_rows(raw, spec) if is_encoder else _step_rows(raw, spec)
    # A file is judged as what its name promises, whatever is inside.
    precision = next((p for p in ("int8", "fp16", "fp32") if p in path.name.lower()), precision)
    graph = "encoder" if is_encoder else "step"
    return [
        f'[files."{path.name}"]',
        f'graph = "{graph}"',
        f'precision = "{precision}"  # of the weights: fp32, fp16 or int8',
        *rows,
    ]


def _encoder_rows(raw: IoContract, spec: ModelSpec) -> list[str]:
    rows = []
    for tensor in raw.inputs:
        if len(tensor.shape) == 3:
            axes = "BFT" if tensor.shape[1] == spec.feature_dim else "BTF"
            rows.append(_line("inputs", tensor, "features_bft", axes))
        else:
            rows.append(_line("inputs", tensor, "lengths", "B"))
    for tensor in raw.outputs:
        if len(tensor.shape) == 3:
            axes = "BTD" if tensor.shape[2] == spec.d_model else "BDT"
            rows.append(_line("outputs", tensor, "encoded_bdt", axes))
        else:
            rows.append(_line("outputs", tensor, "encoded_lengths", "B"))
    return rows


def _step_rows(raw: IoContract, spec: ModelSpec) -> list[str]:
    rows, roles = [], ["h0", "c0"]
    labels = [tensor for tensor in raw.inputs if _is_integer(tensor)]
    frames = _frames_of([tensor for tensor in raw.inputs if tensor not in labels], spec)
    for tensor in raw.inputs:
        if tensor in labels[1:]:
            rows.append(f'inputs."{tensor.name}" = {{ constant = 1, axes = "B" }}')
        elif tensor in labels:
            rows.append(_line("inputs", tensor, "y_prev", "B" + "1" * (len(tensor.shape) - 1)))
        elif tensor == frames or not roles:
            rows.append(_line("inputs", tensor, "enc_t", "BD" + "1" * (len(tensor.shape) - 2)))
        else:
            rows.append(_line("inputs", tensor, roles.pop(0), "LBH"))
    states = ["h1", "c1"]
    logits = next(t for t in raw.outputs if not _is_integer(t))
    for tensor in raw.outputs:
        if tensor == logits:
            axes = "B" + "1" * (len(tensor.shape) - 2) + "V"
            rows.append(_line("outputs", tensor, "logits", axes))
        elif _is_integer(tensor) or not states:
            rows.append(f'outputs."{tensor.name}" = {{ is = "" }}')
        else:
            rows.append(_line("outputs", tensor, states.pop(0), "LBH"))
    return rows


def _frames_of(tensors: Sequence[TensorSpec], spec: ModelSpec) -> TensorSpec | None:
    """Return which input is the encoder's frame: by its name, else by its width."""
    named = [tensor for tensor in tensors if "enc" in tensor.name.lower()]
    wide = [tensor for tensor in tensors if spec.d_model in tensor.shape]
    if spec.d_model == spec.pred_hidden:  # of one width with the states: those have a layer axis
        wide = [tensor for tensor in wide if len(tensor.shape) == 2]
    return next(iter([*named, *wide]), None)


def _line(side: str, tensor: TensorSpec, role: str, axes: str) -> str:
    return f'{side}."{tensor.name}" = {{ is = "{role}", axes = "{axes}" }}  # {_shape(tensor)}'
