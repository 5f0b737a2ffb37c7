"""A content-addressed store of computed values, beside that of exports: ``artifacts/cache.py``.

A value's key covers everything that can shape it: its inputs, the code, the versions of what
computes it, and the processor, whose sums may end in other bits. An entry is used only if it still
has the hash that was written beside it.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.packed import PackedError, pack, unpack
from exportgate.artifacts.sidecar import atomic_write, package_versions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

MOST_BYTES = 1 << 30
"""Of one value. What a larger one saves, reading it costs."""


def answer_key(question: str, inputs: Mapping[str, object], packages: Collection[str]) -> str:
    """Return the key of a value, as hexadecimal digits.

    Args:
        question: What was computed.
        inputs: Hashes and options that it was computed from; JSON-able.
        packages: Those whose code computes it.
    """
    content = {
        "question": question,
        "inputs": dict(inputs),
        "versions": package_versions(),
        "code": source_sha256(tuple(sorted(packages))),
        "processor": _processor(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def arrays_sha256(arrays: Iterable[NDArray[Any]]) -> str:
    """Return one hash of many arrays: their types, shapes and values, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def keep(cache_folder: Path, key: str, value: Any) -> None:  # noqa: ANN401 - any plain value
    """Keep a value under a key; a very large one is not kept."""
    payload = pack(value)
    if len(payload) > MOST_BYTES:
        return
    entry = _entry(cache_folder, key)
    with atomic_write(entry) as draft:
        draft.write_bytes(payload)
    with atomic_write(_hash_of(entry)) as draft:
        draft.write_text(hashlib.sha256(payload).hexdigest() + "\n", encoding="ascii")


def kept(cache_folder: Path, key: str, types: Collection[type]) -> Any | None:  # noqa: ANN401 - as above
    """Return the value under a key; None if there is no intact entry."""
    entry = _entry(cache_folder, key)
    try:
        payload = entry.read_bytes()
        stated = _hash_of(entry).read_text(encoding="ascii").strip()
        if hashlib.sha256(payload).hexdigest() != stated:
            return None
        return unpack(payload, types)
    except (OSError, UnicodeDecodeError, PackedError):
        return None


@cache
def source_sha256(packages: tuple[str, ...]) -> str:
    """Return the hash of all Python sources of packages."""
    digest = hashlib.sha256()
    for package in packages:
        folder = Path(str(files(package)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{package}/{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _entry(cache_folder: Path, key: str) -> Path:
    return cache_folder / key / "answer.safetensors"


def _hash_of(entry: Path) -> Path:
    return entry.with_suffix(".sha256")


@cache
def _processor() -> str:
    """Return the processor's model and what it can do; which sums are taken depends on it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
