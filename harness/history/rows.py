"""What the tables of a history may hold, whoever wrote it: SQLite keeps any type in any column."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exportgate.reading import LARGEST_TEXT_BYTES, parse_json

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

_COLUMNS = {
    "environments": {"key", "content"},
    "runs": {
        "number", "job", "checkpoint", "checkpoint_sha256", "calibration_sha256", "target",
        "device", "environment", "verdict", "finished_utc", "report",
    },
    "measurements": {"run", "subject", "metric", "value"},
    "gates": {"run", "subject", "metric", "direction", "limit", "value", "status"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """A row of ``measurements``; SQLite keeps any type in any column."""

    run: int
    subject: str
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A row of ``gates``."""

    run: int
    subject: str
    metric: str
    direction: str
    limit: float
    value: float | None
    status: str


def check_schema(connection: sqlite3.Connection) -> None:
    """Refuse a store that does more than keep rows: a view may have no end, a trigger may lie.

    Raises:
        ValueError: It does, or a table lacks a column.
    """
    columns: dict[str, set[str]] = {}
    for kind, name in connection.execute("SELECT type, name FROM sqlite_master"):
        if kind not in ("table", "index"):
            msg = f"it holds the {kind} {name!r}, expected tables alone"
            raise ValueError(msg)
        if kind == "table" and name in _COLUMNS:
            rows = connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
            columns[name] = {column for (column,) in rows}
    for name, found in columns.items():
        if lacking := sorted(_COLUMNS[name] - found):
            msg = f"its table {name} lacks {', '.join(lacking)}"
            raise ValueError(msg)


def job_of(row: Mapping[str, Any]) -> str:
    """Return a run's job; that of one without is the hash of its report."""
    return str(row["job"] or hashlib.sha256(row["report"]).hexdigest())


def unpacked(packed: bytes) -> dict[str, Any]:
    """Return a report; a kilobyte may unpack to a gigabyte.

    Raises:
        ValueError: It is none; zlib.error: it is not packed.
    """
    text = zlib.decompressobj().decompress(packed, LARGEST_TEXT_BYTES + 1)
    if len(text) > LARGEST_TEXT_BYTES:
        msg = f"a report in it has more than {LARGEST_TEXT_BYTES} bytes"
        raise ValueError(msg)
    report = parse_json(text.decode("utf-8"))
    if not isinstance(report, dict):
        msg = "a report in it is no object"
        raise TypeError(msg)
    return report


def environment_of(text: str) -> dict[str, Any]:
    """Return an environment that ``trends`` can describe.

    Raises:
        ValueError, KeyError, TypeError: It is none.
    """
    found = parse_json(text)
    for name in ("cpu", "cores", "system"):
        _ = found[name]
    if not isinstance(found["versions"], dict):
        msg = "the versions of an environment are no object"
        raise TypeError(msg)
    return dict(found)
