"""What a model is and what goes in and out of its files: pure data, no torch.

Shapes hold integers for fixed axes and names for dynamic ones. The names are the contract that an
application programs against; the suites compare them exactly.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

DType = Literal["float32", "float16", "int64", "int32"]
LengthsDType = Literal["int64", "int32"]
Axis = int | str
Part = Literal["predict", "joint", "split"]
"""A step's prediction network, its joint, or both as two methods of one .pte."""
LOG_PROBS = "log_probs"
"""The output of a step that gives log-probabilities, in the place of ``logits``."""
PREDICTION = "prediction"
"""The prediction network's output, which the joint takes beside a frame."""
OTHER_HALF: dict[Part, Part] = {"predict": "joint", "joint": "predict"}
"""Of a step in two files, what each file is called together with."""
METHODS, OTHER_SHA256 = "methods", "other_half_sha256"
"""What a sidecar's recipe says of parts: the contract of each method of a .pte; the SHA-256 of the
file that one of the two ONNX files goes with."""
_PREFIX: dict[Part, str] = {"predict": "predict_", "joint": "joint_", "split": "step_split_"}
_WHOLE = "step_"


@dataclass(frozen=True, slots=True)
class Interface:
    """How a file is called, where an application wants it otherwise than we do.

    Attributes:
        lengths_dtype: Of an encoder's lengths, those that go in and those that come out.
        step_batch: Hypotheses that a .pte step takes at each call.
        log_probs: A step gives log-softmax of the logits in their place.
        part: What of a step the file holds, where prediction network and joint are called apart.
    """

    lengths_dtype: LengthsDType = "int64"
    step_batch: int = 1
    log_probs: bool = False
    part: Part | None = None

    @property
    def suffix(self) -> str:
        """What it adds to the stem of a file's name; empty for our own."""
        found = "_int32" if self.lengths_dtype == "int32" else ""
        found += f"_batch{self.step_batch}" if self.step_batch != 1 else ""
        return found + ("_log_probs" if self.log_probs else "")

    def named(self, stem: str) -> str:
        """Return the stem of a file's name with what it says of the interface."""
        if self.part is not None:
            said = part_of(stem)
            bare = stem.removeprefix(_PREFIX[said] if said else _WHOLE)
            stem = _PREFIX[self.part] + bare
        return stem + self.suffix

    def plain(self, stem: str) -> str:
        """Return the stem of the name that the file would have if it were called as ours are."""
        stem = stem.removesuffix(self.suffix)
        return stem if self.part is None else _WHOLE + stem.removeprefix(_PREFIX[self.part])


def part_of(stem: str) -> Part | None:
    """Return which part of a step the stem of a file's name says; None: it says none."""
    return next((part for part, prefix in _PREFIX.items() if stem.startswith(prefix)), None)


OURS = Interface()
"""int64 lengths, one hypothesis for each call of a .pte step, logits."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """The dimensions of a NeMo RNN-T model, all read from its checkpoint.

    Attributes:
        feature_dim: Input channels F of the encoder.
        d_model: Width D of the encoder's output.
        encoder_layers: Number of Conformer blocks.
        attention_heads: Heads of each block's self-attention.
        conv_kernel: Taps of each block's depthwise convolution.
        subsampling: NeMo's name of the subsampling, e.g. ``striding``.
        subsampling_factor: T' = ceil(T / subsampling_factor) for factors 2, 4 and 8.
        pred_hidden: Width H of the prediction network's LSTM.
        pred_layers: Layers L of that LSTM.
        joint_hidden: Width of the joint.
        labels: The vocabulary, without the blank.
        max_symbols: Most labels that NeMo's greedy decoding emits at one frame; None: no limit.
    """

    feature_dim: int
    d_model: int
    encoder_layers: int
    attention_heads: int
    conv_kernel: int
    subsampling: str
    subsampling_factor: int
    pred_hidden: int
    pred_layers: int
    joint_hidden: int
    labels: tuple[str, ...]
    max_symbols: int | None

    @property
    def blank_id(self) -> int:
        """NeMo's RNN-T blank: the last index, whatever stands at 0 in the labels."""
        return len(self.labels)

    @property
    def vocab_size(self) -> int:
        """Logits V per step: the labels and the blank."""
        return len(self.labels) + 1

    def encoded_length(self, frames: int) -> int:
        """Return T' for T input frames: every halving rounds up (kernel 3, stride 2, padding 1)."""
        return -(-frames // self.subsampling_factor)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and shape of one input or output."""

    name: str
    dtype: DType
    shape: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class IoContract:
    """Inputs and outputs of a file, in order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> IoContract:
        """Read what ``to_json`` wrote."""
        return cls(inputs=_specs(data["inputs"]), outputs=_specs(data["outputs"]))


def _specs(rows: list[dict[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in rows)


def encoder_contract(
    spec: ModelSpec, *, batch: Axis = "B", interface: Interface = OURS
) -> IoContract:
    """Return the encoder's contract; NeMo's output is (B, D, T'), time last.

    Args:
        spec: The model's dimensions.
        batch: 1 where the runtime takes one swipe at a time, else the name of the dynamic axis.
        interface: How the file is called.
    """
    lengths = interface.lengths_dtype
    return IoContract(
        inputs=(
            TensorSpec("features_bft", "float32", (batch, spec.feature_dim, "T")),
            TensorSpec("lengths", lengths, (batch,)),
        ),
        outputs=(
            TensorSpec("encoded_bdt", "float32", (batch, spec.d_model, "T_out")),
            TensorSpec("encoded_lengths", lengths, (batch,)),
        ),
    )


def step_contract(spec: ModelSpec, *, batch: Axis = "B", interface: Interface = OURS) -> IoContract:
    """Return the contract of one decoding step: prediction network and joint.

    ``y_prev`` is the last emitted label, or the blank id to start (NeMo's SOS: its embedding row
    is zero). ``logits`` are the joint's output before any softmax, ``log_probs`` after log-softmax.
    States are (L, B, H).
    """
    scores = LOG_PROBS if interface.log_probs else "logits"
    parts = part_contracts(spec, batch=batch)
    logits = TensorSpec(scores, "float32", (batch, spec.vocab_size))
    return replace(whole_contract(parts), outputs=(logits, *parts["predict"].outputs[1:]))


def part_contracts(spec: ModelSpec, *, batch: Axis = "B") -> dict[Part, IoContract]:
    """Return the contracts of a step's two parts, where an application calls them apart.

    ``prediction`` (B, H) is the prediction network's output. It depends on the last label and the
    states alone, so that a decoder calls ``predict`` once for each label and not for each frame.
    """
    state = (spec.pred_layers, batch, spec.pred_hidden)
    prediction = TensorSpec(PREDICTION, "float32", (batch, spec.pred_hidden))
    return {
        "predict": IoContract(
            inputs=(
                TensorSpec("y_prev", "int64", (batch,)),
                TensorSpec("h0", "float32", state),
                TensorSpec("c0", "float32", state),
            ),
            outputs=(
                prediction,
                TensorSpec("h1", "float32", state),
                TensorSpec("c1", "float32", state),
            ),
        ),
        "joint": IoContract(
            inputs=(TensorSpec("enc_t", "float32", (batch, spec.d_model)), prediction),
            outputs=(TensorSpec("logits", "float32", (batch, spec.vocab_size)),),
        ),
    }


def whole_contract(parts: Mapping[Part, IoContract]) -> IoContract:
    """Return the contract of both parts called as one step: without what goes between them."""
    predict, joint = parts["predict"], parts["joint"]

    def others(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(spec for spec in specs if spec.name != PREDICTION)

    return IoContract(
        inputs=(*predict.inputs, *others(joint.inputs)),
        outputs=(*joint.outputs, *others(predict.outputs)),
    )
