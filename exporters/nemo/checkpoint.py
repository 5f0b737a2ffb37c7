"""Load a NeMo RNN-T checkpoint strictly and safely: the only module that imports NeMo.

A checkpoint is data from somewhere else. No pickled code runs (``unpickle``), its configuration is
read as data (``configuration``), only classes that are known are built (``supported``), and every
key must match the model, because weights that are dropped silently leave a part of the network
random.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from exporters.nemo.archive import WEIGHTS, CheckpointError, is_lightning, read_config, read_member
from exporters.nemo.configuration import Configuration, configuration_of
from exporters.nemo.load_report import LoadReport
from exporters.nemo.sizes import check_sizes
from exporters.nemo.supported import Plan, plan_of
from exporters.nemo.unpickle import load_tensors
from exporters.nemo.weights import clean_names, tensors_of
from exportgate.artifacts.sidecar import sha256_of
from exportgate.contract import ModelSpec
from exportgate.garbage import uncollected
from exportgate.reading import MALFORMED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_UNBUILT = (OmegaConfBaseException, HydraException, MemoryError, RuntimeError)
__all__ = ["Checkpoint", "CheckpointError", "LoadReport", "load_checkpoint", "load_report"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model, in evaluation mode on the CPU, and where it came from.

    Attributes:
        path: The file or folder.
        sha256: Of the file; of a folder, of the names and hashes of its files.
        model: NeMo's ``EncDecRNNTModel``; treat it as read-only, it is the reference.
        spec: Its dimensions and vocabulary.
        notes: A sentence for each thing of the checkpoint that was left out or replaced.
    """

    path: Path
    sha256: str
    model: Any
    spec: ModelSpec
    notes: tuple[str, ...] = ()


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a ``.nemo`` archive, the folder of an unpacked one, or a Lightning ``.ckpt``.

    Decoding is greedy whatever the checkpoint's own decoding section says; of that section only
    ``max_symbols`` is taken. Prefixes of training wrappers (``_orig_mod.``, ``module.``) are
    removed from the names of the weights.

    Raises:
        CheckpointError: Missing, unreadable, truncated or unsafe file; a configuration of an
            unsupported kind; missing, unexpected or misshapen weights; weights that are not finite.
    """
    plan, state = read_for_building(path)
    if plan.problems:
        msg = f"{path}: cannot export this model: {'; '.join(plan.problems)}"
        raise CheckpointError(msg)
    check_sizes(path, plan.config, state)
    model = _build(path, OmegaConf.create(plan.config))
    _load_strictly(path, model, state)
    model.eval()
    return Checkpoint(path, sha256_of(path), model, _spec_of(model), plan.notes)


def read_for_building(path: Path) -> tuple[Plan, dict[str, torch.Tensor]]:
    """Return what is to be built, and the weights under the names that the model gives them.

    Raises:
        CheckpointError: Missing, unreadable, truncated or unsafe file, or a configuration or
            weights of an unsupported kind.
    """
    configuration, state = read_parts(path)
    plan = plan_of(configuration)
    return plan, clean_names(path, state, plan.ignored_weights)


def read_parts(path: Path) -> tuple[Configuration, dict[str, torch.Tensor]]:
    """Return the configuration and the weights as they stand in a checkpoint.

    Raises:
        CheckpointError: Missing, unreadable, truncated or unsafe file.
    """
    if not is_lightning(path):
        configuration = Configuration(path, read_config(path))
        return configuration, tensors_of(path, load_tensors(path, read_member(path, WEIGHTS)))
    data = load_tensors(path, path.read_bytes())
    if not isinstance(data, dict) or "state_dict" not in data:
        msg = f"{path}: no 'state_dict' in it; expected a Lightning checkpoint"
        raise CheckpointError(msg)
    configuration = configuration_of(path, data.get("hyper_parameters"))
    return configuration, tensors_of(path, data["state_dict"])


def _build(path: Path, config: DictConfig) -> Any:  # noqa: ANN401 - NeMo has no types
    with quiet_nemo():
        from nemo.collections.asr.models import EncDecRNNTModel  # noqa: PLC0415 - takes seconds

        try:
            return EncDecRNNTModel(cfg=config)
        except (*_UNBUILT, *MALFORMED) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            msg = (
                f"{path}: NeMo cannot build the configured model ({lines[-1]}); mend the "
                "configuration, or save the model again"
            )
            raise CheckpointError(msg) from error


@contextmanager
def quiet_nemo() -> Iterator[None]:
    """Keep NeMo's import and constructor from writing dozens of lines on the user's terminal.

    Garbage collection would take a fifth of the import.
    """
    logging.disable(logging.WARNING)
    try:
        with uncollected():
            from nemo.utils import logging as nemo_logging  # noqa: PLC0415 - takes seconds

            nemo_logging.setLevel(logging.ERROR)
            yield
    finally:
        logging.disable(logging.NOTSET)


def load_report(path: Path, model: torch.nn.Module) -> LoadReport:
    """Compare a model with the file that it should have been loaded from, bit for bit.

    Reads the file anew, so that it also speaks about models that somebody else loaded.
    """
    _, state = read_for_building(path)
    loaded = model.state_dict()
    shared = sorted(loaded.keys() & state.keys())
    return LoadReport(
        missing=tuple(sorted(loaded.keys() - state.keys())),
        unexpected=tuple(sorted(state.keys() - loaded.keys())),
        differing=tuple(key for key in shared if not _equal(loaded[key], state[key])),
    )


def _equal(loaded: torch.Tensor, stored: torch.Tensor) -> bool:
    """Compare after the conversion that loading does: weights may be stored in half precision."""
    return torch.equal(loaded, stored.to(loaded.dtype))


def _load_strictly(path: Path, model: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} {tuple(state[key].shape)}, but should be {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if state[key].shape != expected[key].shape
    ]
    infinite = [
        key
        for key, value in sorted(state.items())
        if value.is_floating_point() and not bool(torch.isfinite(value).all())
    ]
    problems = [
        f"{len(keys)} {kind} ({', '.join(keys[:8])}{', …' if len(keys) > 8 else ''})"
        for kind, keys in (
            ("missing keys", missing),
            ("unexpected keys", unexpected),
            ("keys of another shape", misshapen),
            ("keys with NaN or infinite values", infinite),
        )
        if keys
    ]
    if problems:
        msg = f"{path}: weights do not fit the configured model: {'; '.join(problems)}"
        raise CheckpointError(msg)
    model.load_state_dict(state, strict=True)


def _spec_of(model: Any) -> ModelSpec:  # noqa: ANN401 - NeMo has no types
    encoder, lstm = model.encoder, model.decoder.prediction["dec_rnn"].lstm
    return ModelSpec(
        feature_dim=encoder._feat_in,  # noqa: SLF001 - NeMo has no public name for it
        d_model=encoder.d_model,
        encoder_layers=len(encoder.layers),
        attention_heads=encoder.layers[0].self_attn.h,
        conv_kernel=encoder.layers[0].conv.depthwise_conv.kernel_size[0],
        subsampling=model.cfg.encoder.get("subsampling", "striding"),
        subsampling_factor=encoder.subsampling_factor,
        pred_hidden=lstm.hidden_size,
        pred_layers=lstm.num_layers,
        joint_hidden=model.joint.joint_hidden,
        labels=tuple(model.joint.vocabulary),
        max_symbols=model.decoding.decoding.max_symbols,
    )
