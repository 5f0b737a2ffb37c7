"""What a checkpoint is, from its configuration alone: no model is built and NeMo not imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.nemo.archive import WEIGHTS, CheckpointError, is_lightning, read_config, size_bytes
from exporters.nemo.configuration import Configuration, configuration_of
from exporters.nemo.supported import plan_of
from exporters.nemo.unpickle import load_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class CheckpointSummary:
    """What a checkpoint says about itself.

    Attributes:
        path: The file or folder.
        architecture: NeMo's class of the model, e.g. ``EncDecRNNTModel``; "unnamed" if none.
        feature_dim: Input channels of the encoder; None if the configuration does not say.
        labels: The vocabulary without the blank; empty if there is a problem with it.
        encoder: The encoder's section of the configuration, resolved.
        prednet: The prediction network's part of the configuration, resolved.
        max_symbols: Most labels at one frame; None for no limit.
        ignored_weights: Beginnings of names of tensors that are left out.
        weights_bytes: Size of the stored weights; of a .ckpt, of the whole file.
        problems: A sentence for each thing that cannot be exported; loading would refuse them.
        notes: A sentence for each thing that is left out or replaced.
    """

    path: Path
    architecture: str
    feature_dim: int | None
    labels: tuple[str, ...]
    encoder: Mapping[str, Any]
    prednet: Mapping[str, Any]
    max_symbols: int | None
    ignored_weights: tuple[str, ...]
    weights_bytes: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def peek(path: Path) -> CheckpointSummary:
    """Read a checkpoint's configuration and say what it is, within a second.

    Raises:
        CheckpointError: Missing, unreadable or unsafe file, no weights, or a configuration that
            names classes which are not known.
    """
    configuration, weights_bytes = _configuration(path)
    plan = plan_of(configuration)
    prednet = plan.config["decoder"].get("prednet")
    return CheckpointSummary(
        path=path,
        architecture=plan.architecture,
        feature_dim=plan.feature_dim,
        labels=plan.labels,
        encoder=plan.config["encoder"],
        prednet=prednet if isinstance(prednet, dict) else {},
        max_symbols=plan.config["decoding"]["greedy"]["max_symbols"],
        ignored_weights=plan.ignored_weights,
        weights_bytes=weights_bytes,
        problems=plan.problems,
        notes=plan.notes,
    )


def _configuration(path: Path) -> tuple[Configuration, int]:
    if is_lightning(path):
        data = load_tensors(path, path.read_bytes(), values=False)
        hyper = data.get("hyper_parameters") if isinstance(data, dict) else None
        return configuration_of(path, hyper), path.stat().st_size
    config = read_config(path)
    weights_bytes = size_bytes(path, WEIGHTS)
    if weights_bytes is None:
        msg = f"{path}: has no {WEIGHTS}; expected what NeMo's save_to() writes"
        raise CheckpointError(msg)
    return Configuration(path, config), weights_bytes


def require_features(summary: CheckpointSummary, feature_dim: int) -> None:
    """Refuse a checkpoint that takes other features than the manifest's swipes give.

    Args:
        summary: Of the checkpoint.
        feature_dim: Channels of the manifest's features.

    Raises:
        CheckpointError: The numbers of channels differ.
    """
    if summary.feature_dim != feature_dim:
        msg = (
            f"{summary.path}: the checkpoint takes {summary.feature_dim} features a frame, but the "
            f"manifest's swipes give {feature_dim}; expected a checkpoint that was trained on "
            f"the swipe features, or one that is only exported, not gated"
        )
        raise CheckpointError(msg)
