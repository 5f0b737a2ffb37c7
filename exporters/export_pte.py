"""Export the encoder in INT8 for ExecuTorch with XNNPACK, quantized by PT2E."""

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
        "export_pte",
        "Export the encoder in INT8 for ExecuTorch with XNNPACK, quantized by PT2E.",
        "--checkpoint golden/golden.nemo --calibration golden/calib.jsonl "
        "--out build/encoder_int8.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.quantization_options()
    parser.output_option(
        "the .pte to write; its sidecar FILE.json goes beside it",
        "--pte_out",
        default="encoder_int8.pte",
    )
    args = parser.parse_args(argv)
    name = "encoder_int8.pte"
    return export_command({name: args.out}, ExportOptions.of(args), [name]).status


if __name__ == "__main__":
    end(main)
