"""Export the encoder as ONNX: FP32, and INT8 with static QDQ per channel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.command import export_command
from exporters.pipeline.options import ExportOptions
from exporters.pipeline.outputs import without_int8
from exporters.pipeline.parser import Parser
from exportgate.exit import end

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        "export_onnx",
        "Export the encoder as ONNX: FP32, and INT8 with static QDQ per channel.",
        "--checkpoint golden/golden.nemo --calibration golden/calib.jsonl "
        "--fp32_onnx build/encoder_fp32.onnx --output build/encoder_int8.onnx",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.quantization_options()
    add_outputs(parser)
    args = parser.parse_args(argv)
    outputs = {
        "encoder_fp32.onnx": args.fp32_onnx,
        "encoder_fp16.onnx": args.fp16_onnx,
        "encoder_int8.onnx": args.out,
    }
    defaults = ["encoder_fp32.onnx", "encoder_int8.onnx"]
    if args.skip_int8:
        outputs, defaults = without_int8(outputs, defaults, "--skip_int8")
    return export_command(outputs, ExportOptions.of(args), defaults).status


def add_outputs(parser: Parser) -> None:
    """Add the options that say what to write; without any, FP32 and INT8 beside the checkpoint."""
    for flags, what in (
        (("--fp32_onnx", "--fp32_output"), "FP32 file to write"),
        (("--fp16_onnx", "--fp16_output"), "FP16 file to write: see export_optimized_onnx"),
        (("--output", "--out", "--int8_output"), "INT8 file to write"),
    ):
        dest = "out" if "--out" in flags else flags[0].removeprefix("--")
        parser.option(*flags, dest=dest, type=Path, metavar="FILE", help=what)
    parser.option("--skip_int8", action="store_true", help="write no INT8 file")


if __name__ == "__main__":
    end(main)
