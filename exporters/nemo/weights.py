"""The weights of a checkpoint under the names that its model gives them, the model unbuilt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from exporters.nemo.archive import WEIGHTS, CheckpointError, is_lightning, read_member
from exporters.nemo.unpickle import Recorded, load_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporters.nemo.peek import CheckpointSummary

# What wrappers of a training (compilation, data parallelism, activation checkpointing) put into
# the names of parameters; no module of an RNN-T model is called so.
_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_LORA = frozenset({"base_layer", "lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"})
_PARTS = ("encoder", "decoder", "joint")
_LEFT_OUT = ("preprocessor.", "spec_augmentation.", "loss.", "wer.")
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_LARGEST_EXPANDED_BYTES = 64 << 20
"""Room for a buffer that repeats a number (``expand``): one of a megabyte is nothing to mind."""
_EMBEDDING = "decoder.prediction.embed.weight"
_NORM = "encoder.layers.0.norm_out.weight"


@dataclass(frozen=True, slots=True)
class WeightSummary:
    """What the stored weights say of themselves.

    Attributes:
        parameters: Numbers in each part of the model: encoder, decoder, joint.
        problems: A sentence for each thing that loading would refuse.
        notes: A sentence for each thing that is mended while loading.
    """

    parameters: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def tensors_of(path: Path, state: object) -> dict[str, torch.Tensor]:
    """Return weights as a plain mapping.

    Args:
        path: Named in errors.
        state: What was unpickled.

    Raises:
        CheckpointError: They are none: no mapping, or it holds other things than tensors of real
            numbers, or one that repeats a number until it fills memory.
    """
    if not isinstance(state, dict):
        msg = f"{path}: its weights are {_shown(state)}, expected a mapping from names to tensors"
        raise CheckpointError(msg)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            msg = f"{path}: its weights hold {_shown(value)} under {_shown(key)}, expected a tensor"
            raise CheckpointError(msg)
        if what := _unusual(value):
            msg = f"{path}: its weight {key!r:.80} is {what}; save the model's plain weights"
            raise CheckpointError(msg)
    return dict(state)


def _shown(value: object) -> str:
    """Return a value as a line can show it; a tensor or a container by its type."""
    if value is None or isinstance(value, (bool, int, float, str, bytes, Recorded)):
        return f"{value!r:.80}"
    return f"a {type(value).__name__}"


def _unusual(value: torch.Tensor) -> str | None:
    """Return what a tensor is that a model's weight never is; None for plain numbers."""
    if value.is_quantized or value.layout is not torch.strided or value.is_complex():
        return f"no tensor of real numbers ({value.dtype}, {value.layout})"
    if value.is_meta:
        return "stored without its values (a meta tensor)"
    claimed, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
    if claimed > max(stored, _LARGEST_EXPANDED_BYTES):
        return f"{claimed} bytes large, of which {stored} are stored"
    return None


def clean_names(
    path: Path, state: Mapping[str, torch.Tensor], ignored: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """Remove wrappers from the names, then what is left out.

    Args:
        path: Named in errors.
        state: As stored.
        ignored: Beginnings of names of tensors that are left out.

    Raises:
        CheckpointError: A name is there with a wrapper and without.
    """
    clean: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        if name in clean:
            msg = f"{path}: {name} is there twice, with and without the prefix of a wrapper ({key})"
            raise CheckpointError(msg)
        if not name.startswith(ignored):
            clean[name] = value
    return clean


def peek_weights(summary: CheckpointSummary) -> WeightSummary:
    """Read the weights, and say what does not fit the configuration or is no number.

    Raises:
        CheckpointError: The weights are damaged, cut off or not stored as ``torch.save`` does.
    """
    path = summary.path
    if is_lightning(path):
        data = load_tensors(path, path.read_bytes())
        stored = data.get("state_dict") if isinstance(data, dict) else None
    else:
        stored = load_tensors(path, read_member(path, WEIGHTS))
    state = tensors_of(path, stored)
    clean = clean_names(path, state, summary.ignored_weights)
    counts: Counter[str] = Counter()
    for name, value in clean.items():
        if not name.endswith(_BUFFERS):
            counts[name.partition(".")[0]] += value.numel()
    parameters = {part: counts[part] for part in _PARTS}
    return WeightSummary(
        parameters, (*_problems(summary, clean), *_not_finite(clean)), tuple(_notes(state))
    )


def _problems(summary: CheckpointSummary, state: Mapping[str, torch.Tensor]) -> list[str]:
    prefix = _common_prefix(state)
    if prefix:
        sentence = (
            f"every weight's name begins with {prefix!r}, which hides the model in another module; "
            "save the model itself with NeMo's save_to()"
        )
        return [sentence]
    found = []
    absent = [part for part in _PARTS if not any(name.startswith(f"{part}.") for name in state)]
    if absent:
        named = " and no ".join(absent)
        found.append(f"the weights have no {named}; save the whole model with NeMo's save_to()")
    if any(part in _LORA for name in state for part in name.split(".")):
        found.append(
            "the weights hold a LoRA adapter beside the layers that it changes; merge it into "
            "them (merge_and_unload()) and save the model again"
        )
    expected = (*(f"{part}." for part in _PARTS), *_LEFT_OUT)
    others = [name for name in state if not name.startswith(expected)]
    if others:
        found.append(
            f"{len(others)} weights belong to no part of the model, first {others[0]!r}; "
            "save the model again without what was wrapped around it"
        )
    embedding = state.get(_EMBEDDING)
    if embedding is not None and summary.labels and len(embedding) != len(summary.labels) + 1:
        found.append(
            f"the vocabulary has {len(summary.labels)} labels, but the weights were trained with "
            f"{len(embedding) - 1}; put the training's own labels into the configuration"
        )
    return found + _other_sizes(summary, state)


def _not_finite(state: Mapping[str, torch.Tensor]) -> list[str]:
    wrong = [
        name
        for name, value in state.items()
        if value.is_floating_point() and not torch.isfinite(value).all()
    ]
    if not wrong:
        return []
    sentence = (
        f"{len(wrong)} of {len(state)} weights hold NaN or infinity, first {wrong[0]!r}: the "
        "training diverged; take an earlier checkpoint"
    )
    return [sentence]


def _common_prefix(state: Mapping[str, torch.Tensor]) -> str:
    """Return what stands before the parts' names in every weight; nothing if it is not so."""
    first = next(iter(state), "").partition(".")[0]
    if not first or first in _PARTS or f"{first}.".startswith(_LEFT_OUT):
        return ""
    prefix = f"{first}."
    inside = {name.removeprefix(prefix).partition(".")[0] for name in state}
    alike = all(name.startswith(prefix) for name in state)
    return prefix if alike and inside.issuperset(_PARTS) else ""


def _other_sizes(summary: CheckpointSummary, state: Mapping[str, torch.Tensor]) -> list[str]:
    """Say where weights are of another size than the configuration says: two trainings mixed."""
    encoder, prednet = summary.encoder, summary.prednet
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.layers.")}
    widths = {
        name: state[key].shape[-1]
        for name, key in (("width", _NORM), ("pred_hidden", _EMBEDDING))
        if key in state and state[key].ndim
    }
    sizes = (
        ("encoder layers", encoder.get("n_layers"), len(layers) or None),
        ("channels of the encoder", encoder.get("d_model"), widths.get("width")),
        ("channels of the prediction net", prednet.get("pred_hidden"), widths.get("pred_hidden")),
    )
    return [
        f"the configuration says {said} {what}, but the weights have {found}; take the "
        "configuration and the weights of one training"
        for what, said, found in sizes
        if isinstance(said, int) and found is not None and said != found
    ]


def _notes(state: Mapping[str, torch.Tensor]) -> list[str]:
    wrappers = sorted({part for key in state for part in key.split(".") if part in _WRAPPERS})
    if not wrappers:
        return []
    named = ", ".join(f"{wrapper}." for wrapper in wrappers)
    return [f"names of weights hold {named} of a wrapper of the training: it is removed"]
