"""Export the encoder as ONNX: FP32, and INT8 with static QDQ per channel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.command import export_command
from exporters.pipeline.options import ExportOptions
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
    parser.option("--fp32_onnx", type=Path, metavar="FILE", help="the FP32 file to write")
    parser.option(
        "--output", "--out", dest="out", type=Path, metavar="FILE", help="the INT8 file to write"
    )
    args = parser.parse_args(argv)
    outputs = {"encoder_fp32.onnx": args.fp32_onnx, "encoder_int8.onnx": args.out}
    return export_command(outputs, ExportOptions.of(args)).status


if __name__ == "__main__":
    end(main)
