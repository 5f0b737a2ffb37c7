"""Export the encoder in FP32 for ExecuTorch with XNNPACK."""

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
        "export_pte_fp32",
        "Export the encoder in FP32 for ExecuTorch with XNNPACK.",
        "--checkpoint golden/golden.nemo --out build/encoder_fp32.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.output_option(
        "the .pte to write; its sidecar FILE.json goes beside it",
        "--pte_out",
        default="encoder_fp32.pte",
    )
    args = parser.parse_args(argv)
    name = "encoder_fp32.pte"
    return export_command({name: args.out}, ExportOptions.of(args), [name]).status


if __name__ == "__main__":
    end(main)
