"""Read small files that come from somebody else: of a bounded size, as data and nothing more.

A parser that is handed gigabytes, a pipe that nobody writes to, or a thousand brackets does not
fail: it fills the memory, waits, or raises what no caller expects. Here all of that is one
``ValueError`` that says what is wrong, so that callers have one line to catch it with.
"""

from __future__ import annotations

import errno
import json
import math
import stat
import tomllib
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

_Shape = TypeVar("_Shape")
_OF_PYTHON = ("object", "indices", "index out of range", "unhashable", "unsupported operand")

LARGEST_TEXT_BYTES = 64 << 20
"""More than any description that this project writes; a report with all samples has 5 MB."""
LARGEST_TOML_BYTES = 4 << 20
"""The gates of this project have 40 kB; the parser takes a second for 10 MB."""
_NOT_REGULAR = "it is no regular file"
MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError)
"""What reading well-formed JSON or TOML raises if its content has another shape than expected."""


def reason(error: Exception) -> str:
    """Return what is wrong with a file in words; Python's own speak of its types to nobody."""
    if isinstance(error, KeyError):
        return (
            f"{error.args[0]!r} is missing, or nothing that is known"
            if error.args
            else "a part is missing"
        )
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, (TypeError, AttributeError, IndexError)):
        said = str(error)
        of_python = any(word in said for word in _OF_PYTHON)
        return "a part of it has another type or length than expected" if of_python else said
    return str(error) or type(error).__name__


def check_regular(path: Path) -> None:
    """Refuse what nobody may write to, or what never ends: a pipe, a socket, a device.

    Raises:
        OSError: There is no such file, or it is none of those that one reads to their end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))


def read_text(path: Path, limit_bytes: int = LARGEST_TEXT_BYTES) -> str:
    """Return the UTF-8 text of a regular file; a byte order mark stays where it is.

    Raises:
        OSError: It cannot be read, or is no regular file.
        ValueError: It is too large, or not UTF-8.
    """
    check_regular(path)
    size = path.stat().st_size
    if size > limit_bytes:
        msg = f"it has {size} bytes, more than the {limit_bytes} that are read"
        raise ValueError(msg)
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"it is not UTF-8 text: byte {data[error.start]:#04x} at {error.start}"
        raise ValueError(msg) from error


def read_json(path: Path, limit_bytes: int = LARGEST_TEXT_BYTES) -> Any:  # noqa: ANN401 - whatever it holds
    """Return the JSON value in a file, as strictly as the standard has it.

    Raises:
        OSError: It cannot be read.
        ValueError: See ``read_text`` and ``parse_json``.
    """
    return parse_json(read_text(path, limit_bytes))


def parse_json(text: str) -> Any:  # noqa: ANN401 - as above
    """Return a JSON value.

    Raises:
        ValueError: No JSON; nested too deep; a name twice in one object, which readers take
            differently; half of a surrogate pair, which cannot be printed; a number that is none
            (``NaN``) or too large for one.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=unique, parse_constant=_no_number, parse_float=_finite
        )
    except RecursionError as error:
        msg = "it is nested too deep"
        raise ValueError(msg) from error
    if "\\u" in text:  # only an escape can say so
        _check_printable(value)
    return value


def shaped(data: object, shape: type[_Shape], *, only: bool = True) -> _Shape:
    """Return plain data as a dataclass or typed dictionary, each value of the type stated there.

    Args:
        data: Plain values, as JSON and TOML have them.
        shape: What they should be.
        only: Nothing else may be there.

    Raises:
        ValueError: A value has another type, is missing, or is none that the type knows; the
            message names its place, from ``$``.
    """
    try:
        found = msgspec.convert(data, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        msg = str(error)
        raise ValueError(msg) from error
    if only:
        _check_known(data, msgspec.to_builtins(found), "$")
    return found


def _check_known(data: object, known: object, place: str) -> None:
    """Refuse what is there without standing in the type: nobody knows what it would mean."""
    if isinstance(data, dict) and isinstance(known, dict):
        for key, value in data.items():
            if key not in known:
                msg = f"nobody knows what {key!r} means - at `{place}`"
                raise ValueError(msg)
            _check_known(value, known[key], f"{place}.{key}")


def read_toml(path: Path, limit_bytes: int = LARGEST_TOML_BYTES) -> dict[str, Any]:
    """Return the tables of a TOML file; a byte order mark is skipped.

    Raises:
        OSError: It cannot be read.
        ValueError: See ``read_text``; or no TOML, or nested too deep.
    """
    try:
        return tomllib.loads(read_text(path, limit_bytes).removeprefix("\ufeff"))
    except RecursionError as error:
        msg = "it is nested too deep"
        raise ValueError(msg) from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's names and values, for ``object_pairs_hook``.

    Raises:
        ValueError: A name is there twice: some readers take the first, others the last.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        msg = f"{twice!r} is there twice in one object"
        raise ValueError(msg)
    return found


def _no_number(name: str) -> NoReturn:
    msg = f"{name} is no number of JSON"
    raise ValueError(msg)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        msg = f"{text:.40} is too large for a number"
        raise ValueError(msg)
    return value


def _check_printable(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"it holds half of a surrogate pair, {error.object[error.start]!a}"
        raise ValueError(msg) from error
