"""What NeMo itself gives for a checkpoint: the side that every artifact is compared with.

Computed once per run, in a worker: NeMo's eager FP32 encoder on each swipe alone, NeMo's own
greedy decoding, and every call of prediction network and joint along that decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.contract import IoContract, ModelSpec, encoder_contract, step_contract
from exportgate.errors import ExportGateError
from exportgate.runtime.inputs import encoder_input
from harness.decode.greedy import Hypothesis, greedy_decode
from harness.measure.coverage import LabelDrive, StepOutputs, drive_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint, LoadReport
    from exportgate.runtime.session import Arrays, Session


class ReferenceError(ExportGateError, RuntimeError):  # noqa: A001 - Python's own is about weakref
    """NeMo's decoding and ours of NeMo's own outputs differ: no verdict could be trusted."""


TIE_NATS = 1e-4
"""Lead of the best symbol over the second below which float32 does not decide."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Every call of the step while NeMo's outputs of one swipe were decoded.

    Attributes:
        y_prev: (S,) int64, symbol fed at each call.
        enc_t: (S, D) encoder frame at each call.
        commit: (S,) whether the call emitted a label, so that its state was kept.
        logits: (S, V) NeMo's joint before any softmax.
        h1: (S, L, H) hidden state after each call.
        c1: (S, L, H) cell state after each call.
    """

    y_prev: NDArray[np.int64]
    enc_t: NDArray[np.float32]
    commit: NDArray[np.bool_]
    logits: NDArray[np.float32]
    h1: NDArray[np.float32]
    c1: NDArray[np.float32]


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
    """

    checkpoint_sha256: str
    spec: ModelSpec
    load: LoadReport
    blank_row_max_abs: float
    encoded: tuple[NDArray[np.float32], ...]
    hypotheses: tuple[Hypothesis, ...]
    rollouts: tuple[Rollout, ...]


class NemoEncoder:
    """NeMo's encoder behind the session protocol."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Wrap the encoder of a loaded checkpoint."""
        self._model = checkpoint.model
        self.contract: IoContract = encoder_contract(checkpoint.spec)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``exportgate.runtime.session.Session.run``."""
        import torch  # noqa: PLC0415 - the parent process does without

        with torch.inference_mode():
            encoded, lengths = self._model.forward(
                processed_signal=torch.from_numpy(inputs["features_bft"]),
                processed_signal_length=torch.from_numpy(inputs["lengths"]),
            )
        return {"encoded_bdt": encoded.numpy(), "encoded_lengths": lengths.numpy()}


class NemoStep:
    """NeMo's prediction network and joint, before any softmax, behind the session protocol."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Wrap decoder and joint of a loaded checkpoint."""
        self._model = checkpoint.model
        self.contract: IoContract = step_contract(checkpoint.spec)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``exportgate.runtime.session.Session.run``."""
        import torch  # noqa: PLC0415 - the parent process does without

        decoder, joint = self._model.decoder, self._model.joint
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        saved = joint.log_softmax
        joint.log_softmax = False
        try:
            with torch.inference_mode():
                predicted, (hidden, cell) = decoder.predict(
                    tensors["y_prev"][:, None], (tensors["h0"], tensors["c0"]), add_sos=False
                )
                logits = joint.joint(tensors["enc_t"][:, None], predicted)[:, 0, 0]
        finally:
            joint.log_softmax = saved
        return {"logits": logits.numpy(), "h1": hidden.numpy(), "c1": cell.numpy()}


class _Recorder:
    """A step session that remembers its calls."""

    def __init__(self, step: Session) -> None:
        self.contract = step.contract
        self._step = step
        self.calls: list[tuple[Arrays, Arrays]] = []

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        outputs = self._step.run(inputs)
        self.calls.append((dict(inputs), outputs))
        return outputs

    def rollout(self, blank: int) -> Rollout:
        def gather(side: int, name: str, pick: Callable[[Any], Any]) -> NDArray[Any]:
            return np.stack([pick(call[side][name]) for call in self.calls])

        logits = gather(1, "logits", lambda a: a[0])
        return Rollout(
            y_prev=gather(0, "y_prev", lambda a: a[0]),
            enc_t=gather(0, "enc_t", lambda a: a[0]),
            commit=logits.argmax(axis=1) != blank,
            logits=logits,
            h1=gather(1, "h1", lambda a: a[:, 0]),
            c1=gather(1, "c1", lambda a: a[:, 0]),
        )


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

    encoder, spec = NemoEncoder(checkpoint), checkpoint.spec
    encoded: list[NDArray[np.float32]] = []
    hypotheses: list[Hypothesis] = []
    kept: list[Rollout] = []
    for index, item in enumerate(features):
        outputs = encoder.run(encoder_input(item))
        valid = outputs["encoded_bdt"][0, :, : int(outputs["encoded_lengths"][0])]
        recorder = _Recorder(NemoStep(checkpoint))
        ours = greedy_decode(recorder, valid, spec)
        tokens, score = _nemo_greedy(checkpoint, valid)
        # A near tie may fall either way between one frame at a time and NeMo's whole matrix.
        if tokens != ours.tokens and ours.min_margin > TIE_NATS:
            msg = (
                f"swipe {index + 1}: NeMo decodes {_text(tokens, spec)!r}, our loop over NeMo's "
                f"own step {_text(ours.tokens, spec)!r}: no verdict could be trusted"
            )
            raise ReferenceError(msg)
        encoded.append(valid)
        hypotheses.append(Hypothesis(tokens, ours.frames, score, ours.min_margin, ours.steps))
        if index < rollouts:
            kept.append(recorder.rollout(spec.blank_id))
    row = checkpoint.model.decoder.prediction["embed"].weight[spec.blank_id]
    return Reference(
        checkpoint_sha256=checkpoint.sha256,
        spec=spec,
        load=load_report(checkpoint.path, checkpoint.model),
        blank_row_max_abs=float(row.abs().max()),
        encoded=tuple(encoded),
        hypotheses=tuple(hypotheses),
        rollouts=tuple(kept),
    )


def encode(
    checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return NeMo's (D, T') encoding of each swipe alone."""
    encoder = NemoEncoder(checkpoint)
    return [encoder.run(encoder_input(item))["encoded_bdt"][0] for item in features]


def step_outputs(checkpoint: Checkpoint, drive: LabelDrive) -> StepOutputs:
    """Return what NeMo's prediction network and joint give for each row of a drive."""
    return drive_batch(NemoStep(checkpoint), drive)


def _text(tokens: Sequence[int], spec: ModelSpec) -> str:
    return "".join(spec.labels[token] for token in tokens)


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
