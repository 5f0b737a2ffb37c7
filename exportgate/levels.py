"""Numbers that decide outside gates, read from the same file: ``[levels]`` of ``gates.toml``.

A level is stated for all precisions or for each, with the reason for it, as a gate is.
"""

from __future__ import annotations

import tomllib
from functools import cache
from typing import Any

from exportgate.errors import ExportGateError
from exportgate.resources import folder


class LevelError(ExportGateError, KeyError):
    """``gates.toml`` states no such level."""

    def __str__(self) -> str:
        """Return the message itself: a KeyError would quote it."""
        return str(self.args[0])


def level(name: str, precision: str = "") -> float:
    """Return a level, of a precision where it is stated for each.

    Raises:
        LevelError: It is not stated.
    """
    found = _levels().get(name, {})
    value = found.get(precision, found.get("limit"))
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        what = f"{name}.{precision}" if precision else name
        msg = f"gates.toml: [levels] has no number {what}; known: {', '.join(_levels())}"
        raise LevelError(msg)
    return float(value)


@cache
def _levels() -> dict[str, dict[str, Any]]:
    path = folder("suites") / "gates.toml"
    levels: dict[str, dict[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))["levels"]
    return levels
