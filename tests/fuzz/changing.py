"""Change a good file: its bytes, the tree that its text holds, or the opcodes of its pickle."""

from __future__ import annotations

import base64
import io
import itertools
import json
import pickletools
import tomllib
import zipfile
from typing import TYPE_CHECKING, Any

import yaml
from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.seeds import HASHES_FIT
from tests.test_bundle import rehash
from tests.vectors import archives, bundles
from tests.vectors.mutations import mutated, of_bytes, of_trees, restructured

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fuzz.targets import Target
    from tests.vectors.mutations import Edit

Mutation = tuple[str, list["Edit"]]
_LINES = {"manifest", "futo", "neuroswipe"}
_TOML = {"gates", "contract", "recipe"}


def mutations(target: Target, count: int, number: int) -> list[Mutation]:
    """Return so many edits, of each kind by turns, as hypothesis chooses them."""
    each = -(-count // len(target.changes))
    chosen = [
        (kind, edits) for kind in target.changes for edits in _chosen(kind == "tree", each, number)
    ]
    return chosen[:count]


def _chosen(of_tree: bool, count: int, number: int) -> list[list[Edit]]:
    found: list[list[Edit]] = []

    @seed(number)
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(of_trees if of_tree else of_bytes)
    def collect(edits: list[Edit]) -> None:
        found.append(edits)

    collect()
    return found


def change(target: Target, path: Path, number: int, mutation: Mutation) -> None:
    """Change a file, or one of those in a folder, in place."""
    how, edits = mutation
    file = path
    if target.names:
        file = (path if path.is_dir() else path.parent) / target.names[number % len(target.names)]
    data = file.read_bytes()
    file.unlink()  # it may be a link to the seed
    file.write_bytes(_CHANGES[how](target.kind, data, edits))
    if target.kind == HASHES_FIT:
        rehash(path, file.name)


def _tree(kind: str, data: bytes, edits: list[Edit]) -> bytes:
    if kind == "nemo":
        config, weights = archives.seed()
        changed = yaml.safe_dump(restructured(yaml.safe_load(config), edits)).encode()
        members = [archives.member(archives.CONFIG, changed)]
        return archives.packed([*members, archives.member(archives.WEIGHTS, weights)])
    if kind == "statement":
        return _signed_anew(data, edits)
    text = data.decode("utf-8")
    if kind in _TOML:
        return _toml(restructured(tomllib.loads(text), edits)).encode()
    if kind in _LINES:
        rows = restructured([json.loads(line) for line in text.splitlines()], edits)
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    try:
        tree = json.loads(text)
    except ValueError:  # a list of labels
        return mutated(data, [("text", where, number) for _, where, number in edits])
    return json.dumps(restructured(tree, edits)).encode()


def _signed_anew(data: bytes, edits: list[Edit]) -> bytes:
    """Change what is stated and sign it, as whoever holds the key can."""
    payload = json.loads(base64.b64decode(json.loads(data)["payload"]))
    return bundles.resigned(json.dumps(restructured(payload, edits)).encode())


def _toml(tree: dict[str, Any]) -> str:
    """Write TOML value by value."""

    def inline(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(k)} = {inline(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(inline(item) for item in value) + "]"
        return '"null"' if value is None else json.dumps(value)

    return "".join(f"{json.dumps(key)} = {inline(value)}\n" for key, value in tree.items())


def _pickle(kind: str, data: bytes, edits: list[Edit]) -> bytes:
    """Change opcodes, and pack them again with the right checksums around."""
    if kind == "nemo":
        config, weights = archives.seed()
        changed = archives.member(archives.WEIGHTS, _repacked(weights, edits))
        return archives.packed([archives.member(archives.CONFIG, config), changed])
    return _repacked(data, edits)


def _repacked(data: bytes, edits: list[Edit]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("data.pkl"):
                content = _opcodes(content, edits)
            new.writestr(info.filename, content)
    return out.getvalue()


def _opcodes(program: bytes, edits: list[Edit]) -> bytes:
    """Drop, repeat, exchange or move opcodes; every other edit is of the program's bytes."""
    starts = [int(at or 0) for *_, at in pickletools.genops(program)] + [len(program)]
    parts = [program[a:b] for a, b in itertools.pairwise(starts)]
    for place, (name, where, number) in enumerate(edits):
        at, other = min(int(where * len(parts)), len(parts) - 1), number % len(parts)
        match (number + place) % 5:
            case 0:
                del parts[at]
            case 1:
                parts.insert(at, parts[other])
            case 2:
                parts[at], parts[other] = parts[other], parts[at]
            case 3:
                parts[at:at] = parts[other : other + 9] * (1 + number % 3)
            case _:
                return mutated(b"".join(parts), [(name, where, number), *edits[place + 1 :]])
    return b"".join(parts)


_CHANGES: dict[str, Callable[[str, bytes, list[Edit]], bytes]] = {
    "bytes": lambda _, data, edits: mutated(data, edits),
    "tree": _tree,
    "pickle": _pickle,
}
