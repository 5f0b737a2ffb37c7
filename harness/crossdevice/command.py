"""Judge the same files on several devices beside each other, on the same swipes.

    exportgate devices --target web --devices host,browser
    exportgate devices --variant encoder_int8.pte --devices host,qemu-arm64:cortex-a76

The first device is the reference. For each file and each other device: the largest difference, the
decisions whose best symbol is another, and the words that differ. A word that differs and is no
near tie fails; so does a difference beyond the limits in gates.toml ([levels], device_*), and what
could not be measured. The table goes to standard output and to --out.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.pipeline.parser import positive
from exporters.variants import TARGETS, variants_of
from exportgate import resources
from exportgate.exit import Exit, Parser
from harness.crossdevice.comparing import DevicesError, compare_devices, fewer_swipes
from harness.crossdevice.tables import EXPLANATION, markdown, passed, write
from harness.devices.registry import device
from harness.run.request import Request

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate devices",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--devices", required=True, metavar="NAME,NAME,…", help="the first is the reference"
    )
    parser.add_argument("--target", default="all", help=f"its files: {', '.join(TARGETS)}, all")
    parser.add_argument("--no-times", action="store_true", help="do not time files in turns")
    file_options(parser)
    args = parser.parse_args(argv)
    request = request_of(args)
    devices = [device(name.strip()) for name in args.devices.split(",") if name.strip()]
    found = compare_devices(request, devices, say, timed=not args.no_times)
    asked = {"target": args.target, "devices": args.devices, "manifest": str(request.manifest)}
    print(markdown(found.agreements), "", EXPLANATION, sep="\n")
    page = write(args.out, found.agreements, asked, found.environments)
    verdict = passed(found.agreements)
    print(f"\n{'PASS' if verdict else 'FAIL'}: {len(found.agreements)} comparisons; {page}")
    return Exit.PASSED if verdict else Exit.FAILED


def file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which files are run, on which swipes, and where the table goes."""
    build = resources.build_folder()
    parser.add_argument("--variant", action="append", metavar="NAME", help="only this file")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="default: the golden one")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="default: golden's swipes")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="default: as the gate's")
    parser.add_argument("--artifacts", type=Path, metavar="DIR", help="default: export the files")
    parser.add_argument(
        "--max-trace-len",
        type=positive,
        default=DEFAULT_MAX_TRACE_LEN,
        metavar="T",
        help="bound of the exported encoders in points (default %(default)s)",
    )
    parser.add_argument("--max-swipes", type=positive, metavar="N", help="every so-many-th swipe")
    parser.add_argument("--workdir", type=Path, default=build, metavar="DIR", help="default: build")
    parser.add_argument(
        "--out", type=Path, default=build / "devices", metavar="DIR", help="default: build/devices"
    )


def request_of(args: argparse.Namespace) -> Request:
    """Return what a command line asks for.

    Raises:
        DevicesError: A file is missing, or the target does not ship it.
    """
    golden = resources.folder("golden")
    rows = variants_of(args.target)
    if unknown := sorted(set(args.variant or ()) - {row.name for row in rows}):
        names = ", ".join(row.name for row in rows)
        msg = f"target {args.target} has no {', '.join(unknown)}; it has {names}"
        raise DevicesError(msg)
    if args.variant:
        rows = tuple(row for row in rows if row.name in args.variant)
    default = golden / "golden.nemo"
    checkpoint, manifest = args.checkpoint or default, args.manifest or golden / "val.jsonl"
    calibration = args.calibration or (golden / "calib.jsonl" if checkpoint == default else None)
    for path in (checkpoint, manifest, calibration):
        if path is not None and not path.is_file():
            msg = f"no such file: {path}"
            raise DevicesError(msg)
    workdir = args.workdir / "gate"
    # Now already, rather than after minutes of work.
    args.out.mkdir(parents=True, exist_ok=True)
    if args.max_swipes is not None:
        manifest = fewer_swipes(manifest, args.max_swipes, workdir)
    return Request(
        checkpoint, manifest, calibration, rows, args.artifacts, workdir, args.max_trace_len
    )


def say(line: str) -> None:
    """Show what is being done."""
    print(f"    {line}", file=sys.stderr, flush=True)
