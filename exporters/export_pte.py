"""Export the encoder in INT8 for ExecuTorch with XNNPACK, quantized by PT2E."""

from __future__ import annotations

from exporters.cli import ExportOptions, Parser, run
from exporters.release import export_command


def main() -> None:
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
    args = parser.parse_args()
    export_command({"encoder_int8.pte": args.out}, ExportOptions.of(args))


if __name__ == "__main__":
    run(main)
