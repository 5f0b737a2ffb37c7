"""Export one decoding step (prediction network and joint) as ONNX, .pte or both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.command import export_command
from exporters.pipeline.options import ExportOptions
from exporters.pipeline.parser import Parser, positive
from exportgate.exit import end

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        "export_rnnt_step",
        "Export one decoding step (prediction network and joint) as ONNX, .pte or both.",
        "--checkpoint golden/golden.nemo --onnx_out build/step_fp32.onnx "
        "--pte_out build/step_fp32.pte",
    )
    parser.checkpoint_options()
    parser.option("--onnx_out", type=Path, metavar="FILE", help="ONNX file to write")
    parser.option("--pte_out", type=Path, metavar="FILE", help="ExecuTorch file to write")
    parser.option(
        "--precision",
        choices=["fp32", "int8"],
        default="fp32",
        help="of the weights (default %(default)s)",
    )
    parser.option(
        "--layers", type=positive, metavar="L", help="LSTM layers; must equal the checkpoint's"
    )
    parser.option(
        "--hidden", type=positive, metavar="H", help="LSTM width; must equal the checkpoint's"
    )
    parser.step_interface_options()
    parser.option(
        "--enc_dim",
        type=positive,
        metavar="D",
        help="width of the encoder's output; must equal the checkpoint's",
    )
    parser.calibration_options()
    parser.quantization_options()
    args = parser.parse_args(argv)
    outputs = {
        f"step_{args.precision}.onnx": args.onnx_out,
        f"step_{args.precision}.pte": args.pte_out,
    }
    return export_command(outputs, ExportOptions.of(args), list(outputs)).status


if __name__ == "__main__":
    end(main)
