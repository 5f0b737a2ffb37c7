"""What a run of mutants says: its score, the operator × file table, the survivors."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tests.mutants.judge import BELOW, FAILS, KILLED, SURVIVED, UNFIT
from tests.mutants.mutant import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.mutants.judge import Judged


def score(found: Sequence[Judged]) -> float:
    """Return the share of the mutants that count and were killed; NaN if none counts."""
    counted = [row for row in found if row.status in {KILLED, SURVIVED}]
    killed = sum(row.status == KILLED for row in counted)
    return killed / len(counted) if counted else float("nan")


def report_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Yield the report: survivors, table and score, as Markdown."""
    yield from survivor_lines(found)
    yield ""
    yield from table_lines(found)
    yield ""
    yield from gate_lines(found)
    yield ""
    states = Counter(row.status for row in found)
    counted = states[KILLED] + states[SURVIVED]
    seconds = sum(row.seconds for row in found)
    yield (
        f"score {score(found):.4f}: {states[KILLED]} of {counted} counted mutants killed, "
        f"{states[SURVIVED]} survived"
    )
    yield (
        f"not counted: {states[BELOW]} below the file's noise, {states[FAILS]} that run on no "
        f"input (killed trivially), {states[UNFIT]} that change nothing"
    )
    yield f"{seconds:.0f} s, {seconds / max(len(found), 1):.2f} s a mutant"


def survivor_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Yield each survivor with its effect, the nearest gates, and how to see it again."""
    for row in sorted(found, key=lambda row: row.name):
        if row.status == SURVIVED:
            effect = "exact" if row.effect > 1e300 else f"{row.effect:.3g} × noise"
            yield f"survivor: {row.name}"
            yield f"    {row.note}; {effect} at {row.where}"
            yield f"    nearest: {row.gate}"
            yield f"    again: python -m tests.mutants --only '{row.name}'"


def table_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Yield the table of killed ÷ counted mutants, an operator a row and a file a column."""
    cells: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in found:
        mutant = parse_name(row.name)
        for file in (mutant.file, "all"):
            for operator in (mutant.operator, "all"):
                cells[operator, file][row.status] += 1
    operators = sorted({key[0] for key in cells} - {"all"})
    files = sorted({key[1] for key in cells} - {"all"})
    yield f"| operator | {' | '.join([*files, 'all'])} |"
    yield f"|---|{'---|' * (len(files) + 1)}"
    for operator in [*operators, "all"]:
        cols = [_cell(cells[operator, file]) for file in [*files, "all"]]
        yield f"| {operator} | {' | '.join(cols)} |"


def gate_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Yield how many mutants each metric killed first."""
    killers = Counter(row.gate.split()[0] for row in found if row.status == KILLED)
    listing = ", ".join(f"{name} {count}" for name, count in killers.most_common())
    yield f"killed first by: {listing or 'nothing'}"


def _cell(states: Counter[str]) -> str:
    counted = states[KILLED] + states[SURVIVED]
    return f"{states[KILLED]}/{counted}" if counted else "·"
