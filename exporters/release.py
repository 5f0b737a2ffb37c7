"""Export files of the table from one load of the checkpoint, those from a cache that it holds.

``python -m exporters.release --checkpoint golden/golden.nemo --target android --out build/android``

A file that fails does not keep the others from being made: it is named at the end, and the exit
status is 2. ``--progress_fd N`` reports what happens as JSON lines: see ``pipeline.events``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.command import export_command
from exporters.pipeline.options import ExportOptions
from exporters.pipeline.parallel import usable_cores
from exporters.pipeline.parser import Parser, positive
from exporters.variants import TARGETS, all_presented, variant, variants_of
from exportgate.exit import end

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        "release",
        "Export every file of a target from one load of the checkpoint.",
        "--checkpoint golden/golden.nemo --calibration golden/calib.jsonl "
        "--target android --out build/android",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.step_interface_options()
    parser.quantization_options()
    parser.option("--target", choices=[*TARGETS, "all"], default="all", help="whose files")
    parser.option("--variant", action="append", metavar="NAME", help="only this file; repeatable")
    parser.option(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="how each layer of encoder_int4.pte is stored, as `exportgate search` found it; name "
        "the file with --variant",
    )
    parser.output_option("folder to write to", metavar="DIR")
    parser.option(
        "--cache", type=Path, metavar="DIR", help="reuse exports whose inputs did not change"
    )
    parser.option(
        "--jobs",
        type=positive,
        default=usable_cores(),
        metavar="N",
        help="files to export at once (default: one for each core, here %(default)s)",
    )
    parser.option(
        "--progress_fd",
        type=int,
        metavar="N",
        help="write what happens as JSON lines to this open file descriptor, for programs",
    )
    args = parser.parse_args(argv)
    options = ExportOptions.of(args)
    names = args.variant or [row.name for row in variants_of(args.target)]
    rows = [row for name in names for row in all_presented(variant(name), options.interface)]
    return export_command({row.name: args.out / row.name for row in rows}, options).status


if __name__ == "__main__":
    end(main)
