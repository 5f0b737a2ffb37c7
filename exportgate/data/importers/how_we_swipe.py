"""How We Swipe's logs (https://osf.io/sj67f): an event of a touch screen on each line.

Space separated: ``sentence timestamp keyb_width keyb_height event x_pos y_pos x_radius y_radius
angle word is_err``, perhaps more. Times are milliseconds since 1970, positions are pixels of a
keyboard whose size stands in each row, and may change. The study ran in the wild: words are tried
again until they are right (``is_err`` 1 before), touches end that never began, a second finger
begins before the first ends, rows are cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exportgate.data.importers.recording import (
    Dropped,
    ImportingError,
    Recording,
    lines_of,
    recorded,
)
from exportgate.data.manifest import Swipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = (
    *("sentence", "timestamp", "keyb_width", "keyb_height", "event", "x_pos", "y_pos"),
    *("x_radius", "y_radius", "angle", "word", "is_err"),
)
_START, _MOVE, _END, _CANCEL = "touchstart", "touchmove", "touchend", "touchcancel"
_EVENTS = (_START, _MOVE, _END, _CANCEL)


@dataclass(frozen=True, slots=True)
class _Row:
    sentence: str
    event: str
    point: tuple[float, float, float]
    word: str
    is_err: bool


@dataclass(slots=True)
class _Touch:
    """A touch that began and has not ended.

    Attributes:
        line: Of its beginning.
        rows: Of its events.
        reason: Why it will be dropped; empty if it will not.
    """

    line: int
    rows: list[_Row] = field(default_factory=list)
    reason: str = ""

    def ends_with(self, row: _Row) -> bool:
        """Take its next event; return whether that is its end."""
        self.rows.append(row)
        if row.event == _CANCEL:
            self.reason = "cancelled"
        return row.event in (_END, _CANCEL)

    def recording(self) -> Recording:
        """Return the swipe that it was, or why it was none."""
        first = self.rows[0]
        if any(row.word != first.word or row.sentence != first.sentence for row in self.rows):
            return Dropped("rows of different words", self.line)
        if any(row.is_err for row in self.rows):
            return Dropped("another word was entered (is_err)", self.line)
        if self.reason:
            return Dropped(self.reason, self.line)
        return recorded(first.word, [row.point for row in self.rows], self.line)


def read_how_we_swipe(path: Path) -> Iterator[Recording]:
    """Yield the swipes of a log, one in memory at a time; of a word tried again, the last.

    Raises:
        ImportingError: The file cannot be read, or does not begin with the log's columns.
    """
    waiting: tuple[str, Recording] | None = None  # a swipe that the next one may replace
    for sentence, recording in _touches(path):
        if isinstance(recording, Dropped):
            yield recording
            continue
        if waiting is not None:
            before, kept = waiting
            again = isinstance(kept, Swipe) and (before, kept.word) == (sentence, recording.word)
            yield Dropped("tried again", kept.line) if again else kept
        waiting = (sentence, recording)
    if waiting is not None:
        yield waiting[1]


def _touches(path: Path) -> Iterator[tuple[str, Recording]]:
    """Yield each touch with the sentence that it belongs to, in the order of their ends."""
    touch: _Touch | None = None
    for number, row in _rows(path):
        if touch is None:
            if row is not None and row.event == _START:
                touch = _Touch(number, [row])
            else:
                yield "", _stray(number, row)
        elif row is None:
            touch.reason = "a row within it is cut off or no event"
        elif row.event == _START:
            yield "", Dropped("another touch began before its end", touch.line)
            touch = _Touch(number, [row])
        elif touch.ends_with(row):
            yield row.sentence, touch.recording()
            touch = None
    if touch is not None:
        yield "", Dropped("the log ends before it", touch.line)


def _stray(number: int, row: _Row | None) -> Dropped:
    """Return what a row is called that belongs to no touch."""
    what = "a row that is cut off or no event" if row is None else f"{row.event} without {_START}"
    return Dropped(what, number)


def _rows(path: Path) -> Iterator[tuple[int, _Row | None]]:
    """Yield the rows below the names of the columns; None for what is no event."""
    for first, (number, line) in enumerate(lines_of(path)):
        fields = line.decode("utf-8", errors="replace").split()
        named = tuple(fields[: len(COLUMNS)]) == COLUMNS
        if first == 0 and not named:
            msg = f"{path}:{number}: expected the columns {' '.join(COLUMNS)}; is it such a log?"
            raise ImportingError(msg)
        if not named:
            yield number, _row(fields)


def _row(fields: list[str]) -> _Row | None:
    """Return a row with its point in keyboard units; None if it is no event of a keyboard."""
    if len(fields) < len(COLUMNS):
        return None
    sentence, time, width, height, event, x, y, _, _, _, word, error = fields[: len(COLUMNS)]
    try:
        point = (float(x) / float(width), float(y) / float(height), float(time))
    except (ValueError, ZeroDivisionError):
        return None
    if event not in _EVENTS or error not in ("0", "1") or float(width) < 0 or float(height) < 0:
        return None
    return _Row(sentence, event, point, word, error == "1")
