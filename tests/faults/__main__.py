"""Inject every fault into real files and judge them with the real suites: ``make faults``.

``python -m tests.faults`` prints a row for each fault and fails if one is not caught by the gate
named for it. ``--limits`` prints the smallest fault that is still seen, ``--seeds 20`` judges
unharmed files with other swipes each time: they have to stay green.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.fault import Outcome, run_fault
from tests.faults.limits import limit_lines
from tests.faults.registry import FAULTS, FILES
from tests.faults.run import open_lab
from tests.faults.seeds import SEED_FILES, seed_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.faults.run import FaultLab

TITLE = """# Faults that are known by name

`make fault-table` injects each into real files and runs the suite's test of the gate that is named
for it; `make faults` runs all tests. The number is that of the list of failures that shipped
elsewhere; a gate in the fourth column is red, and seconds are those of a busy machine.

"""


LIMITS_TITLE = """# The smallest fault that outputs show

`make fault-limits` makes each fault smaller until no gate is red but `constant_mismatches`, which
compares every number of a file with the checkpoint's and sees a change of 0.01 %. Sizes are shares
of the value that is changed.

"""


def main() -> int:
    """Run what was asked for; 1 if a fault was missed or an unharmed file was red."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--artifacts", type=Path, help="exported files; default: export them")
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument(
        "--named", action="store_true", help="run only the test that measures the named gate"
    )
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--limits", action="store_true", help="smallest faults that are seen")
    parser.add_argument("--seeds", type=int, default=0, help="runs on unharmed files")
    options = parser.parse_args()
    artifacts = options.artifacts.resolve() if options.artifacts else None
    files = SEED_FILES if options.limits or options.seeds else FILES
    lab = open_lab(files, artifacts, progress=lambda line: print(line, file=sys.stderr))
    try:
        if options.limits:
            return _print_all(limit_lines(lab), options.out, LIMITS_TITLE)
        if options.seeds:
            return _print_all(seed_lines(lab, options.seeds))
        lines, status = _judge_faults(lab, options.only, named_only=options.named)
        if options.out:
            options.out.write_text(TITLE + "\n".join(lines) + "\n", encoding="utf-8")
        return status
    finally:
        lab.close()


def _print_all(lines: Iterable[tuple[str, bool]], out: Path | None = None, title: str = "") -> int:
    failed, said = False, []
    for line, good in lines:
        print(line, flush=True)
        said.append(line)
        failed |= not good
    if out:
        out.write_text(title + "\n".join(said) + "\n", encoding="utf-8")
    return int(failed)


def _judge_faults(lab: FaultLab, only: str, *, named_only: bool) -> tuple[list[str], int]:
    """Print a row for each fault; return all lines, and 1 if one was missed."""
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    say("| # | fault | gate expected | gates that went red | s | |\n|---|---|---|---|---|---|")
    chosen = [fault for fault in FAULTS if only in fault.name]
    missed = []
    for fault in chosen:
        outcome = run_fault(lab, fault, named_only=named_only)
        say(row(outcome))
        if not outcome.caught:
            missed.append(fault.name)
    caught = len(chosen) - len(missed)
    say(f"\n{caught} of {len(chosen)} faults caught by the gate named for them")
    for name in missed:
        say(f"missed: {name}")
    return lines, int(bool(missed) or not chosen)


def row(outcome: Outcome) -> str:
    """Return a row of the table: in Markdown."""
    fault = outcome.fault
    short = [key.split()[-1] for key in outcome.red]
    named = fault.gate.split()[-1]
    others = [key for key in short if key != named]
    red = ", ".join([*([named] if named in short else []), *others[:2]])
    more = f" and {len(others) - 2} more" if len(others) > 2 else ""
    return (
        f"| {fault.known_failure or ''} | {fault.name}: {fault.description} | {fault.gate} "
        f"| {red or 'none'}{more} | {outcome.seconds:.1f} | {'' if outcome.caught else 'MISSED'} |"
    )


if __name__ == "__main__":
    sys.exit(main())
