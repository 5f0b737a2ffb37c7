"""Read a user's word list: a word a line, or a word and its frequency, as people save them.

Lists come from editors, spreadsheets and other systems: with a byte order mark, Windows line ends,
commas or tabs, a heading, typographic apostrophes, accents as marks of their own. All of these
have one meaning. What has none is refused by line.
"""

from __future__ import annotations

import codecs
import math
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

from exportgate.errors import ExportGateError
from exportgate.reading import check_regular, reason

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘ʼ＇", "'"))
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LONGEST_WORD = 200
_MOST_WORDS = 2_000_000
_LARGEST_BYTES = 64 << 20
_SEPARATORS = "\t;,"
_EXPECTED = "expected a word, or a word and a number above 0"


class LexiconError(ExportGateError, ValueError):
    """A word list that cannot be read, or that the vocabulary cannot spell."""


def read_words(path: Path, *, lower: bool) -> dict[str, float]:
    """Read a user's list: a word a line, or a word and its frequency on every line.

    Word and frequency are apart by blanks, a tab, a comma or a semicolon, one of them in the whole
    file; a first line of two headings is skipped, and so are empty lines and lines that begin with
    ``#``.

    Args:
        path: UTF-8 text, with a byte order mark or without.
        lower: Lower-case the words: a gesture has no case, and most vocabularies have no capitals.

    Returns:
        The weight of each word; 1 for each if no line has a frequency. Of a word that occurs twice
        (``Turkey``, ``turkey``) the weights are added.

    Raises:
        LexiconError: Unreadable, empty, a frequency that is not a positive number, or frequencies
            on some lines only.
    """
    rows = _rows(path)
    weights: dict[str, float] = {}
    widths: dict[int, int] = {}
    for number, fields in rows:
        widths.setdefault(len(fields), number)
        frequency = _frequency(f"{path}:{number}", fields)
        word = _normal(fields[0].lower() if lower else fields[0])
        if len(word) > _LONGEST_WORD:
            msg = f"{path}:{number}: a word of {len(word)} letters; {_EXPECTED}"
            raise LexiconError(msg)
        weights[word] = weights.get(word, 0.0) + frequency
    if not math.isfinite(sum(weights.values())):
        msg = f"{path}: its frequencies add up to more than a number holds; divide all of them"
        raise LexiconError(msg)
    if not weights:
        msg = f"{path}: no words; expected a word a line, each with its frequency or none"
        raise LexiconError(msg)
    if len(widths) > 1:
        msg = (
            f"{path}: line {widths[1]} has no frequency and line {widths[2]} has one; "
            "give every word a frequency, or none"
        )
        raise LexiconError(msg)
    return weights


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return number and fields of each line that holds a word."""
    text = _text(path)
    if text.count("\n") > _MOST_WORDS:
        msg = f"{path}: more than {_MOST_WORDS} lines; keep the commonest words of the list"
        raise LexiconError(msg)
    lines = [
        (number, line.strip())
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    separator = _separator([line for _, line in lines])
    rows = [(number, _fields(line, separator)) for number, line in lines]
    if len(rows) > 1 and _is_heading(rows[0][1], rows[1][1]):
        del rows[0]
    return rows


def _text(path: Path) -> str:
    try:
        check_regular(path)
        if path.stat().st_size > _LARGEST_BYTES:
            msg = (
                f"{path}: has {path.stat().st_size} bytes, expected at most {_LARGEST_BYTES}; keep "
                "the commonest words of the list"
            )
            raise LexiconError(msg)
        data = path.read_bytes()
        if data.startswith(_UTF16):
            msg = f"{path}: is UTF-16 text, expected UTF-8; convert it, e.g. with iconv -f utf-16"
            raise LexiconError(msg)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        msg = (
            f"{path}: cannot read the lexicon ({reason(error)}); expected UTF-8 text, a word a line"
        )
        raise LexiconError(msg) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _separator(lines: list[str]) -> str | None:
    """Return what stands between the fields of every line; None for blanks."""
    return next((mark for mark in _SEPARATORS if lines and all(mark in x for x in lines)), None)


def _fields(line: str, separator: str | None) -> list[str]:
    fields = [field.strip().strip('"').strip() for field in line.split(separator)]
    if separator == ";" and len(fields) == 2:  # spreadsheets that write 0,5 for a half
        fields[1] = fields[1].replace(",", ".")
    return fields


def _is_heading(first: list[str], second: list[str]) -> bool:
    return len(first) == len(second) == 2 and _is_word(first[1]) and bool(_number(second[1]))


def _is_word(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return True
    return False


def _number(text: str) -> float | None:
    """Return a positive number; None if the text is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _frequency(where: str, fields: list[str]) -> float:
    value = 1.0 if len(fields) == 1 else _number(fields[1])
    bare = fields[0] and not any(mark in fields[0] for mark in _SEPARATORS)
    if value is None or len(fields) > 2 or not bare or len(fields[0].split()) > 1:
        msg = f"{where}: is {' '.join(fields)!r:.80}, {_EXPECTED}"
        raise LexiconError(msg)
    return value


def _normal(word: str) -> str:
    """Return a word in the one form that vocabularies have: é is one character, ’ is '."""
    return unicodedata.normalize("NFC", word).translate(_APOSTROPHES)


def script_of(texts: Iterable[str]) -> str:
    """Return the script that most letters are of, e.g. ``Cyrillic``; "no letters" if none are."""
    found = Counter(
        unicodedata.name(character, "unknown").split()[0].capitalize()
        for text in texts
        for character in text
        if character.isalpha()
    )
    return found.most_common(1)[0][0] if found else "no letters"
