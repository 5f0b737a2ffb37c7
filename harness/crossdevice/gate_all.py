"""Judge every target wherever its files run: on the host, in a browser, on ARM, on other runtimes.

    exportgate gate-all                 all stages
    exportgate gate-all --quick         the stages that a CI runs: a browser, a Cortex-A76
    exportgate gate-all --only browser  those with this device, or one of this kind
    exportgate gate-all --list          what there is, without running it

Each stage is a command of its own with a time limit; what it says goes to a file beside the table.
A device that is missing is NOT_MEASURED with the reason, which fails; a phone, which cannot be
installed, fails with --release only.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.parser import positive
from exportgate import resources
from exportgate.exit import Exit, Parser
from harness.crossdevice.command import say
from harness.crossdevice.comparing import DevicesError
from harness.crossdevice.outcome import conclude, passed
from harness.crossdevice.plan import Stage, plan
from harness.crossdevice.running import Places, run_all
from harness.devices.registry import parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Raises:
        DevicesError: ``--only`` leaves nothing to judge.
    """
    parser = Parser(
        prog="exportgate gate-all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="DEVICE", help="or its kind; repeatable")
    parser.add_argument("--quick", action="store_true", help="what a CI runs of it")
    parser.add_argument("--list", action="store_true", help="show the stages and stop")
    parser.add_argument("--release", action="store_true", help="a phone is demanded too")
    build = resources.build_folder()
    parser.add_argument("--workdir", type=Path, default=build, metavar="DIR", help="default: build")
    parser.add_argument(
        "--out",
        type=Path,
        default=build / "gate-all",
        metavar="DIR",
        help="default: build/gate-all",
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=os.cpu_count() or 1,
        metavar="N",
        help="stages at a time, but for those that judge times (default: one for each core)",
    )
    args = parser.parse_args(argv)
    asked = [stage for stage in plan() if stage.quick or not args.quick]
    stages = [stage for stage in asked if _wanted(stage, args.only)]
    if not stages:
        msg = f"no stage has a device {', '.join(args.only)}; see exportgate gate-all --list"
        raise DevicesError(msg)
    if args.list:
        print(*(stage.name for stage in stages), sep="\n")
        return Exit.PASSED
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    places = Places(args.workdir, args.out)
    outcomes = run_all(stages, places, say, jobs=args.jobs, release=args.release)
    print(conclude(outcomes, args.out, time.monotonic() - began))
    return Exit.PASSED if passed(outcomes) else Exit.FAILED


def _wanted(stage: Stage, kinds: Sequence[str] | None) -> bool:
    return not kinds or any({name, parts_of(name)[0]} & set(kinds) for name in stage.devices)
