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
    parser.output_option("the .pte to write; its sidecar FILE.json goes beside it", "--pte_out")
    args = parser.parse_args(argv)
    return export_command({"encoder_int8.pte": args.out}, ExportOptions.of(args)).status


if __name__ == "__main__":
    end(main)
