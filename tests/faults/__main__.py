"""Inject every fault into real files and judge them with the real suites: ``make faults``.

``python -m tests.faults`` prints a row for each fault and fails if one is not caught by the gate
named for it. ``--limits`` prints the smallest fault that is still seen, ``--seeds 20`` judges
unharmed files with other swipes each time: they have to stay green.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.faults.fault import Outcome, run_fault
from tests.faults.limits import limit_lines
from tests.faults.registry import FAULTS, FILES
from tests.faults.run import open_lab
from tests.faults.seeds import SEED_FILES, seed_lines


def main() -> int:
    """Run what was asked for; 1 if a fault was missed or an unharmed file was red."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--artifacts", type=Path, help="exported files; default: export them")
    parser.add_argument("--only", default="", help="faults with this in their name")
    parser.add_argument(
        "--named", action="store_true", help="run only the test that measures the named gate"
    )
    parser.add_argument("--limits", action="store_true", help="smallest faults that are seen")
    parser.add_argument("--seeds", type=int, default=0, help="runs on unharmed files")
    options = parser.parse_args()
    artifacts = options.artifacts.resolve() if options.artifacts else None
    files = SEED_FILES if options.limits or options.seeds else FILES
    lab = open_lab(files, artifacts, progress=lambda line: print(line, file=sys.stderr))
    try:
        if options.limits:
            return _print_all(limit_lines(lab))
        if options.seeds:
            return _print_all(seed_lines(lab, options.seeds))
        return _print_faults(lab, options.only, named_only=options.named)
    finally:
        lab.close()


def _print_all(lines: object) -> int:
    failed = False
    for line, good in lines:
        print(line, flush=True)
        failed |= not good
    return int(failed)


def _print_faults(lab: object, only: str, *, named_only: bool) -> int:
    print("| # | fault | gate expected | gates that went red | s | |\n|---|---|---|---|---|---|")
    chosen = [fault for fault in FAULTS if only in fault.name]
    missed = []
    for fault in chosen:
        outcome = run_fault(lab, fault, named_only=named_only)
        print(row(outcome), flush=True)
        if not outcome.caught:
            missed.append(fault.name)
    print(
        f"\n{len(chosen) - len(missed)} of {len(chosen)} faults caught by the gate named for them"
    )
    for name in missed:
        print(f"missed: {name}")
    return int(bool(missed) or not chosen)


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
