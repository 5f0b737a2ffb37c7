"""Manifests of swipes: JSON lines of a word and its trace, read strictly.

``{"word": "hello", "points": [{"x": 0.1, "y": 0.2, "t": 0}, …]}``: x and y in keyboard units
(the keyboard is [0, 1] x [0, 1], y downwards), t in milliseconds since the swipe began. A recording
in other units or with broken times would calibrate and judge a model by gestures that no finger
draws, so that every doubt is an error with its file and line. Only what has one meaning is mended,
and said: a clock that does not start at 0 (a phone's uptime), blanks around a word.
"""

from __future__ import annotations

import codecs
import json
import math
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.sidecar import atomic_write
from exportgate.data.clock import clock_problem
from exportgate.data.foreign import HEAD_BYTES, foreign_manifest, foreign_record
from exportgate.errors import ExportGateError
from exportgate.reading import check_regular, unique

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LOWEST_XY, HIGHEST_XY = -0.5, 1.5
"""Fingers leave the keyboard above and below by up to a row or more; the features take such points
as they are. A coordinate beyond these is in pixels, or centred, or in another unit."""

_LONGEST_LINE = 16 << 20  # an hour of a finger
_LONGEST_WORD = 1000
_UNWRITABLE = ("Cc", "Cs")
_EXAMPLE = '{"word": "hi", "points": [{"x": 0.5, "y": 0.5, "t": 0}, {"x": 0.7, "y": 0.2, "t": 9}]}'

_ONE_A_LINE = f"expected one object a line such as {_EXAMPLE}"


class ManifestError(ExportGateError, ValueError):
    """A manifest that cannot be read as swipes; the message names file and line."""


@dataclass(frozen=True, slots=True, eq=False)
class Swipe:
    """A word and the trace that was drawn for it.

    Attributes:
        word: What the user meant.
        points: (N, 3) float64, N >= 2: x and y in keyboard units, t in ms from 0, sorted by t.
        line: Where it stands in its manifest, from 1; 0 if it comes from no file.
    """

    word: str
    points: NDArray[np.float64]
    line: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it was read.

    Attributes:
        swipes: In order.
        notes: A sentence for each thing that was mended while reading.
    """

    swipes: tuple[Swipe, ...]
    notes: tuple[str, ...]


def read_manifest(path: Path) -> list[Swipe]:
    """Read all swipes of a manifest, as ``load_manifest``, without its notes."""
    return list(load_manifest(path).swipes)


def load_manifest(path: Path) -> Manifest:
    """Read a manifest; lines that are blank are skipped, and a byte order mark is.

    Times are shifted so that every swipe begins at 0.

    Raises:
        ManifestError: The file is missing, empty or not UTF-8; a line is not such an object; a
            field is missing, of a wrong type or not finite; a trace has fewer than two points or
            goes back in time; times are not in milliseconds; coordinates are not in keyboard units.
    """
    raw = list(_lines(path))
    return Manifest(tuple(map(_mended, raw)), _notes(path, raw))


def iterate_manifest(path: Path) -> Iterator[Swipe]:
    """Yield the swipes of ``load_manifest`` in order, with one line in memory."""
    return map(_mended, _lines(path))


def _lines(path: Path) -> Iterator[Swipe]:
    """Yield each line's swipe as it is written."""
    found = False
    try:
        check_regular(path)
        with path.open("rb") as lines:
            _refuse_foreign(path, lines.read(HEAD_BYTES))
            lines.seek(0)
            for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE + 1), b""), 1):
                if len(line) > _LONGEST_LINE:
                    msg = f"{path}:{number}: longer than {_LONGEST_LINE} bytes; {_ONE_A_LINE}"
                    raise ManifestError(msg)
                if line.removeprefix(codecs.BOM_UTF8).strip():
                    found = True
                    yield _swipe(f"{path}:{number}", number, line.removesuffix(b"\n"))
    except OSError as error:
        msg = (
            f"{path}: cannot be read ({error.strerror}); "
            f"expected a file of JSON lines such as {_EXAMPLE}"
        )
        raise ManifestError(msg) from error
    if not found:
        msg = f"{path}: no swipes; expected at least one line such as {_EXAMPLE}"
        raise ManifestError(msg)


def _refuse_foreign(path: Path, head: bytes) -> None:
    what = foreign_manifest(head) if head else None
    if what:
        msg = f"{path}: is {what}; expected JSON lines such as {_EXAMPLE}"
        raise ManifestError(msg)


def _mended(swipe: Swipe) -> Swipe:
    start = np.array([0.0, 0.0, swipe.points[0, 2]])
    return Swipe(swipe.word.strip(), swipe.points - start, swipe.line)


def _notes(path: Path, raw: list[Swipe]) -> tuple[str, ...]:
    """Say what ``_mended`` changes."""
    late = [swipe for swipe in raw if swipe.points[0, 2] != 0]
    blank = [swipe.line for swipe in raw if swipe.word != swipe.word.strip()]
    notes = []
    if late:
        notes.append(
            f"{path}: the times of {len(late)} of {len(raw)} swipes do not begin at 0 "
            f"(line {late[0].line}: {late[0].points[0, 2]:.15g} ms); shifted so that they do"
        )
    if blank:
        notes.append(
            f"{path}: blanks around the words of {len(blank)} swipes ({lines_text(blank)}) removed"
        )
    return tuple(notes)


def write_manifest(path: Path, swipes: Iterable[Swipe]) -> None:
    """Write a manifest atomically: x and y to 6 digits, t in whole milliseconds."""
    with atomic_write(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        for swipe in swipes:
            points = [
                {"x": round(x, 6), "y": round(y, 6), "t": round(t)}
                for x, y, t in swipe.points.tolist()
            ]
            line = {"word": swipe.word, "points": points}
            file.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


def _swipe(where: str, number: int, line: bytes) -> Swipe:
    """Parse one line; ``where`` is its file and number. Times and word stay as they are written."""
    record = _parsed(where, line)
    if not isinstance(record, dict):
        msg = f"{where}: is a JSON {_kind(record)}, expected an object such as {_EXAMPLE}"
        raise ManifestError(msg)
    foreign = foreign_record(set(record)) if "points" not in record else None
    if foreign:
        msg = f"{where}: holds {foreign}"
        raise ManifestError(msg)
    word = _field(where, record, "word", "the word that the user meant")
    if not isinstance(word, str) or not word.strip():
        msg = f"{where}: 'word' is {word!r}, expected a non-empty string"
        raise ManifestError(msg)
    letters = word.strip()  # blanks around it, tabs too, are removed and said
    if len(letters) > _LONGEST_WORD or any(
        unicodedata.category(letter) in _UNWRITABLE for letter in letters
    ):
        msg = (
            f"{where}: 'word' is {word[:40]!a}, expected at most {_LONGEST_WORD} letters and "
            "no control characters"
        )
        raise ManifestError(msg)
    points = _field(where, record, "points", "the list of points of the trace")
    if not isinstance(points, list):
        msg = f"{where}: 'points' is a JSON {_kind(points)}, expected a list of objects x, y, t"
        raise ManifestError(msg)
    if len(points) < 2:
        msg = (
            f"{where}: the trace has {len(points)} points, expected at least 2: without motion "
            "there is no gesture; remove the line if it was a tap"
        )
        raise ManifestError(msg)
    trace = [_point(f"{where}: point {index}", point) for index, point in enumerate(points)]
    _check_times(where, trace)
    return Swipe(word, np.array(trace, dtype=np.float64), number)


def _parsed(where: str, line: bytes) -> object:
    line = line.removeprefix(codecs.BOM_UTF8)  # anywhere: manifests are joined by `cat`
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = (
            f"{where}: byte {line[error.start]:#04x} at column {error.start + 1} is not UTF-8; "
            "convert the manifest, e.g. with iconv -t utf-8"
        )
        raise ManifestError(msg) from error
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError as error:
        msg = f"{where}: nested too deep; {_ONE_A_LINE}"
        raise ManifestError(msg) from error
    except ValueError as error:  # too many digits are a plain one
        msg = f"{where}: not valid JSON ({_json_problem(text, error)}); {_ONE_A_LINE}"
        raise ManifestError(msg) from error


def _json_problem(text: str, error: ValueError) -> str:
    """Return what a line is that is no JSON, for the commonest ones in words."""
    line = text.strip()
    if line in ("{", "["):
        return "an object goes over several lines; jq -c . writes each on one"
    if line.startswith("{'"):
        return "it is a Python dict as print() shows it; write it with json.dumps()"
    at = error.pos if isinstance(error, json.JSONDecodeError) else 0
    rest = text[at:].strip()
    if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
        return f"after its object it goes on with {rest[:12]!r}; take that off or break the line"
    if line.startswith("{") and not rest:
        return "it is cut off; copy the file again"
    return str(error)


def _point(where: str, point: object) -> tuple[float, float, float]:
    if not isinstance(point, dict):
        msg = f'{where} is a JSON {_kind(point)}, expected an object such as {{"x":…,"y":…,"t":…}}'
        raise ManifestError(msg)
    x = _number(where, point, "x", "a coordinate in [0, 1] across the keyboard")
    y = _number(where, point, "y", "a coordinate in [0, 1] down the keyboard")
    t = _number(where, point, "t", "a time in milliseconds")
    for name, value in (("x", x), ("y", y)):
        if not LOWEST_XY <= value <= HIGHEST_XY:
            msg = (
                f"{where} has {name} = {value:g}, expected a value in [0, 1] over the keyboard, or "
                f"up to half of it outside ([{LOWEST_XY}, {HIGHEST_XY}]); {_unit(value)}"
            )
            raise ManifestError(msg)
    return x, y, t


def _unit(value: float) -> str:
    """Return what a coordinate is probably given in."""
    if -1.0 <= value < 0.0:
        return "coordinates in [-1, 1] must be moved and halved: (x + 1) / 2"
    return "pixels, or another unit, must be divided by the keyboard's width and height in it"


def _number(where: str, point: dict[str, Any], name: str, meaning: str) -> float:
    value = _field(where, point, name, meaning)
    # bool is a subclass of int, and `true` is no coordinate.
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"{where}: {name!r} is a JSON {_kind(value)} ({value!r}), expected {meaning}"
        raise ManifestError(msg)
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        number = math.inf
    if not math.isfinite(number):
        msg = f"{where}: {name!r} is {number}, expected {meaning}; drop the point or the swipe"
        raise ManifestError(msg)
    return number


def _field(where: str, record: dict[str, Any], name: str, meaning: str) -> object:
    if name not in record:
        present = ", ".join(map(repr, record)) or "nothing"
        msg = f"{where}: {name!r} is missing (found {present}), expected {meaning}"
        raise ManifestError(msg)
    return record[name]


def _check_times(where: str, trace: list[tuple[float, float, float]]) -> None:
    """Refuse times that go back or are no milliseconds; equal ones are reported by some screens."""
    for index, (before, after) in enumerate(pairwise(trace), 1):
        if after[2] < before[2]:
            msg = (
                f"{where}: point {index} has t = {after[2]:g} ms after {before[2]:g} ms, expected "
                "times that never decrease; sort the points or drop the swipe"
            )
            raise ManifestError(msg)
    problem = clock_problem(np.array([t for _, _, t in trace]))
    if problem:
        msg = f"{where}: {problem}"
        raise ManifestError(msg)


def _kind(value: object) -> str:
    """Return JSON's own name of a parsed value's type."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def lines_text(lines: Sequence[int], most: int = 5) -> str:
    """Return lines for a message: ``line 7``, ``lines 3, 5, 9 and 12 more``."""
    shown = ", ".join(map(str, lines[:most]))
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return f"line{'s' if len(lines) != 1 else ''} {shown}{more}"
