"""One ``gates.toml`` as sections whose shape is checked: nothing in it is a limit yet."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from exportgate import resources
from exportgate.contract import LOG_PROBS
from exportgate.errors import ExportGateError
from exportgate.reading import read_toml, reason

if TYPE_CHECKING:
    from pathlib import Path

GATES_SCHEMA = 1
PROFILE, INTERFACE = "profile.", "interface."
"""What stands before the names of shared sections."""
SETTINGS = {"allowed_fallback_ops"}
"""Keys that are lists of names for a measurement, not limits."""
_INTERFACES = (LOG_PROBS,)
_LEVELS = "levels"
_PROFILES = "profiles"


class GateError(ExportGateError, ValueError):
    """A gates file is malformed, names what does not exist, or leaves an artifact ungated."""


def read_sections(path: Path) -> dict[str, Any]:
    """Return the sections of a file by name; profiles and interfaces with a prefix before theirs.

    Raises:
        GateError: Unreadable, of another schema, or a part of it has another shape.
    """
    try:
        data = read_toml(path)
    except (OSError, ValueError) as error:
        msg = f"{path}: cannot read the gates ({reason(error)}); write TOML like the project's own"
        raise GateError(msg) from error
    schema = data.pop("schema", None)
    if schema != GATES_SCHEMA:
        msg = f"{path}: schema is {schema}, but should be {GATES_SCHEMA}"
        raise GateError(msg)
    for name, section in data.items():
        if not isinstance(section, dict):
            msg = f"{path}: {name} stands outside every section"
            raise GateError(msg)
    _check_levels(path, data.pop(_LEVELS, None))
    profiles, interfaces = data.pop("profile", {}), data.pop("interface", {})
    if unknown := sorted(interfaces.keys() - set(_INTERFACES)):
        msg = f"{path}: [interface.{unknown[0]}] is none; known: {', '.join(_INTERFACES)}"
        raise GateError(msg)
    sections = {
        **{PROFILE + name: section for name, section in profiles.items()},
        **{INTERFACE + name: section for name, section in interfaces.items()},
        **data,
    }
    for name, section in sections.items():
        _check_section(path, name, section)
    return sections


def _check_section(path: Path, name: str, section: object) -> None:
    if not isinstance(section, dict):
        msg = f"{path}: [{name}] is {section!r:.40}, but should be a section of limits"
        raise GateError(msg)
    for key in section.keys() & (SETTINGS | {_PROFILES}):
        listed = section[key]
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            msg = f"{path}: [{name}] {key} is {listed!r:.40}, but should be a list of names"
            raise GateError(msg)


def _check_levels(path: Path, levels: object) -> None:
    """Refuse levels that would be passed over: they are read from the project's own file alone."""
    if levels is not None and levels != _own_levels():
        msg = (
            f"{path}: its [levels] differ from the project's own, from which alone they are read; "
            "leave them out: only limits of files can be laid over"
        )
        raise GateError(msg)


@cache
def _own_levels() -> dict[str, Any]:
    found: dict[str, Any] = read_toml(resources.folder("suites") / "gates.toml")[_LEVELS]
    return found
