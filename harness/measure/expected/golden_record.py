"""What was recorded for a checkpoint when it was made: ``index.toml`` beside it.

NeMo's outputs are computed anew in every run. Held against those that were recorded, an upgrade of
NeMo or torch cannot move the reference and the artifacts together without anybody noticing.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exportgate.artifacts.sidecar import sha256_of
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from pathlib import Path

_MANIFEST, _EXPECTED = "val.jsonl", "expected_greedy.json"


class RecordError(ExportGateError, ValueError):
    """The index is malformed, or speaks of other files under the same names."""


@dataclass(frozen=True, slots=True)
class GoldenRecord:
    """The record for one checkpoint and one manifest.

    Attributes:
        accuracy: Share of the manifest's words that NeMo decoded right.
        tokens: NeMo's greedy tokens of each swipe; None if the index lists no expected outputs.
        scores: NeMo's score of each swipe, in nats.
    """

    accuracy: float
    tokens: tuple[tuple[int, ...], ...] | None
    scores: tuple[float, ...]


def recorded_for(checkpoint: Path, manifest: Path) -> GoldenRecord | None:
    """Return what is recorded for a checkpoint and these swipes.

    None if there is no index, or it speaks of another checkpoint or of other swipes.

    Raises:
        RecordError: The index is malformed, or was written for other files of the same names.
    """
    path = checkpoint.with_name("index.toml")
    if not path.is_file():
        return None
    try:
        index = tomllib.loads(path.read_text(encoding="utf-8"))
        hashes, accuracy = dict(index["files"]), float(index["accuracy"]["val"])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        msg = f"{path}: malformed index ({error}); expected [files] and [accuracy]"
        raise RecordError(msg) from error
    if checkpoint.name not in hashes:
        return None
    _check(checkpoint, hashes[checkpoint.name], path)
    if hashes.get(_MANIFEST) != sha256_of(manifest):
        return None
    if _EXPECTED not in hashes:
        return GoldenRecord(accuracy, None, ())
    expected = checkpoint.with_name(_EXPECTED)
    _check(expected, hashes[_EXPECTED], path)
    swipes = json.loads(expected.read_text(encoding="utf-8"))["swipes"]
    tokens = tuple(tuple(swipe["tokens"]) for swipe in swipes)
    return GoldenRecord(accuracy, tokens, tuple(float(swipe["score"]) for swipe in swipes))


def _check(path: Path, recorded: str, index: Path) -> None:
    if not path.is_file() or recorded != sha256_of(path):
        msg = f"{path}: not the file that {index} was written for; make the index again"
        raise RecordError(msg)
