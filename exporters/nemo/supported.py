"""What of NeMo's RNN-T models can be exported, by name, and the configuration that inference needs.

Only the sections that inference builds are taken over, so that options which an older or newer
NeMo writes elsewhere never matter and no path that a checkpoint names is opened. A section may
name classes to build: each must be one that is known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.nemo.archive import CheckpointError

if TYPE_CHECKING:
    from exporters.nemo.configuration import Configuration

# What a configuration may ask to be built. NeMo checks prefixes; a release gate wants names.
_KNOWN_TARGETS = {
    "preprocessor": ("nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",),
    "encoder": (
        "nemo.collections.asr.modules.ConformerEncoder",
        "nemo.collections.asr.modules.conformer_encoder.ConformerEncoder",
    ),
    "decoder": (
        "nemo.collections.asr.modules.RNNTDecoder",
        "nemo.collections.asr.modules.rnnt.RNNTDecoder",
    ),
    "joint": (
        "nemo.collections.asr.modules.RNNTJoint",
        "nemo.collections.asr.modules.rnnt.RNNTJoint",
    ),
}
_READ_SECTIONS = (*_KNOWN_TARGETS, "model_defaults", "decoding")
_HYBRID_SECTION = "aux_ctc"
_HYBRID_WEIGHTS = "ctc_decoder."
_GREEDY = ("greedy", "greedy_batch")
_DEFAULT_MAX_SYMBOLS = 10  # of NeMo's own decoding configuration
_NO_LIMIT = (None, 0)

# Option, values that the exporters implement; None stands for an option that is not set.
_SUPPORTED: tuple[tuple[str, tuple[object, ...]], ...] = (
    ("encoder.self_attention_model", ("rel_pos", None)),
    ("encoder.conv_norm_type", ("batch_norm", None)),
    ("encoder.subsampling", ("striding", "dw_striding", None)),
    ("encoder.subsampling_factor", (2, 4, 8, None)),
    ("encoder.causal_downsampling", (False, None)),
    ("encoder.reduction", (None,)),
    ("encoder.feat_out", (-1, None)),
    ("encoder.att_context_style", ("regular", None)),
    ("encoder.att_context_size", ([-1, -1], None)),
    ("encoder.conv_context_size", (None,)),
    ("encoder.conv_context_style", ("regular", None)),
    ("decoder.blank_as_pad", (True, None)),
    ("decoder.normalization_mode", (None,)),
    ("joint.num_extra_outputs", (0, None)),
)


_ENCODER_SIZES = ("feat_in", "n_layers", "d_model", "n_heads", "conv_kernel_size")

# What a value of these options makes of a model, in words.
_MEANS = {
    "joint.num_extra_outputs": "a TDT or multi-blank transducer; train a plain RNN-T",
    "encoder.att_context_size": "a streaming encoder; train with [-1, -1]",
    "encoder.att_context_style": "a streaming encoder; train with 'regular'",
    "encoder.conv_context_size": "a streaming encoder; leave it out",
    "encoder.causal_downsampling": "a streaming encoder; train with false",
    "decoder.blank_as_pad": "a prediction network without a row for the blank",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built of a checkpoint, and what stands against it.

    Attributes:
        config: For NeMo's ``EncDecRNNTModel``: what inference builds, resolved.
        labels: The vocabulary without the blank; empty if there is a problem with it.
        feature_dim: Input channels of the encoder; None if the configuration does not say.
        architecture: NeMo's class of the model, e.g. ``EncDecRNNTModel``; "unnamed" if none.
        ignored_weights: Beginnings of names of tensors that are left out.
        problems: A sentence for each thing that cannot be exported.
        notes: A sentence for each thing that was left out or replaced.
    """

    config: dict[str, Any]
    labels: tuple[str, ...]
    feature_dim: int | None
    architecture: str
    ignored_weights: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def plan_of(configuration: Configuration) -> Plan:
    """Keep what inference builds, and name what this project cannot export.

    Raises:
        CheckpointError: A section names a class that is not known, or cannot be read.
    """
    _refuse_other_targets(configuration)
    sections = {part: _section(configuration, part) for part in _KNOWN_TARGETS}
    labels, label_problems = _labels(configuration)
    max_symbols, decoding_notes, decoding_problems = _max_symbols(configuration)
    hybrid = _hybrid(configuration)
    features = sections["encoder"].get("feat_in")
    config = {
        "labels": list(labels),
        "sample_rate": configuration.get("sample_rate") or 16000,
        "model_defaults": _model_defaults(configuration, sections),
        **sections,
        "decoding": {"strategy": _strategy(configuration), "greedy": {"max_symbols": max_symbols}},
        # The loss is never computed here, but NeMo builds one; this kind needs no extension.
        "loss": {"loss_name": "pytorch"},
    }
    return Plan(
        config=config,
        labels=labels,
        feature_dim=features if isinstance(features, int) else None,
        architecture=_architecture(configuration),
        ignored_weights=(_HYBRID_WEIGHTS,) if hybrid else (),
        problems=(*unsupported_options(sections), *label_problems, *decoding_problems),
        notes=(*hybrid, *decoding_notes),
    )


def _architecture(configuration: Configuration) -> str:
    target = configuration.raw("target") or configuration.raw("_target_")
    return target.rpartition(".")[2] if isinstance(target, str) else "unnamed"


def _hybrid(configuration: Configuration) -> tuple[str, ...]:
    if "Hybrid" in _architecture(configuration) or configuration.raw(_HYBRID_SECTION):
        return ("hybrid RNN-T/CTC: the CTC head is not exported",)
    return ()


def _section(configuration: Configuration, part: str) -> dict[str, Any]:
    """Return a section with the class that it names, one of those that are known.

    NeMo names an adapter's class wherever one may be added; without adapters it is the same class.
    """
    path, known = configuration.path, _KNOWN_TARGETS[part]
    adapters = _adapters(configuration, part)
    if adapters:
        msg = (
            f"{path}: cannot export this model: {part} has adapters ({', '.join(adapters)}), "
            "supported: none; remove or disable them in NeMo and save the model again"
        )
        raise CheckpointError(msg)
    target = configuration.get(part, "_target_")
    plain = target.removesuffix("Adapter") if isinstance(target, str) else target
    if plain not in known:
        why = _other_model(part, target)
        msg = f"{path}: {part}._target_ is {target!r}{why}, but should be {known[0]}"
        raise CheckpointError(msg)
    section = configuration.get(part)
    if not isinstance(section, dict):
        msg = f"{path}: {part} should be a section of the configuration"
        raise CheckpointError(msg)
    return {key: item for key, item in section.items() if key != "adapters"} | {"_target_": plain}


def _other_model(part: str, target: object) -> str:
    """Return what kind of model a class belongs to that is not an RNN-T's, and the way out."""
    if str(target).endswith("ConvASRDecoder"):
        return " (a CTC model; train an RNN-T, or a hybrid whose RNN-T part is exported)"
    if str(target).endswith("StatelessTransducerDecoder"):
        return " (a stateless prediction network; train one of LSTM layers)"
    if target is None and part == "decoder":
        return " (this is no RNN-T model; train one)"
    return f" (another kind of {part}; train one of the kind that is named here)" if target else ""


def _adapters(configuration: Configuration, part: str) -> list[str]:
    found = []
    for section in (configuration.raw(part, "adapters"), configuration.raw("adapters")):
        if isinstance(section, dict):
            found += [str(name) for name in section if not str(name).startswith("_")]
    return found


def _refuse_other_targets(configuration: Configuration) -> None:
    for part in _READ_SECTIONS:
        for place, value in _targets(configuration.raw(part), part):
            if place == f"{part}._target_" and part in _KNOWN_TARGETS:
                continue
            if place.startswith(f"{part}.adapters."):
                continue
            msg = (
                f"{configuration.path}: refused to build {value!r} named by {place}; "
                "nothing was executed"
            )
            raise CheckpointError(msg)


def _targets(node: object, where: str) -> list[tuple[str, object]]:
    found = []
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                found.append((f"{where}.{key}", value))
            found += _targets(value, f"{where}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            found += _targets(value, f"{where}[{index}]")
    return found


def unsupported_options(sections: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence for each option of a configuration that the exporters do not implement.

    Args:
        sections: ``encoder``, ``decoder`` and ``joint`` of the configuration, resolved.
    """
    problems = []
    for name, allowed in _SUPPORTED:
        part, option = name.split(".")
        value = sections[part].get(option)
        if value not in allowed:
            named = ", ".join(str(item) for item in allowed if item is not None)
            means = f" ({_MEANS[name]})" if name in _MEANS else ""
            problems.append(f"{name} is {value!r}{means}, supported: {named or 'none (unset)'}")
    prednet = sections["decoder"].get("prednet")
    prednet = prednet if isinstance(prednet, dict) else {}
    hidden, width = prednet.get("rnn_hidden_size"), prednet.get("pred_hidden")
    if hidden not in (None, -1, width):
        problems.append(
            f"decoder.prednet.rnn_hidden_size is {hidden!r}, supported: {width!r} (pred_hidden)"
        )
    return problems + _size_problems(sections["encoder"])


def _size_problems(encoder: dict[str, Any]) -> list[str]:
    """Name sizes that NeMo would end on with an assertion and no word about which."""
    sizes = {name: encoder.get(name) for name in _ENCODER_SIZES}
    problems = [
        f"encoder.{name} is {value!r}, expected a whole number above 0; mend the configuration"
        for name, value in sizes.items()
        if value is not None and (type(value) is not int or value < 1)
    ]
    width, heads = sizes["d_model"], sizes["n_heads"]
    if not problems and width and heads and width % heads:
        problems.append(
            f"encoder.d_model is {width}, which {heads} heads do not divide; take the "
            "configuration and the weights of one training"
        )
    return problems


def _labels(configuration: Configuration) -> tuple[tuple[str, ...], list[str]]:
    """Return the vocabulary: of the model, or of its joint where a tokenizer made it."""
    labels = configuration.get("labels") or configuration.get("joint", "vocabulary")
    if not isinstance(labels, list) or not labels:
        sentence = (
            "there is no vocabulary: labels should be a non-empty list, without the blank; put "
            "the training's own labels into the configuration"
        )
        return (), [sentence]
    for index, label in enumerate(labels):
        if not isinstance(label, str):
            return (), [
                f"labels[{index}] is {label!r}, expected a text; in YAML put it into quotes"
            ]
    return tuple(labels), []


def _model_defaults(
    configuration: Configuration, sections: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return the widths that NeMo gives to the joint."""
    prednet = sections["decoder"].get("prednet")
    hidden = prednet.get("pred_hidden") if isinstance(prednet, dict) else None
    return {
        "enc_hidden": configuration.get("model_defaults", "enc_hidden")
        or sections["encoder"].get("d_model"),
        "pred_hidden": configuration.get("model_defaults", "pred_hidden") or hidden,
    }


def _strategy(configuration: Configuration) -> str:
    strategy = configuration.raw("decoding", "strategy")
    return strategy if isinstance(strategy, str) and strategy in _GREEDY else _GREEDY[0]


def _max_symbols(configuration: Configuration) -> tuple[int | None, list[str], list[str]]:
    """Return the most labels per frame, then notes and problems.

    NeMo takes it from ``decoding.greedy``, for ``greedy_batch`` too (a section of that name is
    ignored), and for its searches from the section ``beam``.
    """
    notes = []
    strategy = configuration.raw("decoding", "strategy")
    greedy = isinstance(configuration.raw("decoding", "greedy"), dict)
    places = [("greedy", "max_symbols"), ("greedy", "max_symbols_per_step")]
    default: int | None = None if greedy else _DEFAULT_MAX_SYMBOLS
    if strategy not in _GREEDY:
        places.append(("beam", "max_symbols"))
        default = _DEFAULT_MAX_SYMBOLS
    found = ((place, configuration.get("decoding", *place)) for place in places)
    place, value = next(((p, v) for p, v in found if v not in _NO_LIMIT), (None, default))
    if isinstance(value, bool) or not (value is None or isinstance(value, int)) or (value or 1) < 1:
        where = ".".join(place or ())
        return None, [], [f"decoding.{where} is {value!r}, supported: a whole number above 0, none"]
    if strategy not in _GREEDY:
        what = (
            f"decoding.strategy {strategy!r} was replaced" if strategy else "no decoding.strategy"
        )
        notes.append(f"{what}: decoded greedily with max_symbols {value}")
    return value, notes, []
