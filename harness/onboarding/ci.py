"""``exportgate ci``: what a job of continuous integration does with a checkpoint.

Looks at the inputs first, so that a job fails within seconds where it can; gates; puts what passed
into a bundle, taken from the cache of exports, with what clients need, and seals it. All other
options are the gate's, and so is the exit status: 0 passed, 1 failed, 2 not judged.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.bundle import read_bundle
from exportgate import resources
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from harness.client.specify import CLIENT_FILES, has_pairs
from harness.gate import command as gate
from harness.gate.bundle import seal
from harness.gate.proof.proving import sign
from harness.onboarding.doctor import examine

if TYPE_CHECKING:
    from collections.abc import Sequence


class CiError(ExportGateError, RuntimeError):
    """A job could not do what comes after the verdict."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    given = list(sys.argv[1:] if argv is None else argv)
    args, options = parser().parse_known_args(given)
    if args.key is not None and args.bundle is None:
        msg = f"--key {args.key} signs a bundle; name its folder with --bundle"
        raise CiError(msg)
    asked = gate.parser().parse_known_args(options)[0]
    checkpoint = asked.checkpoint or resources.folder("golden") / "golden.nemo"
    findings, _ = examine(checkpoint, asked.manifest, asked.calibration, asked.gates or ())
    for part in findings:
        print("\n".join(part.lines()), end="\n\n", flush=True)
    if any(part.problems for part in findings):
        count = sum(len(part.problems) for part in findings)
        msg = f"{checkpoint}: {count} of the problems above stand in the way of a gate"
        raise CiError(msg)
    status = _console("gate", *options)
    report = (asked.report or (asked.workdir or resources.build_folder()) / "report").resolve()
    if status == Exit.PASSED and args.bundle is not None:
        _bundle(args.bundle, report / "report.json", asked.workdir or resources.build_folder())
        if args.key is not None:
            sign(args.bundle, args.key)
            print(f"signed: {args.bundle}")
    return status


def _bundle(folder: Path, report: Path, workdir: Path) -> None:
    """Put the files that a report judged into a bundle, known answers and the report with them.

    Raises:
        CiError: They could not be taken from the cache or exported anew, or gave no known answers.
        SealError: The bundle holds other files than were judged.
    """
    request = json.loads(report.read_text(encoding="utf-8"))["request"]
    if request["artifacts"] is None:
        _done("release", *_release(request, folder, workdir), what=f"{folder}: writing the bundle")
    if not set(CLIENT_FILES) <= read_bundle(folder).files.keys():
        _specify(folder, request["manifest"])
    sealed = seal(folder, report)
    print(f"sealed: {folder}: {len(sealed.artifacts)} exports, verdict {sealed.verdict}")


def _specify(folder: Path, manifest: str) -> None:
    """Add how to decode and known answers, where the bundle holds a pair of files that decodes."""
    if not has_pairs(folder):
        print(f"{folder}: no encoder and step that go together, so that it has no known answers")
        return
    specify = ("specify", str(folder), "--manifest", manifest)
    _done("bundle", *specify, what=f"{folder}: computing known answers")


def _release(request: dict[str, Any], folder: Path, workdir: Path) -> list[str]:
    """Return the options that make the judged files once more: the cache answers at once."""
    options = ["--checkpoint", request["checkpoint"], "--out", request["folder"]]
    options += ["--package_dir", str(folder), "--max_trace_len", str(request["max_trace_len"])]
    options += ["--cache", str(workdir / "gate" / "cache")]
    if Path(request["calibration"]).is_file():
        options += ["--calibration", request["calibration"]]
    return options + [part for name in request["variants"] for part in ("--variant", name)]


def _done(*arguments: str, what: str) -> None:
    """Run another command that has to succeed.

    Raises:
        CiError: It did not.
    """
    if status := _console(*arguments):
        msg = f"{what} ended with exit status {status}; see above"
        raise CiError(msg)


def _console(*arguments: str) -> int:
    """Run another command in a process of its own: its memory is given back."""
    # -P: a folder of the user's that is named like one of our packages is not imported.
    command = [sys.executable, "-P", "-m", "harness.console", *arguments]
    return subprocess.run(command, check=False).returncode


def parser() -> argparse.ArgumentParser:
    """Return a parser of the command's own options; all others are the gate's."""
    found = Parser(
        prog="exportgate ci",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("--bundle", type=Path, metavar="DIR", help="write and seal this bundle")
    found.add_argument(
        "--key", type=Path, metavar="FILE", help="sign the bundle with this private key"
    )
    return found
