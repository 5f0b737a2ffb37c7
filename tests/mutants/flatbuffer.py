"""Find every scalar of a flatbuffer with its place in the file, so that it can be changed in place.

flatc shows values, but not where they stand. The layout follows from the schema's order of fields
(https://flatbuffers.dev/internals): a table begins with the distance to its vtable, which holds a
16-bit offset for each field, 0 for one that has its default and so no place; a union takes two
fields, its type and its table.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SCALARS = {
    "bool": "?", "byte": "b", "ubyte": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I",
    "uint32": "I", "long": "q", "int64": "q", "uint64": "Q", "float": "f", "double": "d",
}  # fmt: skip
"""The schema's names of scalars, as ``struct`` formats."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar of a flatbuffer.

    Attributes:
        path: Where it is: ``xnodes[3].xnode_union.XNNClamp.flags``.
        offset: Byte at which it stands.
        format: How it is stored, as in ``struct``.
        value: What it is.
    """

    path: str
    offset: int
    format: str
    value: float


@dataclass(frozen=True, slots=True)
class Schema:
    """Tables, unions and enumerations of a ``.fbs`` file.

    Attributes:
        root: The outermost table.
        tables: Fields with their types, by table.
        unions: Tables that each number of a union stands for, from 1.
        enums: Scalar that each enumeration is stored as.
    """

    root: str
    tables: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    unions: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    enums: dict[str, str] = field(default_factory=dict)


def read_schema(text: str) -> Schema:
    """Read a schema; as much of the language as ExecuTorch's two schemas use."""
    text = re.sub(r"//[^\n]*", "", text)
    root = re.search(r"root_type\s+(\w+)", text)
    schema = Schema(root[1] if root else "")
    for name, body in re.findall(r"table\s+(\w+)\s*\{([^}]*)\}", text):
        rows = re.findall(r"(\w+)\s*:\s*(\[?\w+\]?)", body)
        schema.tables[name] = [row for row in rows if row[0] != "force_align"]
    for name, body in re.findall(r"union\s+(\w+)\s*\{([^}]*)\}", text):
        members = re.findall(r"(\w+)\s*(?::\s*(\w+))?", body)
        schema.unions[name] = [(member, table or member) for member, table in members]
    for name, kind in re.findall(r"enum\s+(\w+)\s*:\s*(\w+)", text):
        schema.enums[name] = kind
    return schema


@dataclass(frozen=True, slots=True)
class Walker:
    """Walks one flatbuffer.

    Attributes:
        data: The bytes that hold it.
        start: Where it begins in them.
        schema: What it is built after.
    """

    data: bytes
    start: int
    schema: Schema

    def scalars(self) -> Iterator[Scalar]:
        """Yield every scalar that has a place, those of vectors and unions too."""
        root = self.start + self._unsigned(self.start)
        yield from self._table(root, self.schema.root, "")

    def _table(self, table: int, kind: str, path: str) -> Iterator[Scalar]:
        slot = 0
        for name, declared in self.schema.tables[kind]:
            where = f"{path}.{name}".lstrip(".")
            if declared in self.schema.unions:
                yield from self._union(table, slot, declared, where)
                slot += 2
                continue
            place = self._field(table, slot)
            slot += 1
            if place:
                yield from self._value(place, declared, where)

    def _union(self, table: int, slot: int, kind: str, path: str) -> Iterator[Scalar]:
        tag, place = self._field(table, slot), self._field(table, slot + 1)
        if tag and place and self.data[tag]:
            member, body = self.schema.unions[kind][self.data[tag] - 1]
            yield Scalar(f"{path}.{member}.type", tag, "B", self.data[tag])
            yield from self._table(self._follow(place), body, f"{path}.{member}")

    def _value(self, place: int, declared: str, path: str) -> Iterator[Scalar]:
        stored = SCALARS.get(self.schema.enums.get(declared, declared))
        if stored:
            yield self._scalar(place, stored, path)
        elif declared in self.schema.tables:
            yield from self._table(self._follow(place), declared, path)
        elif declared.startswith("["):
            yield from self._vector(self._follow(place), declared.strip("[]"), path)

    def _vector(self, vector: int, declared: str, path: str) -> Iterator[Scalar]:
        stored = SCALARS.get(self.schema.enums.get(declared, declared))
        size = struct.calcsize(stored) if stored else 4
        # Bytes are payloads or dimension orders, which other operators change.
        count = 0 if stored == "B" else self._unsigned(vector)
        for index in range(count):
            where, place = f"{path}[{index}]", vector + 4 + size * index
            if stored:
                yield self._scalar(place, stored, where)
            elif declared in self.schema.tables:
                yield from self._table(self._follow(place), declared, where)

    def _scalar(self, place: int, stored: str, path: str) -> Scalar:
        return Scalar(path, place, stored, struct.unpack_from(f"<{stored}", self.data, place)[0])

    def _field(self, table: int, slot: int) -> int:
        (back,) = struct.unpack_from("<i", self.data, table)
        vtable = table - back
        (size,) = struct.unpack_from("<H", self.data, vtable)
        if 4 + 2 * slot + 2 > size:
            return 0
        (offset,) = struct.unpack_from("<H", self.data, vtable + 4 + 2 * slot)
        return table + offset if offset else 0

    def _follow(self, place: int) -> int:
        return place + self._unsigned(place)

    def _unsigned(self, place: int) -> int:
        return int(struct.unpack_from("<I", self.data, place)[0])
