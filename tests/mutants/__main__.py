"""Generate mutants of real files and let the gate judge them: ``make mutants N=1000``.

``python -m tests.mutants -n 1000 --seed 1`` judges until a thousand counted, and goes on where it
was cut short. ``--list-survivors`` prints what the log holds, ``--only NAME`` judges one mutant,
``--again`` judges the last log's survivors with today's gates.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.generate import Generator
from tests.mutants.judge import KILLED, SURVIVED, load_files
from tests.mutants.log import Log, read_rows, state_of
from tests.mutants.parallel import Judges
from tests.mutants.table import page_lines, report_lines, score, survivor_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutants.judge import Judged

REPOSITORY = Path(__file__).resolve().parents[2]
GOAL = 0.99
DRAWN_A_COUNTED = 1.35
"""Mutants that are drawn at once for each that is to count: one of four does not."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if the score is below ``GOAL`` or an unharmed file is red."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("-n", type=int, default=1000, help="mutants to count (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample (default %(default)s)")
    parser.add_argument("--artifacts", type=Path, help="exported files; default: export them")
    parser.add_argument("--file", action="append", help="change only this file; repeatable")
    parser.add_argument("--only", metavar="NAME", help="judge one mutant, as a log names it")
    parser.add_argument("--again", type=Path, metavar="LOG", help="judge a log's survivors")
    parser.add_argument("--list-survivors", action="store_true", help="print the log's survivors")
    parser.add_argument(
        "--processes", type=int, default=2, help="judges beside each other (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="also write the page of results to this file")
    options = parser.parse_args(arguments)
    folder = options.artifacts.resolve() if options.artifacts else export()
    log = REPOSITORY / "build" / "mutants" / f"seed{options.seed}.jsonl"
    if options.list_survivors:
        return _print(survivor_lines(_rows(log)))
    generator = Generator(folder, options.file or load_files(folder))
    judges = Judges(folder, options.processes)
    try:
        if options.only:
            names = [options.only]
        elif options.again:
            names = [row.name for row in _rows(options.again) if row.status == SURVIVED]
        else:
            names = []
        if names:
            rows: list[Judged] = []
            judges.judge(names, lambda row: rows.append(row) or _say_row(row))
        else:
            rows = _sample(judges, generator, Log(log, state_of(folder)), options.seed, options.n)
        _print(report_lines(rows))
        if options.out:
            text = "\n".join(page_lines(rows, options.seed)) + "\n"
            options.out.write_text(text, encoding="utf-8")
        return _verdict(judges, rows)
    finally:
        judges.close()


def export() -> Path:
    """Export every file of the golden checkpoint, or take them from the cache."""
    from tests.faults.run import open_lab
    from tests.mutants.generate import FILES

    lab = open_lab(FILES, progress=_say)
    lab.close()
    return lab.artifacts


def _sample(judges: Judges, generator: Generator, log: Log, seed: int, count: int) -> list[Judged]:
    """Judge a seed's mutants in the order of their drawing until ``count`` of them count."""
    drawn, names = generator.draw(seed), []
    start = time.monotonic()

    def tell(row: Judged) -> None:
        log.add(row)
        if len(log.known) % 25 == 0:
            known = list(log.known.values())
            _say(
                f"{time.monotonic() - start:5.0f} s  {len(known)} mutants, score {score(known):.3f}"
            )

    while True:
        counted = [log.known[name].status in {KILLED, SURVIVED} for name in names]
        if sum(counted) >= count:
            break
        more = int((count - sum(counted)) * DRAWN_A_COUNTED) + 1
        names += [mutant.name for mutant, _ in zip(drawn, range(more), strict=False)]
        judges.judge([name for name in dict.fromkeys(names) if name not in log.known], tell)
    last = [place for place, counts in enumerate(counted) if counts][count - 1]
    return [log.known[name] for name in names[: last + 1]]


def _verdict(judges: Judges, rows: Sequence[Judged]) -> int:
    red = judges.red_unharmed()
    for line in red:
        print(f"red without a mutant, so that it kills nothing: {line}")
    return int(bool(red) or not score(rows) >= GOAL)


def _say_row(row: Judged) -> None:
    _say(f"{row.status}: {row.name}: {row.note}; {row.gate or row.where}; {row.otherwise}")


def _rows(path: Path) -> list[Judged]:
    return read_rows(path.read_text(encoding="utf-8").splitlines()[1:])


def _print(lines: object) -> int:
    for line in lines:
        print(line, flush=True)
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
