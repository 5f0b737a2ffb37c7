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

from exporters.ort.derived import write_external_data
from exporters.pipeline.command import export_command
from exporters.pipeline.options import ExportOptions, OptionError
from exporters.pipeline.outputs import without_int8
from exporters.pipeline.parser import Parser
from exporters.pipeline.written import print_compression
from exportgate.exit import end

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_NO_ORT_FILES = (
    "--create_ort_optimized would write nothing worth shipping: optimised ahead of time, the INT8 "
    "file is that of --web_onnx and the others are the same within 1 % of size, and ONNX Runtime's "
    "own format is 3 to 12 % larger; leave the option out"
)


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
    if args.create_ort_optimized:
        raise OptionError(_NO_ORT_FILES)
    outputs = {
        "encoder_fp32.onnx": args.fp32_onnx,
        "encoder_fp16.onnx": args.fp16_onnx,
        "encoder_int8_web.onnx": args.web_onnx,
        "encoder_int8.onnx": args.android_onnx,
    }
    defaults = list(outputs)
    if args.skip_quantization:
        outputs, defaults = without_int8(outputs, defaults, "--skip_quantization")
    done = export_command(outputs, ExportOptions.of(args), defaults)
    paths = [row.path for row in done.files]
    if args.external_data:
        for path in paths:
            print(f"  wrote {write_external_data(path)}", file=sys.stderr)
    if args.compression_test:
        print_compression(paths)
    return done.status


def add_outputs(parser: Parser) -> argparse.ArgumentParser:
    """Add the options that say what to write; without any, all four beside the checkpoint."""
    for flags, what in (
        (("--fp32_onnx", "--fp32_base"), "FP32"),
        (("--fp16_onnx", "--fp16_base"), "weights in FP16, arithmetic in FP32, for servers"),
        (("--web_onnx",), "INT8 for ONNX Runtime Web"),
        (("--android_onnx",), "INT8 for ONNX Runtime on Android"),
    ):
        dest = flags[0].removeprefix("--")
        parser.option(*flags, dest=dest, type=Path, metavar="FILE", help=f"file to write: {what}")
    parser.option("--skip_quantization", action="store_true", help="write no INT8 file")
    parser.option(
        "--create_ort_optimized",
        action="store_true",
        help="refused, with the reason: the file of --web_onnx is optimised ahead of time already, "
        "and ONNX Runtime's own format is larger",
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
