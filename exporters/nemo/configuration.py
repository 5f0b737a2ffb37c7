"""A checkpoint's configuration as data: ``${a.b}`` is followed, nothing else is evaluated.

OmegaConf can run resolvers (``${oc.env:HOME}``, and whatever a program registers) while it
follows an interpolation. This reader knows references to other values only, and only follows
those in values that are asked for, so that what training alone needs cannot stand in the way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.nemo.archive import CheckpointError
from exporters.nemo.unpickle import Recorded, plain, state_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REFERENCE = re.compile(r"\$\{([^${}:]*)\}")
_KEY = re.compile(r"[^.\[\]]+")
_MOST_REFERENCES = 50
_MOST_VALUES = 1_000_000
_Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Configuration:
    """A model's configuration, perhaps a part of a larger one that it refers to.

    Attributes:
        path: The checkpoint, named in errors.
        root: The whole configuration: plain containers, with references unresolved.
        place: Keys that lead from the root to the model's own part; mostly none.
    """

    path: Path
    root: Mapping[str, object]
    place: _Place = ()

    def __post_init__(self) -> None:
        """Bound the work of reading: YAML and pickles can refer to one part many times over.

        Raises:
            CheckpointError: Too many values once every reference is written out, or no end.
        """
        waiting: list[object] = [self.root]
        for _ in range(_MOST_VALUES):
            if not waiting:
                return
            node = waiting.pop()
            if isinstance(node, dict):
                waiting += node.values()
            elif isinstance(node, list):
                waiting += node
        msg = (
            f"{self.path}: the configuration holds more than {_MOST_VALUES} values or itself; "
            "expected what NeMo's save_to() writes"
        )
        raise CheckpointError(msg)

    def raw(self, *keys: str) -> object:
        """Return a value as it is written; None if there is none."""
        found = _find(self.root, (*self.place, *keys))
        return None if found is _MISSING else found

    def get(self, *keys: str) -> object:
        """Return a value with its references followed; None if there is none.

        Raises:
            CheckpointError: A reference that leads nowhere or in a circle, or a resolver.
        """
        place: _Place = self.place
        node: object = self.raw()
        for key in keys:
            if not isinstance(node, dict) or key not in node:
                return None
            place = (*place, key)
            node = self._shallow(node[key], place, 0)
        return self._deep(node, place, 0)

    def _deep(self, node: object, place: _Place, depth: int) -> object:
        node = self._shallow(node, place, depth)
        if isinstance(node, dict):
            return {key: self._deep(item, (*place, key), depth + 1) for key, item in node.items()}
        if isinstance(node, list):
            return [self._deep(item, (*place, row), depth + 1) for row, item in enumerate(node)]
        if isinstance(node, Recorded):
            msg = (
                f"{self.path}: {_dotted(place)} holds an object of {node.name}, expected numbers, "
                "texts and lists; save the model with NeMo's save_to() as a .nemo archive"
            )
            raise CheckpointError(msg)
        return node

    def _shallow(self, node: object, place: _Place, depth: int) -> object:
        """Follow the references of a single value."""
        if depth > _MOST_REFERENCES:
            msg = f"{self.path}: {_dotted(place)} refers to itself or is nested too deep"
            raise CheckpointError(msg)
        if not isinstance(node, str) or "${" not in node:
            return node
        whole = _REFERENCE.fullmatch(node)
        if whole:
            return self._target(node, whole[1], place, depth)
        text = _REFERENCE.sub(lambda m: str(self._target(node, m[1], place, depth)), node)
        if "${" in text:
            msg = (
                f"{self.path}: {_dotted(place)} is {node!r}: resolvers are refused and not run; "
                "write the value itself into the configuration"
            )
            raise CheckpointError(msg)
        return self._shallow(text, place, depth + 1)

    def _target(self, node: str, reference: str, place: _Place, depth: int) -> object:
        name = reference.strip().lstrip(".")
        dots = len(reference.strip()) - len(name)
        keys: _Place = tuple(int(k) if k.isdecimal() else k for k in _KEY.findall(name))
        starts = [place[: len(place) - dots]] if dots else [(), self.place]
        candidates = [(*start, *keys) for start in starts]
        if keys[:1] == ("model",):
            # Packed from a training configuration, in which the model is a section.
            candidates.append((*self.place, *keys[1:]))
        for candidate in candidates:
            found = _find(self.root, candidate)
            if found is not _MISSING:
                return self._deep(found, candidate, depth + 1)
        msg = (
            f"{self.path}: {_dotted(place)} is {node!r}, which names nothing in the configuration; "
            "write the value itself into it"
        )
        raise CheckpointError(msg)


_MISSING = object()


def _find(node: object, place: _Place) -> object:
    for key in place:
        if isinstance(node, list):
            node = dict(enumerate(node))
        if not isinstance(node, dict) or key not in node:
            return _MISSING
        node = node[key]
    return node


def _dotted(place: _Place) -> str:
    return ".".join(map(str, place)) or "the configuration"


def configuration_of(path: Path, hyper_parameters: object) -> Configuration:
    """Return the model configuration in a Lightning checkpoint's ``hyper_parameters``.

    Raises:
        CheckpointError: There is none.
    """
    node = hyper_parameters
    outer = plain(hyper_parameters)
    if isinstance(outer, dict) and isinstance(outer.get("cfg"), dict) and isinstance(node, dict):
        node = node["cfg"]
    root = node
    place: list[str | int] = []
    while isinstance(root, Recorded) and isinstance(state_of(root).get("_parent"), Recorded):
        place.append(state_of(state_of(root).get("_metadata")).get("key", ""))
        root = state_of(root)["_parent"]
    whole = plain(root)
    found = Configuration(path, whole if isinstance(whole, dict) else {}, tuple(reversed(place)))
    if found.raw("cfg") is not None and found.raw("encoder") is None:
        found = Configuration(path, found.root, (*found.place, "cfg"))
    if found.raw("encoder") is None:
        msg = (
            f"{path}: no model configuration in 'hyper_parameters'; save the model with NeMo's "
            "save_to() as a .nemo archive"
        )
        raise CheckpointError(msg)
    return found
