"""Train the zoo: ``python -m benchmarks.zoo.train --out build/zoo [--only NAME …]``.

Some three minutes of one core for each row of ``configs.py``. Beside ``NAME.nemo`` are written
``NAME.val.jsonl`` and ``NAME.calib.jsonl``, drawn in the row's own style and words, and a line in
``INDEX.tsv``.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from nemo.collections.asr.models import EncDecRNNTModel

from benchmarks.zoo.configs import ROWS, Row
from benchmarks.zoo.dead import hold_biases_at_zero, kill_units, silence_channel
from exporters.nemo.checkpoint import load_checkpoint, quiet_nemo
from exportgate.data.manifest import Swipe, read_manifest, write_manifest
from golden.checkpoint_io import save
from golden.decoding import decode, word_accuracy
from golden.train import Lesson, updates
from golden.words import TRAIN_WORDS, read_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

VAL_SWIPES, CALIB_SWIPES = 330, 200
# Training draws from [seed, 1]; these lists have three numbers.
_VAL_SEED, _CALIB_SEED = 101, 102
_HEADER = "name\tparameters\tword_accuracy\tspecial\n"


def train_row(row: Row, out: Path) -> None:
    """Train a row and write its checkpoints, manifests and lines of the index to a folder."""
    val, calib = (out / f"{row.name}.{kind}.jsonl" for kind in ("val", "calib"))
    write_manifest(val, _swipes(row, VAL_SWIPES, _VAL_SEED))
    write_manifest(calib, _swipes(row, CALIB_SWIPES, _CALIB_SEED))
    model = new_model(row)
    for done in updates(model, row.recipe, lesson_of(row)):
        if done == row.early_step:
            _finish(model, row, f"{row.name}-early", out)
            model.train()
    _finish(model, row, row.name, out)


def words_of(row: Row) -> list[str]:
    """Return the lower-case words that a row learns, commonest first."""
    return [word for word in read_words(TRAIN_WORDS) if len(word) <= row.longest][: row.words]


def new_model(row: Row) -> EncDecRNNTModel:
    """Return a row's untrained model, its weights drawn from the row's seed."""
    torch.manual_seed(row.recipe.seed)
    with quiet_nemo():
        model = EncDecRNNTModel(cfg=row.config())
    if row.dead_units:
        kill_units(model)
    if row.zero_biases:
        hold_biases_at_zero(model)
    return model


def lesson_of(row: Row) -> Lesson:
    """Return what a row is taught: its words as it writes them, drawn in its style."""
    return Lesson(
        words=[row.vocabulary.write(word) for word in words_of(row)],
        spell=row.vocabulary.spell,
        draw=partial(_draw, row),
    )


def _draw(row: Row, written: Sequence[str], rng: Generator) -> list[NDArray[np.float64]]:
    return row.style.draw([word.lower() for word in written], rng)


def _swipes(row: Row, count: int, seed: int) -> list[Swipe]:
    """Return swipes of words that differ as long as there are enough."""
    rng = np.random.default_rng([seed, row.recipe.seed, 0])
    words = lesson_of(row).words
    drawn = [words[index] for index in rng.permutation(len(words))[:count]]
    return [Swipe(*pair) for pair in zip(drawn, _draw(row, drawn, rng), strict=True)]


def _finish(model: EncDecRNNTModel, row: Row, name: str, out: Path) -> None:
    """Write a checkpoint, and what NeMo reads with it, loaded again, to the index."""
    model.eval()
    if row.dead_units:
        silence_channel(model)
    path = out / f"{name}.nemo"
    save(model, path)
    if name != row.name:
        for kind in ("val", "calib"):
            swipes = read_manifest(out / f"{row.name}.{kind}.jsonl")
            write_manifest(out / f"{name}.{kind}.jsonl", swipes)
    loaded = load_checkpoint(path).model
    val = read_manifest(out / f"{name}.val.jsonl")
    decoded = decode(loaded, [swipe.points for swipe in val])
    accuracy = word_accuracy(decoded, [swipe.word for swipe in val])
    parameters = sum(parameter.numel() for parameter in loaded.parameters())
    _add_to_index(out / "INDEX.tsv", f"{name}\t{parameters}\t{accuracy:.3f}\t{row.reason}\n")
    print(f"{path}: {parameters} parameters, {accuracy:.1%} of words", flush=True)


def _add_to_index(path: Path, line: str) -> None:
    """Add a line, or put it in the place of an older one of the same name."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    name = line.split("\t", 1)[0]
    kept = [old for old in lines[1:] if old.split("\t", 1)[0] != name]
    path.write_text("".join([_HEADER, *kept, line]), encoding="utf-8")


def main() -> None:
    """Parse the command line and train."""
    rows = {row.name: row for row in ROWS}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--only", nargs="+", choices=rows, metavar="NAME", help="these rows only")
    parser.add_argument("--steps", type=int, help="stop after so many updates, to try a row")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only or rows:
        row = rows[name]
        if args.steps:
            recipe = dataclasses.replace(row.recipe, steps=args.steps)
            row = dataclasses.replace(row, recipe=recipe, early_step=0)
        train_row(row, args.out)


if __name__ == "__main__":
    main()
