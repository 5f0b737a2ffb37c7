"""Judge every target wherever its files run: on the host, in a browser, on ARM, on other runtimes.

    exportgate gate-all                 all stages, one after the other
    exportgate gate-all --only browser  those with a device of this kind
    exportgate gate-all --list          what there is, without running it

Each stage is a command of its own with a time limit; what it says goes to a file beside the table.
A device that is missing is NOT_MEASURED with the reason, which fails; a phone, which cannot be
installed, fails with --release only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.variants import variants_of
from exportgate import resources
from exportgate.artifacts.sidecar import write_text
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from harness.crossdevice.agreement import Status
from harness.crossdevice.command import say
from harness.crossdevice.comparing import DevicesError
from harness.crossdevice.plan import How, Stage, plan
from harness.devices.device import Need
from harness.devices.registry import device, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage.

    Attributes:
        stage: What was judged where.
        status: Outcome.
        reason: Why, where it is not PASS.
        seconds: How long it took.
        waived: Not measured, and not demanded.
    """

    stage: Stage
    status: Status
    reason: str
    seconds: float
    waived: bool = False

    @property
    def good(self) -> bool:
        """Whether the run may pass with it."""
        return self.status is Status.PASS or self.waived


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
    parser.add_argument("--only", action="append", metavar="KIND", help="repeatable")
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
    args = parser.parse_args(argv)
    stages = [stage for stage in plan() if _wanted(stage, args.only)]
    if not stages:
        msg = (
            f"no stage has a device of kind {', '.join(args.only)}; see exportgate gate-all --list"
        )
        raise DevicesError(msg)
    if args.list:
        print(*(stage.name for stage in stages), sep="\n")
        return Exit.PASSED
    args.out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for stage in stages:
        say(stage.name)
        outcomes.append(run(stage, args.workdir, args.out, release=args.release))
        say(f"  {outcomes[-1].status} in {outcomes[-1].seconds:.0f} s {outcomes[-1].reason}")
    return _conclude(outcomes, args.out)


def run(stage: Stage, workdir: Path, out: Path, *, release: bool) -> Outcome:
    """Run a stage to its end, and take its verdict."""
    start = time.monotonic()
    absent = unavailable(stage)
    status, reason = (Status.NOT_MEASURED, absent) if absent else _run(stage, workdir, out)
    seconds = time.monotonic() - start
    waived = bool(absent) and stage.optional and not release
    return Outcome(stage, status, reason, seconds, waived)


def unavailable(stage: Stage) -> str:
    """Return why a stage's files cannot run on one of its devices; empty if they can."""
    formats = {row.format for row in variants_of(stage.target)}
    for name in stage.devices:
        try:
            found = device(name)
        except ExportGateError as error:
            return str(error)
        for kind in sorted(formats):
            if reason := found.lacks(Need.PTE if kind == "pte" else Need.ONNX):
                return f"{name}: {reason}"
    return ""


def command_of(stage: Stage, workdir: Path, folder: Path) -> list[str]:
    """Return the command line of a stage."""
    words = ["--target", stage.target, "--workdir", str(workdir)]
    if stage.how is How.SUITES:
        words = ["gate", *words, "--device", *stage.devices, "--report", str(folder)]
    else:
        words = ["devices", *words, "--devices", ",".join(stage.devices), "--out", str(folder)]
        words += [] if stage.swipes is None else ["--max-swipes", str(stage.swipes)]
    return [sys.executable, "-P", "-m", "harness.console", *words]


def _run(stage: Stage, workdir: Path, out: Path) -> tuple[Status, str]:
    folder = out / re.sub(r"[^\w.=-]+", "-", stage.name).strip("-")[:100]
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command_of(stage, workdir, folder),
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environ,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(stage.limit_s)
        except subprocess.TimeoutExpired:
            return Status.NOT_MEASURED, f"took longer than {stage.limit_s:g} s; {log}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == Exit.PASSED:
        return Status.PASS, ""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    last = next((line for line in reversed(lines) if line.startswith(("FAIL", "error:"))), "")
    reason = f"{last or f'exit status {code}'}; {log}"
    return (Status.FAIL if code == Exit.FAILED else Status.NOT_MEASURED), reason


def _conclude(outcomes: Sequence[Outcome], out: Path) -> Exit:
    """Write the table and say the verdict."""
    rows = ["| Target | Devices | Judged by | Seconds | Verdict |", "|---|---|---|--:|---|"]
    for each in outcomes:
        stage, shown = each.stage, each.status + (" (waived)" if each.waived else "")
        cells = [stage.target, ", ".join(stage.devices), stage.how, f"{each.seconds:.0f}", shown]
        rows.append(f"| {' | '.join(cells)} |")
    reasons = [f"- {each.stage.name}: {each.reason}" for each in outcomes if each.reason]
    good = all(each.good for each in outcomes)
    closing = f"{'PASS' if good else 'FAIL'}: {sum(e.status is Status.PASS for e in outcomes)} of "
    closing += f"{len(outcomes)} stages, {sum(each.seconds for each in outcomes):.0f} s"
    text = "\n".join([*rows, "", *reasons, *([""] if reasons else []), closing])
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "gate-all.md", f"{text}\n")
    data = [
        {
            "target": each.stage.target, "devices": each.stage.devices, "how": each.stage.how,
            "status": each.status, "reason": each.reason, "seconds": round(each.seconds, 1),
            "waived": each.waived,
        }
        for each in outcomes
    ]  # fmt: skip
    verdict = {"schema": 1, "verdict": "PASS" if good else "FAIL", "stages": data}
    write_text(out / "gate-all.json", json.dumps(verdict, indent=1) + "\n")
    print(text)
    return Exit.PASSED if good else Exit.FAILED


def _wanted(stage: Stage, kinds: Sequence[str] | None) -> bool:
    return not kinds or any(parts_of(name)[0] in kinds for name in stage.devices)
