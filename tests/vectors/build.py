"""Build the inputs that ``*.json`` describe: a good file, and the edits that make it hostile.

Each file of vectors names a kind. A kind has a seed, which is good, and operations, each a small
function here; a vector's ``build`` lists operations with their arguments: ``["link",
"model_config.yaml", "/etc/passwd"]``. ``{outside}`` in an argument is the folder that nothing may
touch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.vectors import archives, bundles, graphs, texts

if TYPE_CHECKING:
    from collections.abc import Callable

_MANY = re.compile(r"\{(.)\*(\d+)\}")
HERE = Path(__file__).resolve().parent
OPERATIONS: dict[str, Callable[..., Path]] = {
    "nemo": archives.nemo,
    "ckpt": archives.ckpt,
    "onnx": graphs.onnx_file,
    "pte": graphs.pte_file,
    "manifest": texts.manifest,
    "gates": texts.gates,
    "contract": texts.contract,
    "lexicon": texts.lexicon,
    "report": texts.report,
    "recordings": texts.recordings,
    "sidecar": bundles.sidecar,
    "bundle": bundles.bundle,
    "verdict": bundles.verdict,
    "history": bundles.history,
}


@dataclass(frozen=True, slots=True)
class Vector:
    """A hostile input, and what has to be said about it.

    Attributes:
        kind: What it pretends to be.
        name: Unique within its kind.
        about: What is wrong with it, and what a naive reader would do.
        build: Operations and their arguments.
        says: Part of the sentence that refuses it; empty if it is taken.
        entries: Each reader that it is given to, with ``{path}`` among its arguments.
        slow: It needs NeMo or a runtime.
    """

    kind: str
    name: str
    about: str
    build: list[list[Any]]
    says: str
    entries: list[list[str]]
    slow: bool


def vectors() -> list[Vector]:
    """Return every vector of every file."""
    found = []
    for path in sorted(HERE.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        for row in data["tests"]:
            entries = row.get("entries", data["entries"])
            slow = row.get("slow", False)
            found.append(
                Vector(data["kind"], row["name"], row["about"], row["build"], row["says"], entries,
                       slow)
            )  # fmt: skip
    return found


def build(vector: Vector, folder: Path, outside: Path) -> Path:
    """Make a vector's file in a folder, and return its path."""
    steps = expanded(vector.build, str(outside))
    return OPERATIONS[vector.kind](folder, steps)


def expanded(value: Any, outside: str) -> Any:
    """Write out ``{outside}``, and ``{9*5000}`` as so many nines."""
    if isinstance(value, str):
        text = value.replace("{outside}", outside)
        return _MANY.sub(lambda found: found[1] * int(found[2]), text)
    if isinstance(value, list):
        return [expanded(item, outside) for item in value]
    if isinstance(value, dict):
        return {expanded(key, outside): expanded(item, outside) for key, item in value.items()}
    return value
