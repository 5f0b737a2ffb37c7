"""Make everything that stands beside the golden checkpoint: ``python -m golden.build``.

Manifests, vocabulary, what NeMo itself decodes, tensors of the named cases, and ``index.toml``,
which holds the SHA-256 of every file. Some 40 seconds of one core.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from exportgate.artifacts.sidecar import atomic_write, package_versions, sha256_of, write_text
from exportgate.data.features import feature_spec
from exportgate.data.manifest import Swipe, read_manifest, write_manifest
from golden.checkpoint_io import restore
from golden.config import LABELS, MAX_SYMBOLS
from golden.decoding import Decoded, GreedyPath, decode, encode, greedy_path, word_accuracy
from golden.manifests import (
    CALIB,
    CALIB_SEED,
    CALIB_SWIPES,
    FRESH_SEED,
    FRESH_SWIPES,
    VAL,
    VAL_SEED,
    VAL_SEEN,
    VAL_UNSEEN,
    calib_swipes,
    fresh_swipes,
    val_swipes,
)
from golden.train import GOLDEN_NEMO
from golden.words import TRAIN_WORDS, UNSEEN_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nemo.collections.asr.models import EncDecRNNTModel

HERE = Path(__file__).parent
VOCABULARY = HERE / "vocab.txt"
EXPECTED_GREEDY = HERE / "expected_greedy.json"
EXPECTED_TENSORS = HERE / "expected_tensors.safetensors"
INDEX = HERE / "index.toml"
INDEX_SCHEMA = 1

_SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Expected:
    """A swipe of val.jsonl, what NeMo decodes from it, and the path there."""

    line: int
    swipe: Swipe
    decoded: Decoded
    path: GreedyPath

    @property
    def right(self) -> bool:
        """Whether the text is the word."""
        return self.decoded.text == self.swipe.word


@dataclass(frozen=True, slots=True)
class Case:
    """A swipe that stands for something, and why it is there."""

    name: str
    why: str
    expected: Expected


def build() -> None:
    """Write all files of the folder that are made from the checkpoint and the word lists."""
    torch.set_num_threads(1)
    write_manifest(VAL, val_swipes())
    write_manifest(CALIB, calib_swipes())
    write_text(VOCABULARY, "\n".join(LABELS) + "\n")

    model = restore(GOLDEN_NEMO)
    # What is on the disk is decoded: coordinates there have six digits.
    expected = _decode_all(model, read_manifest(VAL))
    cases = _cases(expected)
    write_text(EXPECTED_GREEDY, _greedy_json(expected))
    tensors = {f"{c.name}.{k}": t for c in cases for k, t in _tensors(model, c.expected).items()}
    with atomic_write(EXPECTED_TENSORS) as draft:
        save_file(tensors, draft)

    accuracy = {
        "val": _share_right(expected),
        "val_seen": _share_right(expected[:VAL_SEEN]),
        "val_unseen": _share_right(expected[VAL_SEEN:]),
        "recorded_validation": _fresh_accuracy(model),
    }
    write_text(INDEX, _index_toml(cases, accuracy))
    for name, value in accuracy.items():
        print(f"{name}: {value:.2%}")


def _fresh_accuracy(model: EncDecRNNTModel) -> float:
    """Return the word accuracy on new swipes of unseen words."""
    fresh = fresh_swipes()
    decoded = decode(model, [swipe.points for swipe in fresh], batch=50)
    return word_accuracy(decoded, [swipe.word for swipe in fresh])


def _decode_all(model: EncDecRNNTModel, swipes: list[Swipe]) -> list[Expected]:
    decoded = decode(model, [swipe.points for swipe in swipes])
    expected = []
    for line, (swipe, by_nemo) in enumerate(zip(swipes, decoded, strict=True), 1):
        path = greedy_path(model, swipe.points, MAX_SYMBOLS)
        score_error = abs(path.score - by_nemo.score)
        if path.tokens != by_nemo.tokens or score_error > _SCORE_TOLERANCE:
            msg = (
                f"{VAL.name}:{line} ({swipe.word}): the path followed here emits {path.tokens} "
                f"with score {path.score:.6f}, NeMo {by_nemo.tokens} with {by_nemo.score:.6f}; "
                "greedy_path no longer decodes as this version of NeMo does"
            )
            raise RuntimeError(msg)
        expected.append(Expected(line, swipe, by_nemo, path))
    return expected


def _share_right(expected: Sequence[Expected]) -> float:
    return sum(row.right for row in expected) / len(expected)


def _cases(expected: list[Expected]) -> list[Case]:
    """Choose the named cases; each comes from another swipe."""
    points = sorted(len(row.swipe.points) for row in expected)
    taken: set[int] = set()
    cases: list[Case] = []

    def add(name: str, why: str, rank: Callable[[Expected], tuple[float, ...]]) -> None:
        """Take the swipe of the lowest rank that no case has taken."""
        row = min((row for row in expected if row.line not in taken), key=rank)
        taken.add(row.line)
        cases.append(Case(name, why, row))

    add(
        "wrong",
        "decoded wrongly by NeMo too: agreement with NeMo is not agreement with the word",
        lambda row: (row.right, row.line),
    )
    add(
        "narrow",
        "the smallest margin between best and second symbol: the first to change by an error",
        lambda row: (row.path.min_margin_nats,),
    )
    add(
        "shortest",
        "the fewest points and labels: few frames, and masks and windows at both ends at once",
        lambda row: (not row.right, len(row.swipe.points), len(row.decoded.tokens), row.line),
    )
    add(
        "longest",
        "the most points: the longest attention and the most steps of accumulated state",
        lambda row: (-len(row.swipe.points), -len(row.decoded.tokens), row.line),
    )
    add(
        "doubled",
        "a doubled letter: the same label twice, with the state committed in between",
        lambda row: (not (row.right and _has_double(row.swipe.word)), row.line),
    )
    add(
        "apostrophe",
        "an apostrophe has no key: only the prediction network can put it there",
        lambda row: (not (row.right and "'" in row.swipe.word), row.line),
    )
    add(
        "unseen",
        "a word that was never trained: the model spells, it does not recall",
        lambda row: (not (row.right and row.line > VAL_SEEN), row.line),
    )
    add(
        "typical",
        "median length, decoded rightly: what most swipes are like",
        lambda row: (not row.right, abs(len(row.swipe.points) - points[len(points) // 2])),
    )
    return cases


def _has_double(word: str) -> bool:
    return any(a == b for a, b in pairwise(word))


def _greedy_json(expected: list[Expected]) -> str:
    """Return what NeMo decodes, one swipe a line."""
    rows = [
        json.dumps(
            {
                "line": row.line,
                "word": row.swipe.word,
                "text": row.decoded.text,
                "tokens": row.decoded.tokens,
                "score": round(row.decoded.score, 6),
                "min_margin_nats": round(row.path.min_margin_nats, 6),
            }
        )
        for row in expected
    ]
    head = {"manifest": VAL.name, "strategy": "greedy", "max_symbols": MAX_SYMBOLS}
    head |= {"blank_id": len(LABELS)}
    return f'{json.dumps(head)[:-1]}, "swipes": [\n ' + ",\n ".join(rows) + "\n]}\n"


def _tensors(model: EncDecRNNTModel, row: Expected) -> dict[str, torch.Tensor]:
    """Return encoder output (D, T') and, step by step, what ``GreedyPath`` holds."""
    encoded, _ = encode(model, [row.swipe.points])
    path = row.path
    return {
        "encoded": encoded[0].contiguous(),
        "frames": path.frames,
        "y_prev": path.y_prev,
        "logits": path.logits,
        "h": path.h,
        "c": path.c,
    }


def _index_toml(cases: list[Case], accuracy: dict[str, float]) -> str:
    training = json.loads(GOLDEN_NEMO.with_suffix(".training.json").read_text(encoding="utf-8"))
    versions = package_versions() | {name: version(name) for name in ("numba", "safetensors")}
    files = [
        GOLDEN_NEMO,
        GOLDEN_NEMO.with_suffix(".training.json"),
        *(VAL, CALIB, VOCABULARY, TRAIN_WORDS, UNSEEN_WORDS, EXPECTED_GREEDY, EXPECTED_TENSORS),
    ]
    val = {
        "swipes": VAL_SEEN + VAL_UNSEEN,
        "seen_lines": [1, VAL_SEEN],
        "unseen_lines": [VAL_SEEN + 1, VAL_SEEN + VAL_UNSEEN],
        "seed": VAL_SEED,
    }
    fresh = {"swipes": FRESH_SWIPES, "words": "unseen, not in val.jsonl", "seed": FRESH_SEED}
    sections = [
        "# Written by `python -m golden.build`; README.md says what the files are.",
        f"schema = {INDEX_SCHEMA}\n",
        _table("files", {path.name: sha256_of(path) for path in files}),
        _table("versions", versions),
        _table("feature_spec", feature_spec()),
        _table("training", training),
        "# Share of words decoded exactly, greedily, without a lexicon.",
        _table("accuracy", {name: round(value, 4) for name, value in accuracy.items()}),
        "# The swipes behind accuracy.recorded_validation; they are drawn anew, not stored.",
        _table("recorded_validation", fresh),
        _table("val", val),
        _table("calib", {"swipes": CALIB_SWIPES, "seed": CALIB_SEED}),
    ]
    for case in cases:
        row = case.expected
        entry = {"name": case.name, "line": row.line, "word": row.swipe.word}
        entry |= {"text": row.decoded.text, "points": len(row.swipe.points), "why": case.why}
        sections.append(_table("case", entry, array=True))
    return "\n".join(sections)


def _table(name: str, values: dict[str, Any], *, array: bool = False) -> str:
    """Return a TOML table; JSON's strings, numbers and lists are TOML's too.

    Keys are quoted only where they must be: those that are file names.
    """
    head = f"[[{name}]]" if array else f"[{name}]"
    rows = [
        f"{json.dumps(key) if '.' in key else key} = {json.dumps(value)}"
        for key, value in values.items()
    ]
    return "\n".join([head, *rows]) + "\n"


if __name__ == "__main__":
    build()
