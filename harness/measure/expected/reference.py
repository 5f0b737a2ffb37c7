"""What NeMo itself gives for a checkpoint: the side that every artifact is compared with.

Computed once per run, in a worker: NeMo's eager FP32 encoder on each swipe alone, NeMo's own
greedy decoding, and every call of prediction network and joint along that decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exportgate.errors import ExportGateError
from exportgate.levels import level
from exportgate.runtime.inputs import encoder_input
from exportgate.transducer import Transducer, follow
from harness.decode.greedy import Hypothesis, hypotheses_of
from harness.decode.spelling import spell
from harness.measure.coverage import LabelDrive, StepOutputs, drive_batch
from harness.measure.expected.each import each
from harness.measure.expected.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.nemo.load_report import LoadReport
    from exporters.variants import Graph
    from exportgate.contract import ModelSpec, Part
    from exportgate.transducer import Call


class ReferenceError(ExportGateError, RuntimeError):  # noqa: A001 - Python's own is about weakref
    """NeMo's decoding and ours of NeMo's own outputs differ: no verdict could be trusted."""


@dataclass(frozen=True, slots=True)
class Reference:
    """NeMo's outputs for a manifest.

    Attributes:
        checkpoint_sha256: Of the checkpoint.
        spec: Its dimensions and vocabulary.
        load: How file and loaded model compare.
        blank_row_max_abs: Largest magnitude in the blank's embedding row; NeMo keeps it zero.
        encoded: (D, T') valid frames for each swipe.
        hypotheses: Greedy decoding of each swipe; tokens and score are NeMo's.
        rollouts: Step calls of the first swipes.
        matrix_weights: Number of weights of the matrices of each graph, ``encoder`` and ``step``,
            and of each part of the step, ``predict`` and ``joint``.
    """

    checkpoint_sha256: str
    spec: ModelSpec
    load: LoadReport
    blank_row_max_abs: float
    encoded: tuple[NDArray[np.float32], ...]
    hypotheses: tuple[Hypothesis, ...]
    rollouts: tuple[Rollout, ...]
    matrix_weights: Mapping[Graph | Part, int]


def load(path: Path) -> Checkpoint:
    """Load a checkpoint in a worker."""
    import torch  # noqa: PLC0415 - the parent process does without

    from exporters.nemo.checkpoint import load_checkpoint  # noqa: PLC0415 - NeMo takes seconds

    torch.set_num_threads(1)
    return load_checkpoint(path)


def spec_of(checkpoint: Checkpoint) -> ModelSpec:
    """Return the dimensions of a checkpoint that lives in a worker."""
    return checkpoint.spec


def compute(
    checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]], rollouts: int
) -> Reference:
    """Compute the reference for swipes, each alone.

    Args:
        checkpoint: The loaded model.
        features: (F, T) for each swipe.
        rollouts: For how many swipes to keep every step call.

    Raises:
        ReferenceError: Our decoding of NeMo's outputs is not NeMo's.
    """
    from exporters.nemo.checkpoint import load_report  # noqa: PLC0415 - NeMo takes seconds

    def decode(index: int) -> Decoded:
        return _decode(checkpoint, index, features[index], keep=index < rollouts)

    decoded = each(decode, range(len(features)))
    rules = Transducer.of(checkpoint.spec)
    row = checkpoint.model.decoder.prediction["embed"].weight[rules.start]
    return Reference(
        checkpoint_sha256=checkpoint.sha256,
        spec=checkpoint.spec,
        load=load_report(checkpoint.path, checkpoint.model),
        blank_row_max_abs=float(row.abs().max()),
        encoded=tuple(item.encoded for item in decoded),
        hypotheses=tuple(item.hypothesis for item in decoded),
        rollouts=tuple(item.rollout for item in decoded if item.rollout is not None),
        matrix_weights=_matrix_weights(checkpoint),
    )


class Decoded(NamedTuple):
    """A swipe's encoding, its decoding, and the calls of the step if they are kept."""

    encoded: NDArray[np.float32]
    hypothesis: Hypothesis
    rollout: Rollout | None


def _decode(
    checkpoint: Checkpoint, index: int, features: NDArray[np.float32], *, keep: bool
) -> Decoded:
    """Encode and decode one swipe; in a batch, NeMo's sums would move the margins by 5e-6 nats.

    Raises:
        ReferenceError: See ``compute``.
    """
    from exporters.nemo.sessions import NemoStep  # noqa: PLC0415 - NeMo takes seconds

    spec, rules = checkpoint.spec, Transducer.of(checkpoint.spec)
    encoded = _encode(checkpoint, features)
    calls = list(follow(NemoStep(checkpoint), [encoded], spec, rules))
    (ours,) = hypotheses_of(calls, 1, rules)
    tokens, score = _nemo_greedy(checkpoint, encoded)
    # A near tie may fall either way between one frame at a time and NeMo's whole matrix.
    if tokens != ours.tokens and ours.min_margin > level("tie_nats"):
        msg = (
            f"swipe {index + 1}: NeMo decodes {spell(tokens, spec.labels)!r}, our loop over "
            f"NeMo's own step {ours.text(spec.labels)!r}: no verdict could be trusted"
        )
        raise ReferenceError(msg)
    hypothesis = Hypothesis(tokens, ours.frames, score, ours.min_margin, ours.steps)
    return Decoded(encoded, hypothesis, _rollout(calls) if keep else None)


def _matrix_weights(checkpoint: Checkpoint) -> dict[Graph | Part, int]:
    """Count what a frame or a symbol is multiplied with: linears, 1 × 1 convolutions, LSTMs."""
    model = checkpoint.model
    predict, joint = _weights_of_products(model.decoder), _weights_of_products(model.joint)
    return {
        "encoder": _weights_of_products(model.encoder),
        "step": predict + joint,
        "predict": predict,
        "joint": joint,
    }


def _weights_of_products(module: nn.Module) -> int:
    from torch import nn  # noqa: PLC0415 - the parent process does without

    count = 0
    for part in module.modules():
        if isinstance(part, nn.LSTM):
            count += sum(w.numel() for name, w in part.named_parameters() if "weight" in name)
        elif isinstance(part, nn.Linear) or (
            isinstance(part, nn.Conv1d | nn.Conv2d) and set(part.kernel_size) == {1}
        ):
            count += part.weight.numel()
    return count


def encode(
    checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return NeMo's (D, T') encoding of each swipe alone."""
    return each(lambda item: _encode(checkpoint, item), features)


def _encode(checkpoint: Checkpoint, features: NDArray[np.float32]) -> NDArray[np.float32]:
    from exporters.nemo.sessions import NemoEncoder  # noqa: PLC0415 - NeMo takes seconds

    outputs = NemoEncoder(checkpoint).run(encoder_input(features))
    return outputs["encoded_bdt"][0, :, : int(outputs["encoded_lengths"][0])]


def step_outputs(checkpoint: Checkpoint, drive: LabelDrive) -> StepOutputs:
    """Return what NeMo's prediction network and joint give for each row of a drive."""
    from exporters.nemo.sessions import NemoStep  # noqa: PLC0415 - NeMo takes seconds

    return drive_batch(NemoStep(checkpoint), drive)


def rollout(checkpoint: Checkpoint, encoded: NDArray[np.float32]) -> Rollout:
    """Return every call of NeMo's step while one swipe's (D, T') encoding is decoded."""
    from exporters.nemo.sessions import NemoStep  # noqa: PLC0415 - NeMo takes seconds

    spec = checkpoint.spec
    return _rollout(list(follow(NemoStep(checkpoint), [encoded], spec, Transducer.of(spec))))


def margin_error(
    checkpoint: Checkpoint, encoded: NDArray[np.float32], other: NDArray[np.float32]
) -> float:
    """Return by how many nats another encoding moves the lead of one symbol over another at most.

    Along NeMo's decoding of ``encoded``, with its symbols and states: no decision is changed.

    Args:
        checkpoint: The model.
        encoded: (D, T') NeMo's valid frames of a swipe.
        other: (D, T') the same of a file.
    """
    from exporters.nemo.sessions import NemoStep  # noqa: PLC0415 - NeMo takes seconds

    if encoded.shape != other.shape:
        return float("inf")
    spec, step, largest = checkpoint.spec, NemoStep(checkpoint), 0.0
    for call in follow(step, [encoded], spec, Transducer.of(spec)):
        frames = np.ascontiguousarray(other[:, call.places].T)
        moved = step.run({**call.inputs, "enc_t": frames})["logits"] - call.outputs["logits"]
        largest = max(largest, float(np.ptp(moved.astype(np.float64), axis=1).max()))
    return largest


def _rollout(calls: Sequence[Call]) -> Rollout:
    """Return every call of a decoding of one swipe."""
    return Rollout(
        y_prev=np.concatenate([call.inputs["y_prev"] for call in calls]),
        enc_t=np.concatenate([call.inputs["enc_t"] for call in calls]),
        commit=np.concatenate([call.decision.commits for call in calls]),
        logits=np.concatenate([call.outputs["logits"] for call in calls]),
        h1=np.stack([call.outputs["h1"][:, 0] for call in calls]),
        c1=np.stack([call.outputs["c1"][:, 0] for call in calls]),
    )


def _nemo_greedy(
    checkpoint: Checkpoint, encoded: NDArray[np.float32]
) -> tuple[tuple[int, ...], float]:
    """Decode with NeMo itself, scores as log-probabilities whatever the configuration says."""
    import torch  # noqa: PLC0415 - the parent process does without

    model = checkpoint.model
    saved = model.joint.log_softmax
    model.joint.log_softmax = True
    try:
        with torch.inference_mode():
            hypothesis = model.decoding.rnnt_decoder_predictions_tensor(
                encoder_output=torch.from_numpy(encoded[None]),
                encoded_lengths=torch.tensor([encoded.shape[1]]),
                return_hypotheses=True,
            )[0]
    finally:
        model.joint.log_softmax = saved
    tokens = torch.as_tensor(hypothesis.y_sequence).tolist()
    return tuple(int(token) for token in tokens), float(hypothesis.score)
