"""The table of how mutated files ended, by reader."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tests.vectors.sandbox import LARGEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAD = """\
# Mutated files, by reader

Written by `python -m tests.fuzz -n 12000 --out …`. Hypothesis changes bytes, trees and opcodes
of a good file; each reader gets them in a watched process. *Taken*: the change did not matter, or
is one that a file may have. *Refused*: one sentence. *Broke a promise*: ran code, read or wrote
outside, hung, took more than {largest} GiB, ended in a traceback, said more than one line, or
left a file.

| File | Reader | Mutations | Taken | Refused | Broke a promise | Longest, s | Peak, MiB |
|---|---|--:|--:|--:|--:|--:|--:|
"""


@dataclass(frozen=True)
class Row:
    """How the mutations of one reader ended in one run.

    Attributes:
        kind: What was mutated.
        reader: Who read it.
        seed: Of hypothesis.
        ends: ``taken``, ``refused`` or ``fault``, and how many.
        broken: Files that broke a promise.
        peak_bytes: Largest resident set of its processes.
        longest_s: The file that took longest.
        seconds: All of them.
    """

    kind: str
    reader: str
    seed: int
    ends: dict[str, int]
    broken: int
    peak_bytes: int
    longest_s: float
    seconds: float

    def __str__(self) -> str:
        ends = ", ".join(f"{number} {how}" for how, number in sorted(self.ends.items()))
        return (
            f"{self.kind} by {self.reader}: {sum(self.ends.values())} mutations, {ends}; "
            f"{self.broken} broke a promise ({self.peak_bytes / 2**20:.0f} MiB, longest "
            f"{self.longest_s:.1f} s, together {self.seconds:.0f} s)"
        )


def add(path: Path, row: Row) -> None:
    """Add a row to the counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def read(path: Path) -> list[Row]:
    """Return all rows of the counts."""
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the table, a line for each reader, its runs added up."""
    lines = [*HEAD.format(largest=LARGEST_BYTES >> 30).splitlines()]
    for named in dict.fromkeys((row.kind, row.reader) for row in rows):
        own = [row for row in rows if (row.kind, row.reader) == named]
        lines.append(_line(named[0], f"`{named[1]}`", own))
    lines.append(_line("**all**", "", rows))
    seeds = ", ".join(map(str, sorted({row.seed for row in rows})))
    lines += ["", f"Seeds: {seeds}.", ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _line(kind: str, reader: str, rows: Sequence[Row]) -> str:
    ends: Counter[str] = Counter()
    for row in rows:
        ends.update(row.ends)
    peak = max(row.peak_bytes for row in rows) / 2**20
    return (
        f"| {kind} | {reader} | {ends.total()} | {ends['taken']} | {ends['refused']} "
        f"| {sum(row.broken for row in rows)} | {max(row.longest_s for row in rows):.1f} "
        f"| {peak:.0f} |"
    )
