"""Export the encoder in FP32 for ExecuTorch with XNNPACK."""

from __future__ import annotations

from exporters.cli import ExportOptions, Parser, run
from exporters.release import export_command


def main() -> None:
    """Run the command line."""
    parser = Parser(
        "export_pte_fp32",
        "Export the encoder in FP32 for ExecuTorch with XNNPACK.",
        "--checkpoint golden/golden.nemo --out build/encoder_fp32.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.output_option("the .pte to write; its sidecar FILE.json goes beside it", "--pte_out")
    args = parser.parse_args()
    export_command({"encoder_fp32.pte": args.out}, ExportOptions.of(args))


if __name__ == "__main__":
    run(main)
