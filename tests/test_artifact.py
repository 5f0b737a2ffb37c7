"""Files are written whole or not at all, and a sidecar speaks of one file only."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant
from exportgate.artifacts import cache
from exportgate.artifacts.sidecar import (
    ArtifactError,
    Sidecar,
    atomic_write,
    read_sidecar,
    sha256_of,
    sidecar_path,
    write_text,
)
from exportgate.contract import ModelSpec, encoder_contract

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ModelSpec(37, 96, 3, 4, 15, "striding", 4, 96, 1, 128, ("a", "b"), 10)


def artifact(path: Path, payload: bytes = b"weights") -> Sidecar:
    path.write_bytes(payload)
    sidecar = Sidecar(
        variant="encoder_fp32.onnx",
        precision="fp32",
        sha256=sha256_of(path),
        size_bytes=len(payload),
        checkpoint_sha256="0" * 64,
        model=SPEC,
        blank_id=2,
        contract=encoder_contract(SPEC),
        max_trace_len=200,
        feature_spec={"version": "1", "sha256": "1" * 64},
        calibration=None,
        recipe={"opset": 17},
        lowering={},
        versions={"torch": "2"},
    )
    write_text(sidecar_path(path), sidecar.to_json())
    return sidecar


def test_a_sidecar_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    assert artifact(path) == read_sidecar(path)


def test_a_folders_hash_is_that_of_its_names_and_files(tmp_path: Path) -> None:
    found = set()
    for name, text in (("a", "1"), ("a", "2"), ("b/c", "1"), ("b/d", "1")):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        found.add(sha256_of(tmp_path / "model"))
    assert len(found) == 4
    (tmp_path / "model").rename(tmp_path / "moved")
    assert sha256_of(tmp_path / "moved") in found


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    artifact(path)
    path.write_bytes(b"weighty")
    with pytest.raises(ArtifactError, match="damaged or was replaced"):
        read_sidecar(path)


@pytest.mark.parametrize("size", [0, 6, 8, "7", None])
def test_a_sidecar_that_states_another_size_is_refused(tmp_path: Path, size: object) -> None:
    path = tmp_path / "a.onnx"
    text = artifact(path).to_json().replace('"size_bytes": 7', f'"size_bytes": {json.dumps(size)}')
    sidecar_path(path).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"has 7 bytes: the sidecar was changed|Expected `int`"):
        read_sidecar(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "malformed sidecar"),
        ("[]", "malformed sidecar"),
        ('{"schema": 99}', "schema is 99, but should be 1"),
        ('{"schema": 1}', "malformed sidecar"),
    ],
)
def test_a_malformed_sidecar_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.onnx"
    artifact(path)
    sidecar_path(path).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=message):
        read_sidecar(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(ArtifactError, match="no such artifact"):
        read_sidecar(path)
    path.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"its sidecar a\.onnx\.json is missing"):
        read_sidecar(path)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with atomic_write(path) as draft:
            draft.write_bytes(b"new, but not all of it")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_cache_returns_what_was_stored_and_refuses_what_was_damaged(tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    sidecar = artifact(source)
    cache.store(tmp_path / "cache", "key", source)
    assert cache.fetch(tmp_path / "cache", "key", target) == sidecar
    assert target.read_bytes() == source.read_bytes()
    assert read_sidecar(target) == sidecar
    assert cache.fetch(tmp_path / "cache", "other", target) is None
    (tmp_path / "cache" / "key" / "artifact.onnx").write_bytes(b"damaged")
    assert cache.fetch(tmp_path / "cache", "key", target) is None


def test_a_key_depends_on_every_input() -> None:
    row = variant("encoder_int8.onnx")
    inputs = {"checkpoint": "a", "calibration": "b", "swipes": 64}
    keys = {
        cache.cache_key(row, inputs),
        cache.cache_key(variant("encoder_fp32.onnx"), inputs),
        *(cache.cache_key(row, {**inputs, name: "changed"}) for name in inputs),
    }
    assert len(keys) == 5
    assert cache.cache_key(row, dict(inputs)) in keys
    assert replace(row) == row
