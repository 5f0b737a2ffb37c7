"""Export the encoder for ExecuTorch with XNNPACK, in FP32 or FP16."""

from __future__ import annotations

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
        "export_pte_optimized",
        "Export the encoder for ExecuTorch with XNNPACK, in FP32 or FP16.",
        "--checkpoint golden/golden.nemo --precision fp16 --out build/encoder_fp16.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.quantization_options()
    parser.option(
        "--precision",
        choices=["fp32", "fp16"],
        default="fp16",
        help="of weights and arithmetic (default %(default)s); the first convolutions stay FP32",
    )
    parser.output_option(
        "the .pte to write; its sidecar FILE.json goes beside it",
        "--pte_out",
        default="encoder_PRECISION.pte",
    )
    args = parser.parse_args(argv)
    name = f"encoder_{args.precision}.pte"
    return export_command({name: args.out}, ExportOptions.of(args), [name]).status


if __name__ == "__main__":
    end(main)
