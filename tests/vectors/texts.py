"""Build text files: manifests, gates, contracts, word lists, reports and recordings."""

from __future__ import annotations

import gzip
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SWIPE = '{"word": "hi", "points": [{"x": 0.5, "y": 0.5, "t": 0}, {"x": 0.7, "y": 0.2, "t": 9}]}\n'
GATES = 'schema = 1\n\n["step_fp32.onnx"]\nsqnr_db_min = 40\n'
CONTRACT = """schema = 1
blank = 27
[files."model.onnx"]
graph = "step"
inputs.y = { is = "y_prev", axes = "B" }
inputs.h = { is = "h0", axes = "LBH" }
inputs.c = { is = "c0", axes = "LBH" }
inputs.e = { is = "enc_t", axes = "BD" }
outputs.l = { is = "logits", axes = "BV" }
outputs.a = { is = "h1", axes = "LBH" }
outputs.b = { is = "c1", axes = "LBH" }
"""


def edited(text: str, steps: list[list[Any]]) -> bytes:
    """Return a text after edits; ``bytes`` and ``gzip`` may follow."""
    data = text.encode()
    for name, *arguments in steps:
        data = _EDITS[name](data, *arguments)
    return data


def _replace(data: bytes, old: str, new: str, times: int = 1) -> bytes:
    assert old.encode() in data, old
    return data.replace(old.encode(), new.encode("utf-8", "surrogatepass") * times, 1)


_EDITS: dict[str, Callable[..., bytes]] = {
    "replace": _replace,
    "text": lambda _, text, times=1: text.encode("utf-8", "surrogatepass") * times,
    "between": lambda _, head, text, times, tail: f"{head}{text * times}{tail}".encode(),
    "append": lambda data, text, times=1: data + text.encode("utf-8", "surrogatepass") * times,
    "bytes": lambda _, digits: bytes.fromhex(digits),
    "gzip": gzip.compress,
    "nested": lambda _, head, opening, closing, depth, tail: (
        f"{head}{opening * depth}{closing * depth}{tail}".encode()
    ),
    "cut": lambda data, kept: data[:kept],
    "zeros": lambda _, count: bytes(count),
    "data": lambda data, place, value: _data(data, place, value),  # noqa: PLW0108 - it stands below
}


def _data(data: bytes, place: str, value: object) -> bytes:
    """Set a value in JSON: ``request.files``; a list's item by its number."""
    document = json.loads(data)
    node = document
    *parents, last = place.split(".")
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value
    return json.dumps(document).encode()


def _special(path: Path, what: str) -> Path:
    """Put in a file's place what never begins or never ends."""
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    return path


def manifest(folder: Path, steps: list[list[Any]]) -> Path:
    return _written(folder / "swipes.jsonl", SWIPE * 3, steps)


def gates(folder: Path, steps: list[list[Any]]) -> Path:
    return _written(folder / "gates.toml", GATES, steps)


def contract(folder: Path, steps: list[list[Any]]) -> Path:
    (folder / "model.onnx").write_bytes(b"no model")
    return _written(folder / "contract.toml", CONTRACT, steps)


def lexicon(folder: Path, steps: list[list[Any]]) -> Path:
    return _written(folder / "words.txt", "the\t5\nand\t3\n", steps)


def report(folder: Path, steps: list[list[Any]]) -> Path:
    from tests.report_page.reports import green

    names = ("step_fp32.onnx",)
    return _written(folder / "report.json", green(names).to_json(), steps)


def recordings(folder: Path, steps: list[list[Any]]) -> Path:
    line = '{"word": "hi", "data": [{"x": 0.1, "y": 0.2, "t": 0}, {"x": 0.3, "y": 0.2, "t": 50}]}\n'
    return _written(folder / "recordings.jsonl", line * 2, steps)


def _written(path: Path, text: str, steps: list[list[Any]]) -> Path:
    if steps and steps[0][0] == "become":
        return _special(path, steps[0][1])
    path.write_bytes(edited(text, steps))
    return path
