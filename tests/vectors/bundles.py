"""Build what the gate itself writes: sidecars, bundles with their signed verdict, histories."""

from __future__ import annotations

import json
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any

from tests.vectors.texts import edited

if TYPE_CHECKING:
    from pathlib import Path

_NAMES = ("encoder_int8.onnx", "step_fp32.pte")


def sidecar(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a file and its sidecar; edits are of the sidecar's text."""
    from tests.test_bundle import artifact

    path = artifact(folder / "step_fp32.onnx", "step_fp32.onnx")
    beside = folder / "step_fp32.onnx.json"
    own = [step for step in steps if step[0] != "artifact"]
    beside.write_bytes(edited(beside.read_text(encoding="utf-8"), own))
    for _, what, *arguments in (step for step in steps if step[0] == "artifact"):
        path.unlink()
        if what == "link":
            path.symlink_to(arguments[0])
        elif what == "folder":
            path.mkdir()
    return path


def bundle(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a bundle; edits name a file in it: ``["bundle.json", "data", "verdict", 5]``."""
    from exporters.pipeline.bundle import write_bundle
    from tests.test_bundle import artifact, rehash

    made = folder / "made"
    made.mkdir()
    paths = [artifact(made / f"mine{place}", name) for place, name in enumerate(_NAMES)]
    words = made / "words"
    words.write_text("ab\nba\n", encoding="utf-8")
    path = folder / "bundle"
    write_bundle(path, paths, lexicon=words)
    for name, *edit in steps:
        if name == "rehash":
            rehash(path, *edit)
        elif edit[0] == "link":
            (path / name).unlink(missing_ok=True)
            (path / name).symlink_to(edit[1])
        elif edit[0] == "folder":
            (path / name).unlink(missing_ok=True)
            (path / name).mkdir()
        else:
            old = (path / name).read_text("utf-8") if (path / name).is_file() else ""
            (path / name).write_bytes(edited(old, [edit]))
    return path


def history(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a history of one run; edits are statements, or of the file's bytes."""
    from harness.history.store import append
    from tests.report_page.reports import green

    path = folder / "history.db"
    append(path, json.loads(green(("step_fp32.onnx",)).to_json()))
    for name, *arguments in steps:
        if name == "sql":
            connection = sqlite3.connect(path)
            connection.executescript(arguments[0])
            connection.close()
        elif name == "report":
            _set_report(path, *arguments)
        else:
            path.write_bytes(_FILE[name](path.read_bytes(), *arguments))
    return path


def _set_report(path: Path, kind: str, *arguments: Any) -> None:
    blob = {
        "zeros": lambda count: zlib.compress(bytes(count), 9),
        "text": lambda text: zlib.compress(text.encode()),
        "raw": lambda text: text.encode(),
    }[kind](*arguments)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE runs SET report = ?", (blob,))
    connection.commit()
    connection.close()


_FILE = {
    "cut": lambda data, kept: data[:kept],
    "overwrite": lambda data, at, digits: (
        data[:at] + bytes.fromhex(digits) + data[at + len(digits) // 2 :]
    ),
    "text": lambda _, text, times=1: text.encode() * times,
}
