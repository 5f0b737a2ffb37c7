"""NeuroSwipe's recordings (Yandex Cup 2023): JSON lines with ``word`` and ``curve``.

``curve`` holds the lists ``x``, ``y`` (pixels of a keyboard) and ``t`` (milliseconds), and either
``grid`` with the keyboard's ``width``, ``height`` and ``keys``, or, as the data are passed on,
``grid_name``, whose keyboard then stands in a file of its own. Test sets have no words.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exportgate.data.importers.recording import (
    Dropped,
    ImportingError,
    Recording,
    lines_of,
    record_of,
    recorded,
)
from exportgate.reading import reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""


def read_neuroswipe(path: Path, grids: Mapping[str, Box]) -> Iterator[Recording]:
    """Yield what each line holds, one in memory at a time.

    Args:
        path: JSON lines.
        grids: The area of the letters of each keyboard that the lines only name.

    Raises:
        ImportingError: The file cannot be read, its first line is of another format, or a keyboard
            is named that is not known.
    """
    known = dict(grids)
    for first, (number, line) in enumerate(lines_of(path)):
        record = record_of(line)
        curve = record.get("curve") if record else None
        if not isinstance(curve, dict):
            if first == 0:
                found = ", ".join(record) if record else "no JSON object"
                msg = f"{path}:{number}: expected NeuroSwipe's field curve, found {found}"
                raise ImportingError(msg)
            yield Dropped("no curve", number)
            continue
        box = _box(f"{path}:{number}", curve, known)
        yield _recording(record.get("word") if record else None, curve, box, number)


def read_grids(path: Path) -> dict[str, Box]:
    """Read the keyboards of ``gridname_to_grid.json``: a name to ``width``, ``height``, ``keys``.

    Raises:
        ImportingError: It cannot be read as that.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): letter_area(grid) for name, grid in data.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = reason(error)
        msg = f"{path}: no keyboards ({said}); expected their names with width, height and keys"
        raise ImportingError(msg) from error


def letter_area(grid: Mapping[str, Any]) -> Box:
    """Return the area that the letters of a keyboard take, the whole keyboard if none is named.

    A manifest's unit square is the rows of letters: the row of the space bar lies below it.

    Raises:
        KeyError: It has no size.
        ValueError: The area is empty.
    """
    boxes = [
        (float(box["x"]), float(box["y"]), float(box["w"]), float(box["h"]))
        for key in grid.get("keys") or ()
        for box in [key["hitbox"]]
        if len(str(key.get("label", ""))) == 1 and str(key["label"]).isalpha()
    ]
    if not boxes:
        boxes = [(0.0, 0.0, float(grid["width"]), float(grid["height"]))]
    left, top = min(box[0] for box in boxes), min(box[1] for box in boxes)
    width = max(box[0] + box[2] for box in boxes) - left
    height = max(box[1] + box[3] for box in boxes) - top
    if not (width > 0 and height > 0):
        msg = f"its letters take {width:g} by {height:g} pixels"
        raise ValueError(msg)
    return left, top, width, height


def _box(where: str, curve: Mapping[str, Any], known: dict[str, Box]) -> Box:
    """Return the area of a curve's keyboard, and remember it if the line describes it."""
    grid = curve.get("grid")
    name = str(grid.get("grid_name") if isinstance(grid, dict) else curve.get("grid_name"))
    if name not in known:
        if not isinstance(grid, dict):
            msg = (
                f"{where}: the keyboard {name!r} is only named; "
                "give the file that describes it (gridname_to_grid.json) with --grids"
            )
            raise ImportingError(msg)
        try:
            known[name] = letter_area(grid)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            msg = (
                f"{where}: the keyboard {name!r} has no usable size ({reason(error)}); give --grids"
            )
            raise ImportingError(msg) from error
    return known[name]


def _recording(word: object, curve: Mapping[str, Any], box: Box, number: int) -> Recording:
    x, y, t = (curve.get(key) for key in ("x", "y", "t"))
    if not (isinstance(x, list) and isinstance(y, list) and isinstance(t, list)):
        return Dropped("no lists x, y and t", number)
    if not len(x) == len(y) == len(t):
        return Dropped("x, y and t of different lengths", number)
    left, top, width, height = box
    try:
        points = [
            [(float(a) - left) / width, (float(b) - top) / height, float(c)]
            for a, b, c in zip(x, y, t, strict=True)
        ]
    except (TypeError, ValueError, OverflowError):
        return Dropped("a point that is no number", number)
    return recorded(word, points, number)
