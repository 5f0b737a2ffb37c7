"""FUTO's recordings: JSON lines with ``word`` and ``data``, a list of ``{"x", "y", "t"}``.

https://huggingface.co/datasets/futo-org/swipe.futo.org: x and y in keyboard units (Q's corner is
(0, 0); a finger above or below the keyboard leaves [0, 1]), t in milliseconds. The fifth collection
has other layouts and languages (``layout``, ``language``), and swipes of two fingers
(``dual_finger``, ``data`` with ``L`` and ``R``), which are no swipe of this model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exportgate.data.importers.recording import (
    Dropped,
    ImportingError,
    Recording,
    lines_of,
    record_of,
    recorded,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAYOUT = "qwerty"
_KEYS = ("x", "y", "t")


def read_futo(path: Path) -> Iterator[Recording]:
    """Yield what each line holds, one in memory at a time.

    Raises:
        ImportingError: The file cannot be read, or its first line is of another format.
    """
    for first, (number, line) in enumerate(lines_of(path)):
        record = record_of(line)
        if first == 0 and (record is None or "data" not in record):
            found = ", ".join(record) if record else "no JSON object"
            msg = f"{path}:{number}: expected FUTO's fields word and data, found {found}"
            raise ImportingError(msg)
        yield Dropped("no JSON object", number) if record is None else _recording(record, number)


def _recording(record: dict[str, Any], number: int) -> Recording:
    data = record.get("data")
    if isinstance(data, dict) or record.get("dual_finger"):
        return Dropped("two fingers", number)
    layout = record.get("layout") or LAYOUT
    if layout != LAYOUT:
        return Dropped(f"layout {layout}", number)
    if not isinstance(data, list) or not all(isinstance(point, dict) for point in data):
        return Dropped("no list of points", number)
    if not all(key in point for point in data for key in _KEYS):
        return Dropped("a point without x, y or t", number)
    points = [[point[key] for key in _KEYS] for point in data]
    return recorded(record.get("word"), points, number)
