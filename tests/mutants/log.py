"""A log of judged mutants, a JSON line each, so that a run that was cut short goes on.

Its first line names what the verdicts depend on: the files, and the code that judges. Where that
changed, the log starts anew.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.judge import Judged

if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = Path(__file__).resolve().parents[2]
_JUDGES = ("suites", "harness", "exporters", "exportgate", "tests/mutants")


def state_of(folder: Path) -> str:
    """Return the digest of a folder's files and of the code that judges them."""
    digest = hashlib.sha256()
    code = [path for name in _JUDGES for path in (REPOSITORY / name).rglob("*")]
    files = [path for path in folder.iterdir() if path.suffix in {".onnx", ".pte", ".json"}]
    for path in sorted([*code, *files]):
        if path.suffix in {".py", ".toml", ".onnx", ".pte", ".json"}:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Log:
    """The log of one seed."""

    def __init__(self, path: Path, state: str) -> None:
        """Open a log, or begin one.

        Args:
            path: Where it is.
            state: ``state_of`` today; a log of another state is kept beside it as ``.old``.
        """
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        if lines and json.loads(lines[0]) != {"state": state}:
            path.replace(path.with_suffix(".old"))
            lines = []
        if not lines:
            path.write_text(json.dumps({"state": state}) + "\n", encoding="utf-8")
        self.known = {row.name: row for row in read_rows(lines[1:])}

    def add(self, row: Judged) -> None:
        """Append a mutant."""
        self.known[row.name] = row
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row.to_json()) + "\n")


def read_rows(lines: Iterable[str]) -> list[Judged]:
    """Read a log's lines; one that was cut off by a kill is left out, and judged again."""
    rows = []
    for line in lines:
        try:
            rows.append(Judged(**json.loads(line)))
        except (json.JSONDecodeError, TypeError):
            continue
    return rows
