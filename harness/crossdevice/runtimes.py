"""Other versions of the runtimes: install them, and run the released files on each.

    exportgate runtimes setup                  environments for all pinned versions
    exportgate runtimes compare --out DIR      the table: loads, dB, words, time
    exportgate runtimes pin onnxruntime==1.24.4

An application pins its runtime: files that are made with one version have to run on it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from exporters.variants import TARGETS
from exportgate.exit import Exit, Parser
from harness.crossdevice.agreement import Status
from harness.crossdevice.command import file_options, request_of, say
from harness.crossdevice.comparing import DevicesError, compare_devices
from harness.crossdevice.tables import EXPLANATION, markdown, passed, write
from harness.devices.host import HOST
from harness.devices.registry import device, parts_of
from harness.devices.runtimes.environments import folder_of, install, missing
from harness.devices.runtimes.pins import RUNTIMES, PinError, add_pin, pin, pins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.crossdevice.agreement import Agreement
    from harness.devices.runtimes.pins import Pin

FORMATS = {"onnxruntime": "onnx", "executorch": "pte"}
NOT_TRIED = (
    "Not tried: ExecuTorch before 1.4, which needs an older torch (1.3.1: undefined symbol with "
    "torch 2.13), and a torch for each version is 200 MB and more; ONNX Runtime before 1.22 "
    "(1.18 needs numpy 1)."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate runtimes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    setting = commands.add_parser("setup", help="make the environments of pinned versions")
    commands.add_parser("list", help="show the pinned versions, and which are installed")
    pinning = commands.add_parser("pin", help="pin another version by its hashes")
    pinning.add_argument("version", metavar="RUNTIME==VERSION", help="onnxruntime==1.24.4")
    comparing = commands.add_parser("compare", help="run the released files on each version")
    comparing.add_argument("--target", default="all", help=f"its files: {', '.join(TARGETS)}, all")
    file_options(comparing)
    for each in (setting, comparing):
        each.add_argument(
            "versions", nargs="*", metavar="RUNTIME==VERSION", help="default: all that are pinned"
        )
    args = parser.parse_args(argv)
    commands_by_name = {"setup": _setup, "list": _list, "pin": _pin, "compare": _compare}
    return commands_by_name[args.command](args)


def _setup(args: argparse.Namespace) -> Exit:
    asked = {_version(name).name for name in args.versions}
    for each in pins():
        if asked and each.name not in asked:
            continue
        done = install(each)
        print(f"{each.name}: {'installed' if done else 'is installed'} in {folder_of(each)}")
    return Exit.PASSED


def _list(args: argparse.Namespace) -> Exit:
    del args
    for each in pins():
        print(missing(each) or f"{each.name}: installed")
    return Exit.PASSED


def _pin(args: argparse.Namespace) -> Exit:
    each = add_pin(args.version)
    print(f"{each.name}: pinned for {', '.join(each.requirements)}; now: make setup-runtimes")
    return Exit.PASSED


def _compare(args: argparse.Namespace) -> Exit:
    asked = request_of(args)
    names = [_version(name).name for name in args.versions] or [each.name for each in pins()]
    found: list[Agreement] = []
    environments: dict[str, Any] = {}
    for runtime in RUNTIMES:
        versions = [name for name in names if name.partition("==")[0] == runtime]
        rows = tuple(row for row in asked.variants if row.format == FORMATS[runtime])
        if not versions or not rows:
            continue
        request = replace(asked, variants=rows)
        compared = compare_devices(request, [HOST, *map(device, versions)], say)
        found += compared.agreements
        environments |= compared.environments
    if not found:
        msg = "none of the files runs on any of the versions; name others, or none for all"
        raise DevicesError(msg)
    page = write(
        args.out, found, {"target": args.target, "versions": names}, environments,
        [*summary(found), NOT_TRIED],
    )  # fmt: skip
    print(markdown(found), "", *summary(found), EXPLANATION, sep="\n")
    verdict = passed(found)
    print(f"\n{'PASS' if verdict else 'FAIL'}: {len(found)} comparisons; {page}", file=sys.stderr)
    return Exit.PASSED if verdict else Exit.FAILED


def _version(name: str) -> Pin:
    """Return a pinned version by its name."""
    runtime, version = parts_of(name)
    if runtime not in RUNTIMES:
        msg = f"{name!r} is no version of a runtime; expected {' or '.join(RUNTIMES)}==VERSION"
        raise PinError(msg)
    return pin(runtime, version)


def summary(found: Sequence[Agreement]) -> list[str]:
    """Name each version that cannot run a file or differs, or say that none does."""
    lines = []
    for runtime in RUNTIMES:
        mine: dict[str, list[Agreement]] = {}
        for each in found:
            if each.device.startswith(f"{runtime}=="):
                mine.setdefault(each.device.partition("==")[2], []).append(each)
        said = [
            f"- {version}: {', '.join(wrong)}"
            for version, rows in mine.items()
            if (wrong := [_what(row) for row in rows if row.status is not Status.PASS])
        ]
        verdict = "these cannot, or differ:" if said else "all load every file, no word differs."
        lines += [f"**{runtime}** {', '.join(mine)}: {verdict}", *said] if mine else []
    return lines


def _what(each: Agreement) -> str:
    verb = "cannot run" if each.status is Status.NOT_MEASURED else "differs with"
    return f"{verb} {each.file}"
