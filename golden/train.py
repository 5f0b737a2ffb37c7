"""Train the golden model: ``python -m golden.train``, some minutes of one core.

Seeded, scheduled by steps and not by time, on one thread: a repeat on the same machine gives the
same bytes. Other machines multiply in another order and give another, equally good model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from exportgate.artifacts.sidecar import sha256_of, write_text
from exportgate.data.synthetic import generate
from golden.checkpoint_io import new_model, save
from golden.config import LABELS
from golden.decoding import decode, features_of, word_accuracy
from golden.rnnt_loss import rnnt_loss
from golden.words import TRAIN_WORDS, UNSEEN_WORDS, read_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from nemo.collections.asr.models import EncDecRNNTModel
    from numpy.random import Generator
    from numpy.typing import NDArray

GOLDEN_NEMO = Path(__file__).with_name("golden.nemo")
CHECKPOINT_DIR = Path("build/golden-checkpoints")

_SORTED_BATCHES = 8  # sorted by length together, so that a batch has little padding
_CLIP_NORM = 1.0
_FINAL_LR_SHARE = 0.005
_DEV_SWIPES = 200
_FIRST_LOUD, _LAST_LOUD = 4, 8  # channels: velocity_y to acceleration
_FLAT_RANKS = 100  # a word's share falls as 1 / sqrt(100 + rank): some 9 to 1 from first to last


@dataclass(frozen=True, slots=True)
class Recipe:
    """What shapes the weights.

    Attributes:
        seed: Of weights, words and swipes.
        steps: Updates; the learning rate falls along a cosine to the last.
        batch: Swipes per update.
        warmup: Steps of rising learning rate.
        peak_lr: AdamW's learning rate after the warm-up.
        ctc_weight: Weight of the auxiliary CTC loss at the start; it falls to a tenth half-way.
    """

    seed: int = 7
    steps: int = 2800
    batch: int = 48
    warmup: int = 150
    peak_lr: float = 2.5e-3
    ctc_weight: float = 0.5

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = min(1.0, (step + 1) / self.warmup)
        cosine = 0.5 * (1.0 + math.cos(math.pi * step / self.steps))
        return self.peak_lr * warm * (_FINAL_LR_SHARE + (1.0 - _FINAL_LR_SHARE) * cosine)

    def ctc_share(self, step: int) -> float:
        """Return the weight of the CTC loss at a step."""
        return self.ctc_weight * max(0.1, 1.0 - 2.0 * step / self.steps)


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a model is taught to read.

    Attributes:
        words: Commonest first; common words come more often.
        spell: Returns a word's label ids.
        draw: Returns a swipe (N, 3) of each word, by chance from the generator.
    """

    words: Sequence[str]
    spell: Callable[[str], list[int]]
    draw: Callable[[Sequence[str], Generator], list[NDArray[np.float64]]]


def golden_lesson() -> Lesson:
    """Return the golden model's lesson: all trained words, spelled letter by letter."""
    return Lesson(
        words=read_words(TRAIN_WORDS),
        spell=lambda word: [LABELS.index(letter) for letter in word],
        draw=generate,
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """Features (B, 37, T), lengths (B,), targets (B, U) padded by 0, and their lengths (B,)."""

    features: torch.Tensor
    lengths: torch.Tensor
    targets: torch.Tensor
    target_lengths: torch.Tensor


def train(model: EncDecRNNTModel, recipe: Recipe, out: Path, keep_every: int = 0) -> None:
    """Train, write ``out`` (.nemo) and, every ``keep_every`` steps, an intermediate checkpoint."""
    for done in updates(model, recipe, golden_lesson()):
        if keep_every and done % keep_every == 0:
            _keep(model, done)
    model.eval()
    save(model, out)
    write_text(out.with_suffix(".training.json"), json.dumps(asdict(recipe), indent=1) + "\n")
    print(f"{out}: {sha256_of(out)}, weights {weights_digest(model)[:16]}", flush=True)


def updates(model: EncDecRNNTModel, recipe: Recipe, lesson: Lesson) -> Iterator[int]:
    """Train on one thread; yield the number of steps done after each.

    Whoever leaves training mode in between, to decode, has to enter it again.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    _calm_accelerations(model)
    # The CTC head aligns the encoder in the first minutes; it is no part of the saved model.
    blank = model.joint.num_classes_with_blank - 1
    ctc_head = torch.nn.Linear(model.encoder.d_model, blank + 1)
    weights = [*model.parameters(), *ctc_head.parameters()]
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=1e-3)

    model.train()
    began = time.process_time()
    losses: list[float] = []
    batches = _batches(recipe, lesson)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate(step)
        loss, ctc = _losses(model, ctc_head, next(batches))
        optimizer.zero_grad(set_to_none=True)
        (loss + recipe.ctc_share(step) * ctc).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, _CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
        done = step + 1
        if done % 100 == 0:
            mean, spent = np.mean(losses[-100:]), time.process_time() - began
            print(f"step {done}: {mean:.4f} nats/label, {spent:.0f} s of CPU", flush=True)
        yield done


def weights_digest(model: EncDecRNNTModel) -> str:
    """Return a SHA-256 over the names and bytes of the weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode("utf-8") + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _calm_accelerations(model: EncDecRNNTModel) -> None:
    """Scale the first projection's columns: accelerations reach 1e6 where positions end at 1.

    The subsampling keeps the order of the channels: column f sees the channels around
    ``f * factor``, less than one factor away.
    """
    weight, factor = model.encoder.pre_encode.out.weight, model.encoder.subsampling_factor
    channels = model.encoder.pre_encode.conv[0].out_channels
    columns = weight.detach().view(len(weight), channels, -1)  # shares the memory
    for column in range(columns.shape[2]):
        first, last = factor * (column - 1) + 1, factor * (column + 1) - 1
        if first <= _LAST_LOUD and last >= _FIRST_LOUD:
            columns[:, :, column] *= 0.02
        elif column == 0:  # x, y, t
            columns[:, :, column] *= 2.0


def _batches(recipe: Recipe, lesson: Lesson) -> Iterator[Batch]:
    rng = np.random.default_rng([recipe.seed, 1])
    # Common words more often, as they are written: the contractions have to be learnt by heart.
    share = 1.0 / np.sqrt(_FLAT_RANKS + np.arange(len(lesson.words)))
    share /= share.sum()
    while True:
        drawn = rng.choice(lesson.words, size=recipe.batch * _SORTED_BATCHES, p=share).tolist()
        swipes = lesson.draw(drawn, rng)
        order = np.argsort([len(points) for points in swipes], kind="stable")
        for rows in rng.permutation(order.reshape(_SORTED_BATCHES, recipe.batch)):
            features, lengths = features_of([swipes[row] for row in rows])
            spelled = [lesson.spell(drawn[row]) for row in rows]
            yield Batch(features, lengths, *_targets(spelled))


def _targets(spelled: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = [torch.tensor(labels) for labels in spelled]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return padded, torch.tensor([len(labels) for labels in spelled])


def _losses(
    model: EncDecRNNTModel,
    ctc_head: torch.nn.Linear,
    batch: Batch,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the RNN-T and the CTC loss, each in nats per label."""
    blank = model.joint.num_classes_with_blank - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        encoded, lengths = model.encoder(audio_signal=batch.features, length=batch.lengths)
        predicted, _, _ = model.decoder(targets=batch.targets, target_length=batch.target_lengths)
        logits = model.joint.joint(encoded.transpose(1, 2), predicted.transpose(1, 2))
    rnnt = rnnt_loss(logits, batch.targets, lengths, batch.target_lengths, blank)
    log_probs = torch.log_softmax(ctc_head(encoded.float().transpose(1, 2)), dim=-1)
    ctc = torch.nn.functional.ctc_loss(
        log_probs.transpose(0, 1),
        batch.targets,
        lengths,
        batch.target_lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return (rnnt / batch.target_lengths).mean(), (ctc / batch.target_lengths).mean()


def _keep(model: EncDecRNNTModel, step: int) -> None:
    """Write an intermediate checkpoint and print its accuracy on swipes of their own seed."""
    model.eval()
    path = CHECKPOINT_DIR / f"step-{step:05d}.nemo"
    save(model, path)
    accuracies = []
    for words in (read_words(TRAIN_WORDS), read_words(UNSEEN_WORDS)):
        rng = np.random.default_rng([step, 2])
        drawn = [words[i] for i in rng.integers(len(words), size=_DEV_SWIPES)]
        decoded = decode(model, generate(drawn, rng), batch=50)
        accuracies.append(word_accuracy(decoded, drawn))
    print(f"{path}: {accuracies[0]:.1%} of words, {accuracies[1]:.1%} of unseen words", flush=True)
    model.train()


def main() -> None:
    """Parse the command line and train."""
    defaults = Recipe()
    parser = argparse.ArgumentParser(prog="python -m golden.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--steps", type=int, default=defaults.steps)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--out", type=Path, default=GOLDEN_NEMO, help="the .nemo file to write")
    parser.add_argument(
        "--keep-every",
        type=int,
        default=0,
        metavar="STEPS",
        help=f"also write a checkpoint to {CHECKPOINT_DIR} every so many steps (0: none)",
    )
    args = parser.parse_args()
    recipe = Recipe(seed=args.seed, steps=args.steps, batch=args.batch)
    train(new_model(recipe.seed), recipe, args.out, args.keep_every)


if __name__ == "__main__":
    main()
