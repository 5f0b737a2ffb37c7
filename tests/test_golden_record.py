"""The record beside a checkpoint speaks of exactly these files, or not at all."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from exportgate.artifacts.sidecar import sha256_of
from harness.measure.expected.golden_record import GoldenRecord, RecordError, recorded_for

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("golden.nemo", "val.jsonl", "expected_greedy.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    expected = {"swipes": [{"tokens": [3, 1], "score": -0.5}]}
    for name, text in zip(NAMES, ("model", "swipes", json.dumps(expected)), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    write_index(tmp_path, NAMES)
    return tmp_path


def write_index(folder: Path, names: tuple[str, ...]) -> None:
    lines = [f'"{name}" = "{sha256_of(folder / name)}"' for name in names]
    text = "\n".join(["[files]", *lines, "[accuracy]", "val = 0.9", ""])
    (folder / "index.toml").write_text(text, encoding="utf-8")


def test_a_record_is_read(folder: Path) -> None:
    found = recorded_for(folder / "golden.nemo", folder / "val.jsonl")
    assert found == GoldenRecord(0.9, ((3, 1),), (-0.5,))


def test_an_index_without_expected_outputs_still_records_the_accuracy(folder: Path) -> None:
    write_index(folder, NAMES[:2])
    assert recorded_for(folder / "golden.nemo", folder / "val.jsonl") == GoldenRecord(0.9, None, ())


def test_no_record_for_other_swipes_another_checkpoint_or_without_an_index(folder: Path) -> None:
    other = folder / "other.jsonl"
    other.write_text("other swipes", encoding="utf-8")
    assert recorded_for(folder / "golden.nemo", other) is None
    assert recorded_for(folder / "mine.nemo", folder / "val.jsonl") is None
    (folder / "index.toml").unlink()
    assert recorded_for(folder / "golden.nemo", folder / "val.jsonl") is None


@pytest.mark.parametrize("name", ["golden.nemo", "expected_greedy.json"])
def test_a_file_that_is_not_the_recorded_one_is_an_error(folder: Path, name: str) -> None:
    (folder / name).write_text("changed", encoding="utf-8")
    with pytest.raises(RecordError, match=rf"{name}: not the file that .*index\.toml was written"):
        recorded_for(folder / "golden.nemo", folder / "val.jsonl")


@pytest.mark.parametrize("text", ["[", "[files]\n", '[files]\n[accuracy]\nval = "x"\n'])
def test_a_malformed_index_is_an_error(folder: Path, text: str) -> None:
    (folder / "index.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RecordError, match="malformed index"):
        recorded_for(folder / "golden.nemo", folder / "val.jsonl")
