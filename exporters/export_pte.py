"""Export the encoder in INT8 for ExecuTorch with XNNPACK, quantized by PT2E."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.pipeline.options import ExportOptions, Parser
from exporters.release import export_command
from exportgate.exit import Exit, end

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        "export_pte",
        "Export the encoder in INT8 for ExecuTorch with XNNPACK, quantized by PT2E.",
        "--checkpoint golden/golden.nemo --val_manifest golden/calib.jsonl "
        "--out build/encoder_int8.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.output_option("the .pte to write; its sidecar FILE.json goes beside it", "--pte_out")
    args = parser.parse_args(argv)
    export_command({"encoder_int8.pte": args.out}, ExportOptions.of(args))
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
