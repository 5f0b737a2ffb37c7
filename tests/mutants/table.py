"""What a run of mutants says: its score, the operator × file table, the survivors."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tests.mutants.judge import BELOW, CONSTANTS, FAILS, KILLED, SURVIVED, UNFIT
from tests.mutants.mutant import parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.mutants.judge import Judged


_TITLE = """# Generated mutants

`make mutant-table` draws changes of real files by seed {seed}: an operator, a file, a place in it
(a constant, a node, an attribute, a field of the sidecar, a rule of the decoder), as many from each
operator and file, until {counted} count. A mutant counts if some valid input that the gate does not
use shows it above the file's own rounding (`tests/mutants/noise.py`). It is killed if a gate is
broken that the unharmed file keeps. `python -m tests.mutants --only NAME` judges one again."""
_CELLS = """Killed ÷ counted; in brackets how many of them die without the comparison of constants,
where that is fewer."""
_ONLY = """`constant_mismatches` compares a file of ours with what this version's exporters make of
checkpoint and calibration. It is blind to what those exporters themselves do wrong, and to files
that somebody else exported: for both the other gates are all there is. They do not see:"""


def score(found: Sequence[Judged]) -> float:
    """Return the share of the mutants that count and were killed; NaN if none counts."""
    counted = [row for row in found if row.status in {KILLED, SURVIVED}]
    killed = sum(row.status == KILLED for row in counted)
    return killed / len(counted) if counted else float("nan")


def score_otherwise(found: Sequence[Judged]) -> float:
    """Return the score of the gates other than the comparison of constants; NaN if none counts."""
    counted = [row for row in found if row.status in {KILLED, SURVIVED}]
    killed = sum(bool(row.otherwise) for row in counted)
    return killed / len(counted) if counted else float("nan")


def report_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Yield the report: survivors, table and score, as Markdown."""
    yield from survivor_lines(found)
    yield ""
    yield from table_lines(found)
    yield ""
    yield from gate_lines(found)
    yield ""
    yield from score_lines(found)
    seconds = sum(row.seconds for row in found)
    yield f"{seconds:.0f} s, {seconds / max(len(found), 1):.2f} s a mutant"


def score_lines(found: Sequence[Judged]) -> Iterator[str]:
    """Yield the scores, and what did not count."""
    states = Counter(row.status for row in found)
    counted = states[KILLED] + states[SURVIVED]
    yield (
        f"score {score(found):.4f}: {states[KILLED]} of {counted} counted mutants killed, "
        f"{states[SURVIVED]} survived"
    )
    yield (
        f"without {CONSTANTS}: {score_otherwise(found):.4f}, {unseen(found)} of {counted} survive"
    )
    yield (
        f"not counted: {states[BELOW]} below the file's noise, {states[FAILS]} that run on no "
        f"input (killed trivially), {states[UNFIT]} that change nothing"
    )


def unseen(found: Sequence[Judged]) -> int:
    """Return how many counted mutants only the comparison of constants sees, or nothing does."""
    return sum(row.status in {KILLED, SURVIVED} and not row.otherwise for row in found)


def page_lines(found: Sequence[Judged], seed: int) -> Iterator[str]:
    """Yield the page of results of a run."""
    counted = sum(row.status in {KILLED, SURVIVED} for row in found)
    yield from _TITLE.format(seed=seed, counted=counted).splitlines()
    yield ""
    yield from (f"- {line}" for line in score_lines(found))
    yield from ("", "## Survivors", "")
    yield from [f"    {line}" for line in survivor_lines(found)] or ["None."]
    yield from ("", "## Killed, by operator and file", "", _CELLS, "")
    yield from table_lines(found)
    for title, key in (("", "gate"), (f", where {CONSTANTS} is not judged", "otherwise")):
        yield from ("", f"## Gates that killed{title}", "")
        yield from gate_table(found, key)
    yield from ("", "## What only the comparison of constants sees", "", _ONLY, "")
    yield "| file | operator | seen by nothing else |\n|---|---|--:|"
    for (file, operator), count in sorted(_unseen_kinds(found).items()):
        yield f"| {file} | {operator} | {count} |"


def _unseen_kinds(found: Sequence[Judged]) -> Counter[tuple[str, str]]:
    """Count the mutants that only the comparison of constants kills, by file and operator."""
    rows = [parse_name(row.name) for row in found if row.status == KILLED and not row.otherwise]
    return Counter((mutant.file, mutant.operator) for mutant in rows)


def gate_table(found: Sequence[Judged], key: str) -> Iterator[str]:
    """Yield a table of how many mutants each metric killed first."""
    killers = Counter(getattr(row, key).split()[0] for row in found if _killed(row, key))
    yield "| metric | mutants |\n|---|--:|"
    for name, count in killers.most_common():
        yield f"| {name} | {count} |"


def _killed(row: Judged, key: str) -> bool:
    return row.status == KILLED and bool(getattr(row, key))


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
    cells: dict[tuple[str, str], list[Judged]] = defaultdict(list)
    for row in found:
        mutant = parse_name(row.name)
        for file in (mutant.file, "all"):
            for operator in (mutant.operator, "all"):
                cells[operator, file].append(row)
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


def _cell(rows: Sequence[Judged]) -> str:
    counted = [row for row in rows if row.status in {KILLED, SURVIVED}]
    if not counted:
        return "·"
    killed, otherwise = (sum(map(bool, side)) for side in zip(*(
        (row.status == KILLED, row.otherwise) for row in counted
    ), strict=True))  # fmt: skip
    also = f" ({otherwise})" if otherwise != killed else ""
    return f"{killed}/{len(counted)}{also}"
