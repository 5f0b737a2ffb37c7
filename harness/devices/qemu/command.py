"""Set up the emulated arm64 cores, and show what files do on them.

``exportgate arm64 setup`` fetches the runtimes and builds what runs them (``make setup-arm64``
installs emulator and compilers too). ``exportgate arm64 compare DIR`` runs each file of a folder
on each core and on this machine, on the same swipes, and counts its instructions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.variants import VARIANTS
from exportgate import resources
from exportgate.artifacts.sidecar import ArtifactError
from exportgate.exit import Exit, Parser
from harness.devices.qemu.build import build
from harness.devices.qemu.table import comparison_table

if TYPE_CHECKING:
    from collections.abc import Sequence

SWIPES = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate arm64",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("setup", help="fetch and build; nothing is done twice")
    comparing = commands.add_parser("compare", help="write a table of files and cores")
    comparing.add_argument("folder", type=Path, help="files with their sidecars")
    comparing.add_argument("--manifest", type=Path, help="swipes; default: golden/val.jsonl")
    comparing.add_argument(
        "--swipes", type=int, default=SWIPES, help="how many of them (default %(default)s)"
    )
    comparing.add_argument("--out", type=Path, help="file of the table; default: print it")
    args = parser.parse_args(argv)
    if args.command == "setup":
        print(f"ready: {build()}")
        return Exit.PASSED
    if not args.folder.is_dir():
        msg = f"{args.folder}: no such folder; expected exported files and their sidecars"
        raise ArtifactError(msg)
    files = [args.folder / row.name for row in VARIANTS if (args.folder / row.name).is_file()]
    if not files:
        msg = f"{args.folder}: none of the table's files lies there; export them with release"
        raise ArtifactError(msg)
    manifest = args.manifest or resources.folder("golden") / "val.jsonl"
    text = comparison_table(files, manifest, args.swipes)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text)
    return Exit.PASSED
