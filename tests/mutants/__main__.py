"""Generate mutants of real files and let the gate judge them: ``make mutants N=1000``.

``python -m tests.mutants -n 1000 --seed 1`` judges until a thousand counted, and goes on where it
was cut short. ``--list-survivors`` prints what the log holds, ``--only NAME`` judges one mutant,
``--again`` judges the last log's survivors with today's gates.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.bench import Bench
from tests.mutants.generate import Generator
from tests.mutants.judge import KILLED, SURVIVED, Judge, load_files
from tests.mutants.log import Log, read_rows, state_of
from tests.mutants.mutant import parse_name
from tests.mutants.table import report_lines, score, survivor_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.mutants.judge import Judged

REPOSITORY = Path(__file__).resolve().parents[2]
GOAL = 0.99


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
    options = parser.parse_args(arguments)
    folder = options.artifacts.resolve() if options.artifacts else export()
    log = REPOSITORY / "build" / "mutants" / f"seed{options.seed}.jsonl"
    if options.list_survivors:
        return _print(survivor_lines(_rows(log)))
    generator = Generator(folder, options.file or load_files(folder))
    judge = Judge(Bench(folder), generator)
    try:
        if options.only:
            return _judge_all(judge, [options.only])
        if options.again:
            rows = _rows(options.again)
            return _judge_all(judge, [row.name for row in rows if row.status == SURVIVED])
        return _sample(judge, Log(log, state_of(folder)), options.seed, options.n)
    finally:
        judge.bench.close()


def export() -> Path:
    """Export every file of the golden checkpoint, or take them from the cache."""
    from tests.faults.run import open_lab
    from tests.mutants.generate import FILES

    lab = open_lab(FILES, progress=_say)
    lab.close()
    return lab.artifacts


def _sample(judge: Judge, log: Log, seed: int, count: int) -> int:
    rows: list[Judged] = []
    counted = 0
    for mutant in judge.generator.draw(seed):
        if counted >= count:
            break
        row = log.known.get(mutant.name)
        if row is None:
            row = judge.judge(mutant)
            log.add(row)
        rows.append(row)
        counted += row.status in {KILLED, SURVIVED}
        if len(rows) % 25 == 0:
            red = len(judge.red_unharmed())
            also = f"; {red} gates are red without a mutant" if red else ""
            _say(f"{len(rows)} mutants, {counted} of {count} count, score {score(rows):.3f}{also}")
    _print(report_lines(rows))
    return _verdict(judge, rows)


def _judge_all(judge: Judge, names: Sequence[str]) -> int:
    rows = []
    for name in names:
        rows.append(judge.judge(parse_name(name)))
        _say(f"{rows[-1].status}: {name}: {rows[-1].note}; {rows[-1].gate or rows[-1].where}")
    _print(report_lines(rows))
    return _verdict(judge, rows)


def _verdict(judge: Judge, rows: Sequence[Judged]) -> int:
    red = judge.red_unharmed()
    for line in red:
        print(f"red without a mutant, so that it kills nothing: {line}")
    return int(bool(red) or not score(rows) >= GOAL)


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
