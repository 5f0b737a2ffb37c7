"""Judge every target wherever its files run: on the host, in a browser, on ARM, on other runtimes.

    exportgate gate-all                 all stages, one after the other
    exportgate gate-all --quick         the stages that a CI runs: a browser, a Cortex-A76
    exportgate gate-all --only browser  those with this device, or one of this kind
    exportgate gate-all --list          what there is, without running it

Each stage is a command of its own with a time limit; what it says goes to a file beside the table.
A device that is missing is NOT_MEASURED with the reason, which fails; a phone, which cannot be
installed, fails with --release only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from exportgate import resources
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from harness.crossdevice.agreement import Status
from harness.crossdevice.command import say
from harness.crossdevice.comparing import DevicesError
from harness.crossdevice.outcome import Outcome, conclude, passed
from harness.crossdevice.plan import How, Stage, plan
from harness.devices.device import Need
from harness.devices.registry import device, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


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
    outcomes = []
    for stage in stages:
        say(stage.name)
        outcomes.append(run(stage, args.workdir, args.out, release=args.release))
        say(f"  {outcomes[-1].status} in {outcomes[-1].seconds:.0f} s {outcomes[-1].reason}")
    print(conclude(outcomes, args.out))
    return Exit.PASSED if passed(outcomes) else Exit.FAILED


def run(stage: Stage, workdir: Path, out: Path, *, release: bool) -> Outcome:
    """Run a stage to its end, and take its verdict."""
    start = time.monotonic()
    absent = unavailable(stage)
    folder = out / re.sub(r"[^\w.=-]+", "-", stage.name).strip("-")[:100]
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    status, reason = (Status.NOT_MEASURED, absent) if absent else _run(stage, workdir, folder)
    seconds = time.monotonic() - start
    waived = bool(absent) and stage.optional and not release
    return Outcome(stage, status, reason, seconds, folder, waived)


def unavailable(stage: Stage) -> str:
    """Return why a stage's files cannot run on one of its devices; empty if they can."""
    needs = [Need.PTE if kind == "pte" else Need.ONNX for kind in {r.format for r in stage.rows}]
    for name in stage.devices:
        try:
            reasons = [device(name).lacks(need) for need in sorted(needs)]
        except ExportGateError as error:
            return str(error)
        if all(reasons):
            return f"{name}: {reasons[0]}"
    return ""


def command_of(stage: Stage, workdir: Path, folder: Path) -> list[str]:
    """Return the command line of a stage."""
    words = ["--target", stage.target, "--workdir", str(workdir)]
    words += [word for name in stage.files for word in ("--variant", name)]
    if stage.how is How.SUITES:
        words = ["gate", *words, "--device", *stage.devices, "--report", str(folder)]
    else:
        words = ["devices", *words, "--devices", ",".join(stage.devices), "--out", str(folder)]
        words += [] if stage.swipes is None else ["--max-swipes", str(stage.swipes)]
        words += [] if stage.timed else ["--no-times"]
    return [sys.executable, "-P", "-m", "harness.console", *words]


def _run(stage: Stage, workdir: Path, folder: Path) -> tuple[Status, str]:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(os.path.isabs, sys.path))}
    with log.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command_of(stage, workdir, folder),
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environ,
            start_new_session=True,
            preexec_fn=_end_with_us,  # noqa: PLW1509 - this process has one thread
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


def _end_with_us() -> None:
    """Let a stage end, and with it what it started, when this process is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wanted(stage: Stage, kinds: Sequence[str] | None) -> bool:
    return not kinds or any({name, parts_of(name)[0]} & set(kinds) for name in stage.devices)
