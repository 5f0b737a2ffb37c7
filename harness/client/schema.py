"""Check JSON against a JSON schema: the keywords that the bundle's schemas use, and no others."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FOLDER = Path(__file__).resolve().parent
_ANNOTATIONS = frozenset({"$schema", "$defs", "title", "description"})
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


class SchemaError(ExportGateError, ValueError):
    """A document is not what its schema says, or a schema says what nothing here checks."""


@cache
def schema(name: str) -> dict[str, Any]:
    """Return a schema by its file's name, e.g. ``decode.schema.json``."""
    found: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return found


def check_document(document: object, name: str, where: str) -> None:
    """Check a parsed document.

    Args:
        document: What ``json.loads`` gave.
        name: Of the schema's file.
        where: The document's path, for messages.

    Raises:
        SchemaError: It does not fit; the message names the place in the document.
    """
    root = schema(name)
    problem = _problem(document, root, root, "")
    if problem:
        msg = f"{where}: {problem}; write it again with `exportgate bundle specify`"
        raise SchemaError(msg)


def _problem(value: Any, rule: Mapping[str, Any], root: Mapping[str, Any], at: str) -> str | None:  # noqa: ANN401 - JSON
    """Return what is wrong first, depth first; None if nothing is."""
    if "$ref" in rule:
        return _problem(value, root["$defs"][rule["$ref"].removeprefix("#/$defs/")], root, at)
    for keyword, wanted in rule.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword not in _CHECKS:
            msg = f"schema keyword {keyword!r} at {at or 'the top'} is not checked by anything"
            raise SchemaError(msg)
        if problem := _CHECKS[keyword](value, wanted, rule, root, at):
            return problem
    return None


def _type(value: Any, wanted: Any, _rule: Any, _root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    kinds = [wanted] if isinstance(wanted, str) else wanted
    # JSON's true is no number, though Python's is.
    fits = any(
        isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))
        for kind in kinds
    )
    return None if fits else f"{at or 'the top'} is {value!r:.60}, expected {' or '.join(kinds)}"


def _one_of(value: Any, wanted: Any, _rule: Any, _root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    return None if value in wanted else f"{at} is {value!r:.60}, expected one of {wanted}"


def _minimum(value: Any, wanted: Any, _rule: Any, _root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    number = isinstance(value, int | float)
    return f"{at} is {value}, expected at least {wanted}" if number and value < wanted else None


def _min_items(value: Any, wanted: Any, _rule: Any, _root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    short = isinstance(value, list) and len(value) < wanted
    return f"{at} has {len(value)} items, expected at least {wanted}" if short else None


def _required(value: Any, wanted: Any, _rule: Any, _root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    missing = [name for name in wanted if name not in value]
    return f"{at}/{missing[0]} is missing" if missing else None


def _properties(value: Any, wanted: Any, _rule: Any, root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    found = (
        _problem(value[name], inner, root, f"{at}/{name}")
        for name, inner in wanted.items()
        if name in value
    )
    return next(filter(None, found), None)


def _additional(value: Any, wanted: Any, rule: Any, root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    extra = sorted(value.keys() - rule.get("properties", {}).keys())
    if wanted is False:
        return f"{at}/{extra[0]} is not in the schema" if extra else None
    found = (_problem(value[name], wanted, root, f"{at}/{name}") for name in extra)
    return next(filter(None, found), None)


def _items(value: Any, wanted: Any, _rule: Any, root: Any, at: str) -> str | None:  # noqa: ANN401 - JSON
    found = (_problem(item, wanted, root, f"{at}/{place}") for place, item in enumerate(value))
    return next(filter(None, found), None)


_CHECKS: Mapping[str, Callable[[Any, Any, Any, Any, str], str | None]] = {
    "type": _type,
    "enum": _one_of,
    "minimum": _minimum,
    "minItems": _min_items,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional,
    "items": _items,
}
