"""What every importer yields: a swipe, or the reason why a recording is none."""

from __future__ import annotations

import gzip
import json
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from exportgate.data.clock import clock_problem
from exportgate.data.foreign import GZIP, HEAD_BYTES, foreign_file
from exportgate.data.manifest import HIGHEST_XY, LOWEST_XY, Swipe
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class ImportingError(ExportGateError, ValueError):
    """A file of recordings cannot be read, or nothing of it can be used."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A recording that is no swipe to train or judge with.

    Attributes:
        reason: Why, in words that many recordings share: they are counted by it.
        line: Where it stands in its file, from 1.
    """

    reason: str
    line: int


_LONGEST_LINE = 16 << 20
_ONE_A_LINE = "expected a recording a line"
Recording = Swipe | Dropped


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers; a file may be compressed by gzip.

    Raises:
        ImportingError: It cannot be read.
    """
    try:
        with _opened(path) as lines:
            each = iter(lambda: lines.readline(_LONGEST_LINE + 1), b"")
            for number, line in enumerate(each, 1):
                if len(line) > _LONGEST_LINE:
                    msg = f"{path}:{number}: longer than {_LONGEST_LINE} bytes; {_ONE_A_LINE}"
                    raise ImportingError(msg)
                if line.strip():
                    yield number, line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        msg = f"{path}: cannot be read ({reason}); give a file of recordings"
        raise ImportingError(msg) from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    """Open a file, or a pipe: nothing is read twice."""
    with path.open("rb") as file:
        head = file.peek(HEAD_BYTES)[:HEAD_BYTES]
        other = foreign_file(head) if head else None
        if other:
            msg = f"{path}: is {other}"
            raise ImportingError(msg)
        packed = head.startswith(GZIP)
        yield gzip.GzipFile(fileobj=file) if packed else file


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return a line's JSON object; None if it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def recorded(word: object, points: Sequence[Sequence[float]], line: int) -> Recording:
    """Return a swipe whose times begin at 0, or why it is none.

    Args:
        word: What the user meant; quotes and punctuation around it are removed.
        points: x and y in keyboard units, t in milliseconds.
        line: Where it stands.
    """
    text = plain_word(word) if isinstance(word, str) else ""
    if not text:
        return Dropped("no word", line)
    if len(points) < 2:
        return Dropped("fewer than two points", line)
    try:
        trace = np.array(points, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        return Dropped("a point that is no number", line)
    if not np.isfinite(trace).all():
        return Dropped("a point that is not finite", line)
    reason = _unusable(trace)
    if reason:
        return Dropped(reason, line)
    return Swipe(text, trace - [0.0, 0.0, trace[0, 2]], line)


def _unusable(trace: np.ndarray[Any, np.dtype[np.float64]]) -> str | None:
    xy, times = trace[:, :2], trace[:, 2]
    if xy.min() < LOWEST_XY or xy.max() > HIGHEST_XY:
        return "more than half a keyboard outside of it"
    if (np.diff(times) < 0).any():
        return "times that run backwards"
    if clock_problem(times):
        return "times that no finger needs: too fast, too slow or another unit"
    return None


def plain_word(word: str) -> str:
    """Return a word without what stands around it in a sentence: quotes, commas, full stops."""
    text = word.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip()
    kept = [index for index, letter in enumerate(text) if letter.isalnum()]
    return text[kept[0] : kept[-1] + 1] if kept else ""
