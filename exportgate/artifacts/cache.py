"""A content-addressed store of exports: the same inputs, options, versions and code, the same file.

An entry's key covers everything that can shape its bytes. An entry is used only if its file still
has the hash that its sidecar states.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.sidecar import (
    ArtifactError,
    Sidecar,
    atomic_write,
    package_versions,
    read_sidecar,
    sidecar_path,
)

if TYPE_CHECKING:
    from exporters.variants import Variant


def cache_key(row: Variant, inputs: dict[str, Any]) -> str:
    """Return the key of a variant made from these inputs, as hexadecimal digits.

    Args:
        row: The variant.
        inputs: Hashes of checkpoint and calibration manifest, and the options; JSON-able.
    """
    content = {
        "variant": row.name,
        "inputs": inputs,
        "versions": package_versions(),
        "code": _code_sha256(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def fetch(cache: Path, key: str, target: Path) -> Sidecar | None:
    """Copy an entry to ``target`` with its sidecar; None if there is no intact entry."""
    entry = cache / key / "artifact"
    entry = entry.with_suffix(target.suffix)
    try:
        sidecar = read_sidecar(entry)
    except ArtifactError:
        return None
    _copy(entry, target)
    return sidecar


def store(cache: Path, key: str, source: Path) -> None:
    """Keep a file and its sidecar under a key."""
    _copy(source, cache / key / f"artifact{source.suffix}")


def _copy(source: Path, target: Path) -> None:
    for origin, place in ((source, target), (sidecar_path(source), sidecar_path(target))):
        with atomic_write(place) as draft:
            shutil.copyfile(origin, draft)


def _code_sha256() -> str:
    digest = hashlib.sha256()
    for package in ("exportgate", "exporters"):
        folder = Path(str(files(package)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()
