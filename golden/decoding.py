"""NeMo's own greedy decoding of swipes: the reference, with nothing of this project in between."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from exportgate.data.features import featurize_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nemo.collections.asr.models import EncDecRNNTModel
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Decoded:
    """One swipe's best path.

    Attributes:
        text: Joined labels.
        tokens: Label ids.
        score: Sum of the log-probabilities of the chosen symbols, in nats, as NeMo counts it.
    """

    text: str
    tokens: list[int]
    score: float


def features_of(swipes: Sequence[NDArray[np.float64]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features (B, 37, T) float32, zero-padded, and lengths (B,) int64."""
    lengths = np.array([len(points) for points in swipes], dtype=np.int64)
    points = np.zeros((len(swipes), lengths.max(), 3))
    for row, swipe in zip(points, swipes, strict=True):
        row[: len(swipe)] = swipe
    features = torch.from_numpy(featurize_batch(points, lengths)).transpose(1, 2).contiguous()
    return features, torch.from_numpy(lengths)


@torch.no_grad()
def encode(
    model: EncDecRNNTModel,
    swipes: Sequence[NDArray[np.float64]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return NeMo's encoder output (B, D, T') and its lengths (B,) int64."""
    features, lengths = features_of(swipes)
    encoded, encoded_lengths = model.forward(
        processed_signal=features, processed_signal_length=lengths
    )
    return encoded, encoded_lengths


@torch.no_grad()
def decode(
    model: EncDecRNNTModel,
    swipes: Sequence[NDArray[np.float64]],
    *,
    batch: int = 1,
) -> list[Decoded]:
    """Decode swipes greedily, ``batch`` at a time in order of length; results in given order."""
    order = sorted(range(len(swipes)), key=lambda index: len(swipes[index]))
    results: dict[int, Decoded] = {}
    for first in range(0, len(order), batch):
        rows = order[first : first + batch]
        encoded, lengths = encode(model, [swipes[row] for row in rows])
        hypotheses = model.decoding.rnnt_decoder_predictions_tensor(
            encoder_output=encoded, encoded_lengths=lengths, return_hypotheses=True
        )
        for row, best in zip(rows, hypotheses, strict=True):
            tokens = torch.as_tensor(best.y_sequence).tolist()
            results[row] = Decoded(best.text, [int(t) for t in tokens], float(best.score))
    return [results[row] for row in range(len(swipes))]


def word_accuracy(decoded: Sequence[Decoded], words: Sequence[str]) -> float:
    """Return the share of swipes whose text is exactly the word."""
    right = sum(path.text == word for path, word in zip(decoded, words, strict=True))
    return right / len(words)


@dataclass(frozen=True, slots=True)
class GreedyPath:
    """Every step that greedy decoding takes through the lattice, blanks included.

    Attributes:
        frames: (S,) int64 encoder frame of each step.
        y_prev: (S,) int64 label fed to the prediction network; the blank id before the first.
        logits: (S, V) float32 the joint's output before any softmax.
        h: (S, L, H) float32 hidden state that the prediction network returned.
        c: (S, L, H) float32 its cell state.
        tokens: The labels that were emitted.
        score: Sum of their log-probabilities in nats; as in NeMo, blanks do not count.
        min_margin_nats: Smallest distance of the best logit from the second at any step: a
            numeric error below half of it cannot change the text.
    """

    frames: torch.Tensor
    y_prev: torch.Tensor
    logits: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor
    tokens: list[int]
    score: float
    min_margin_nats: float


@torch.no_grad()
def greedy_path(
    model: EncDecRNNTModel,
    points: NDArray[np.float64],
    max_symbols: int,
) -> GreedyPath:
    """Follow greedy decoding of one swipe (N, 3) through NeMo's own modules, step by step.

    NeMo returns neither logits nor states. That this path is NeMo's is checked by its tokens and
    score.
    """
    joint = copy.deepcopy(model.joint)
    joint.log_softmax = False  # raw logits; the model itself stays as it is
    blank = joint.num_classes_with_blank - 1
    encoded, lengths = encode(model, [points])
    steps: list[tuple[int, int, torch.Tensor, torch.Tensor, torch.Tensor]] = []
    tokens: list[int] = []
    last, state = blank, None
    for frame in range(int(lengths[0])):
        at_frame = encoded[:, :, frame].unsqueeze(1)
        for _ in range(max_symbols):
            predicted, (h, c) = model.decoder.predict(torch.tensor([[last]]), state, add_sos=False)
            logits = joint.joint(at_frame, predicted)[0, 0, 0]
            steps.append((frame, last, logits, h[:, 0], c[:, 0]))
            best = int(logits.argmax())
            if best == blank:
                break  # the prediction network's new state is discarded
            tokens.append(best)
            last, state = best, (h, c)
    frames, y_prev, logits_of, h_of, c_of = zip(*steps, strict=True)
    logits = torch.stack(logits_of)
    log_probs, top = torch.log_softmax(logits, dim=-1).topk(2)
    return GreedyPath(
        frames=torch.tensor(frames),
        y_prev=torch.tensor(y_prev),
        logits=logits,
        h=torch.stack(h_of),
        c=torch.stack(c_of),
        tokens=tokens,
        score=float(log_probs[top[:, 0] != blank, 0].double().sum()),
        min_margin_nats=float((log_probs[:, 0] - log_probs[:, 1]).min()),
    )
