"""Export the encoder as ONNX for web pages, Android and servers, optimised for each.

The INT8 files for the web and for Android hold the same weights in other graphs. ONNX Runtime Web
builds its session on the page's main thread, so its file is optimised ahead of time, up to the
level that is valid on every machine. On Android the device's own ONNX Runtime optimises for its
own kernels, so that file keeps the standard QDQ graph that those passes look for; it is the INT8
file of ``export_onnx``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.ort.derived import write_external_data, write_ort_optimized
from exporters.pipeline.command import export_command
from exporters.pipeline.options import ExportOptions
from exporters.pipeline.parser import Parser
from exporters.pipeline.written import print_compression
from exportgate.exit import end

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        "export_optimized_onnx",
        "Export the encoder as ONNX for web pages, Android and servers.",
        "--checkpoint golden/golden.nemo --calibration golden/calib.jsonl "
        "--web_onnx build/encoder_int8_web.onnx --fp16_onnx build/encoder_fp16.onnx",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.quantization_options()
    add_outputs(parser)
    args = parser.parse_args(argv)
    done = export_command(
        {
            "encoder_fp32.onnx": args.fp32_onnx,
            "encoder_fp16.onnx": args.fp16_onnx,
            "encoder_int8_web.onnx": args.web_onnx,
            "encoder_int8.onnx": args.android_onnx,
        },
        ExportOptions.of(args),
    )
    paths = [row.path for row in done.files]
    if args.create_ort_optimized:
        paths += [made for path in list(paths) for made in write_ort_optimized(path)]
    if args.external_data:
        for path in paths[: len(done.files)]:
            print(f"  wrote {write_external_data(path)}", file=sys.stderr)
    if args.compression_test:
        print_compression(paths)
    return done.status


def add_outputs(parser: Parser) -> argparse.ArgumentParser:
    """Add the options that say what to write."""
    for flag, what in (
        ("--fp32_onnx", "FP32"),
        ("--fp16_onnx", "weights in FP16, arithmetic in FP32, for servers"),
        ("--web_onnx", "INT8 for ONNX Runtime Web"),
        ("--android_onnx", "INT8 for ONNX Runtime on Android"),
    ):
        parser.option(flag, type=Path, metavar="FILE", help=f"file to write: {what}")
    parser.option(
        "--create_ort_optimized",
        action="store_true",
        help="also write each file optimised ahead of time, as STEM.opt.onnx and STEM.ort",
    )
    parser.option(
        "--external_data",
        action="store_true",
        help="also write each file with its weights apart, as STEM.ext.onnx and STEM.ext.data",
    )
    parser.option(
        "--compression_test",
        action="store_true",
        help="print how far deflate, bzip2 and lzma shrink each file",
    )
    return parser


if __name__ == "__main__":
    end(main)
