"""Load a NeMo RNN-T checkpoint strictly and safely: the only module that imports NeMo.

A checkpoint is data from somewhere else. Its tensors are read with ``weights_only=True``, so no
pickled code runs; its configuration may name classes to build, so each ``_target_`` must be one
that this module knows; and every key must match the model, because weights that are dropped
silently leave a part of the network random.
"""

from __future__ import annotations

import enum
import importlib
import io
import logging
import pickle
import tarfile
import zipfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata, Metadata, Node
from omegaconf.errors import OmegaConfBaseException
from omegaconf.nodes import (
    AnyNode,
    BooleanNode,
    BytesNode,
    FloatNode,
    IntegerNode,
    PathNode,
    StringNode,
)

from exportgate.artifacts.sidecar import sha256_of
from exportgate.contract import ModelSpec
from exportgate.errors import ExportGateError
from exportgate.garbage import uncollected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_COMPILED_PREFIX = "_orig_mod."
_MAX_CONFIG_BYTES = 4 << 20

# What a configuration may ask to be built. NeMo checks prefixes; a release gate wants names.
_KNOWN_TARGETS = {
    "preprocessor": {"nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor"},
    "encoder": {
        "nemo.collections.asr.modules.ConformerEncoder",
        "nemo.collections.asr.modules.conformer_encoder.ConformerEncoder",
    },
    "decoder": {
        "nemo.collections.asr.modules.RNNTDecoder",
        "nemo.collections.asr.modules.rnnt.RNNTDecoder",
    },
    "joint": {
        "nemo.collections.asr.modules.RNNTJoint",
        "nemo.collections.asr.modules.rnnt.RNNTJoint",
    },
}
# Parts of a training configuration that inference does not build.
_TRAINING_ONLY = ("train_ds", "validation_ds", "test_ds", "spec_augment", "optim", "loss")

# What Lightning's saved hyper-parameters consist of: containers and scalars, nothing that acts.
_HYPER_PARAMETER_CLASSES = [
    Any,
    defaultdict,
    dict,
    int,
    list,
    DictConfig,
    ListConfig,
    ContainerMetadata,
    Metadata,
    Node,
    AnyNode,
    BooleanNode,
    BytesNode,
    FloatNode,
    IntegerNode,
    PathNode,
    StringNode,
]


class CheckpointError(ExportGateError, ValueError):
    """The checkpoint is missing, damaged, unsafe, incomplete or of an unsupported kind."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model, in evaluation mode on the CPU, and where it came from.

    Attributes:
        path: The file.
        sha256: Of the file.
        model: NeMo's ``EncDecRNNTModel``; treat it as read-only, it is the reference.
        spec: Its dimensions and vocabulary.
    """

    path: Path
    sha256: str
    model: Any
    spec: ModelSpec


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a ``.nemo`` archive or a Lightning ``.ckpt``.

    Keys of a ``torch.compile``d training carry ``_orig_mod.`` anywhere; it is removed everywhere.

    Raises:
        CheckpointError: Missing, unreadable, truncated or unsafe file; a configuration of an
            unsupported kind; missing, unexpected or misshapen weights; weights that are not finite.
    """
    if not path.is_file():
        msg = f"{path}: no such checkpoint; expected a .nemo archive or a Lightning .ckpt"
        raise CheckpointError(msg)
    if path.suffix == ".nemo":
        config, state = _read_nemo(path)
    elif path.suffix == ".ckpt":
        config, state = _read_lightning(path)
    else:
        msg = f"{path}: unknown kind of checkpoint {path.suffix!r}; expected .nemo or .ckpt"
        raise CheckpointError(msg)
    config = _inference_config(path, config)
    model = _build(path, config)
    _load_strictly(path, model, _without_compiled_prefix(path, state))
    model.eval()
    return Checkpoint(path, sha256_of(path), model, _spec_of(model))


def _read_nemo(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with tarfile.open(path, mode="r:*") as archive:
            config = yaml.safe_load(_member(path, archive, "model_config.yaml", _MAX_CONFIG_BYTES))
            weights = _member(path, archive, "model_weights.ckpt", None)
    except (tarfile.TarError, EOFError, OSError) as error:
        msg = (
            f"{path}: not a readable .nemo archive ({error}); it should be a tar of "
            "model_config.yaml and model_weights.ckpt; copy or save it again"
        )
        raise CheckpointError(msg) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{path}: model_config.yaml is not valid YAML ({error})"
        raise CheckpointError(msg) from error
    if not isinstance(config, dict):
        msg = f"{path}: model_config.yaml holds {type(config).__name__}, but should be a mapping"
        raise CheckpointError(msg)
    return config, _tensors(path, _load_tensors(path, io.BytesIO(weights)))


def _member(path: Path, archive: tarfile.TarFile, name: str, limit: int | None) -> bytes:
    for info in archive:
        if info.name.removeprefix("./") != name or not info.isfile():
            continue
        if limit is not None and info.size > limit:
            msg = f"{path}: {name} has {info.size} bytes, more than {limit}"
            raise CheckpointError(msg)
        file = archive.extractfile(info)
        data = file.read() if file else b""
        if len(data) != info.size:
            msg = f"{path}: {name} is cut off after {len(data)} of {info.size} bytes; copy it again"
            raise CheckpointError(msg)
        return data
    msg = f"{path}: the archive has no {name}; expected what NeMo's save_to() writes"
    raise CheckpointError(msg)


def _read_lightning(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    data = _load_tensors(path, io.BytesIO(path.read_bytes()))
    if not isinstance(data, dict) or "state_dict" not in data:
        msg = f"{path}: no 'state_dict' in it; expected a Lightning checkpoint"
        raise CheckpointError(msg)
    hyper = data.get("hyper_parameters")
    config = hyper.get("cfg", hyper) if isinstance(hyper, (dict, DictConfig)) else None
    try:
        if isinstance(config, DictConfig):
            config = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        msg = f"{path}: hyper_parameters do not resolve ({error})"
        raise CheckpointError(msg) from error
    if not isinstance(config, dict) or "encoder" not in config:
        msg = f"{path}: no model configuration in 'hyper_parameters'; save a .nemo archive instead"
        raise CheckpointError(msg)
    return config, _tensors(path, data["state_dict"])


def _load_tensors(path: Path, file: io.BytesIO) -> Any:  # noqa: ANN401 - whatever was pickled
    """Unpickle with torch's allow-list: a class outside it is refused, never run."""
    try:
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        file.seek(0)
        allowed = [*_HYPER_PARAMETER_CLASSES, *_nemo_enums(wanted)]
        with torch.serialization.safe_globals(allowed):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("Please file an issue")[0].strip().splitlines()
        detail = next((line for line in reason if "GLOBAL" in line or "global" in line), reason[0])
        msg = (
            f"{path}: refused to unpickle it, because it would run code or build objects that are "
            f"not tensors ({detail.strip()}); nothing was executed; save weights and "
            "configuration only"
        )
        raise CheckpointError(msg) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        msg = f"{path}: the weights are damaged or cut off ({first}); copy or save the file again"
        raise CheckpointError(msg) from error


def _nemo_enums(names: list[str]) -> list[type[enum.Enum]]:
    """Return those of the named classes that are NeMo's enumerations: values of its options."""
    found = []
    with quiet_nemo():
        for name in names:
            module, _, attribute = name.rpartition(".")
            if module.startswith("nemo.collections.asr."):
                value = getattr(importlib.import_module(module), attribute, None)
                if isinstance(value, type) and issubclass(value, enum.Enum):
                    found.append(value)
    return found


def _tensors(path: Path, state: object) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        msg = f"{path}: its weights should be a mapping from names to tensors"
        raise CheckpointError(msg)
    return dict(state)


def _without_compiled_prefix(
    path: Path, state: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    clean: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        name = key.replace(_COMPILED_PREFIX, "")
        if name in clean:
            msg = f"{path}: {name} is there twice, with and without {_COMPILED_PREFIX!r}"
            raise CheckpointError(msg)
        clean[name] = value
    return clean


def _inference_config(path: Path, config: dict[str, Any]) -> DictConfig:
    """Keep what inference builds, and refuse by name what this project cannot export."""
    wanted = {key: value for key, value in config.items() if key not in _TRAINING_ONLY}
    for part, known in _KNOWN_TARGETS.items():
        section = wanted.get(part)
        target = section.get("_target_") if isinstance(section, dict) else None
        if target not in known:
            msg = f"{path}: {part}._target_ is {target!r}, but should be {' or '.join(known)}"
            raise CheckpointError(msg)
    _refuse_other_targets(path, wanted, "")
    problems = unsupported_options(wanted)
    if problems:
        msg = f"{path}: cannot export this model: {'; '.join(problems)}"
        raise CheckpointError(msg)
    # The loss is never computed here, but NeMo builds one; this kind needs no compiled extension.
    wanted["loss"] = {"loss_name": "pytorch"}
    return OmegaConf.create(wanted)


def _refuse_other_targets(path: Path, node: object, where: str) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            place = f"{where}.{key}".lstrip(".")
            if key == "_target_" and where not in _KNOWN_TARGETS:
                msg = f"{path}: refused to build {value!r} named by {place}; nothing was executed"
                raise CheckpointError(msg)
            _refuse_other_targets(path, value, place)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            _refuse_other_targets(path, value, f"{where}[{index}]")


def unsupported_options(config: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option of a configuration that the exporters do not implement."""
    encoder, decoder, joint = config["encoder"], config["decoder"], config["joint"]
    expected: list[tuple[str, object, tuple[object, ...]]] = [
        ("encoder.self_attention_model", encoder.get("self_attention_model"), ("rel_pos", None)),
        ("encoder.conv_norm_type", encoder.get("conv_norm_type"), ("batch_norm", None)),
        ("encoder.subsampling", encoder.get("subsampling"), ("striding", "dw_striding", None)),
        ("encoder.subsampling_factor", encoder.get("subsampling_factor"), (2, 4, 8, None)),
        ("encoder.causal_downsampling", encoder.get("causal_downsampling"), (False, None)),
        ("encoder.reduction", encoder.get("reduction"), (None,)),
        ("encoder.feat_out", encoder.get("feat_out"), (-1, None)),
        ("encoder.att_context_style", encoder.get("att_context_style"), ("regular", None)),
        ("encoder.att_context_size", encoder.get("att_context_size"), ([-1, -1], None)),
        ("encoder.conv_context_size", encoder.get("conv_context_size"), (None,)),
        ("encoder.conv_context_style", encoder.get("conv_context_style"), ("regular", None)),
        ("decoder.blank_as_pad", decoder.get("blank_as_pad"), (True, None)),
        ("decoder.normalization_mode", decoder.get("normalization_mode"), (None,)),
        ("joint.num_extra_outputs", joint.get("num_extra_outputs"), (0, None)),
    ]
    problems = [
        f"{name} is {value!r}, supported: {', '.join(str(a) for a in allowed if a is not None)}"
        for name, value, allowed in expected
        if value not in allowed
    ]
    labels = config.get("labels")
    if not isinstance(labels, list) or not labels:
        problems.append("labels should be a non-empty list (a character vocabulary)")
    return problems


def _build(path: Path, config: DictConfig) -> Any:  # noqa: ANN401 - NeMo has no types
    with quiet_nemo():
        from nemo.collections.asr.models import EncDecRNNTModel  # noqa: PLC0415 - takes seconds

        try:
            return EncDecRNNTModel(cfg=config)
        except (OmegaConfBaseException, ValueError, TypeError, KeyError, RuntimeError) as error:
            msg = f"{path}: NeMo cannot build the configured model ({error})"
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


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a checkpoint's file and the model loaded from it have in common.

    Attributes:
        missing: Parameters and buffers of the model that the file lacks.
        unexpected: Tensors of the file that the model lacks.
        differing: Names of tensors whose values differ between file and model.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    differing: tuple[str, ...]


def load_report(path: Path, model: torch.nn.Module) -> LoadReport:
    """Compare a model with the file that it should have been loaded from, bit for bit.

    Reads the file anew, so that it also speaks about models that somebody else loaded.
    """
    _, state = _read_nemo(path) if path.suffix == ".nemo" else _read_lightning(path)
    state = _without_compiled_prefix(path, state)
    loaded = model.state_dict()
    shared = sorted(loaded.keys() & state.keys())
    return LoadReport(
        missing=tuple(sorted(loaded.keys() - state.keys())),
        unexpected=tuple(sorted(state.keys() - loaded.keys())),
        differing=tuple(key for key in shared if not torch.equal(loaded[key], state[key])),
    )


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
