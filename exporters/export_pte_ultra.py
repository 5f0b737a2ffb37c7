"""Export the smallest and fastest INT8 encoder for ExecuTorch with XNNPACK."""

from __future__ import annotations

from exporters.cli import ExportOptions, Parser, run
from exporters.release import export_command


def main() -> None:
    """Run the command line."""
    parser = Parser(
        "export_pte_ultra",
        "Export the smallest and fastest INT8 encoder for ExecuTorch with XNNPACK.",
        "--checkpoint golden/golden.nemo --val_manifest golden/calib.jsonl "
        "--out build/encoder_int8_ultra.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.quantization_options()
    parser.option(
        "--fallback_to_fp32",
        action="store_true",
        help="if INT8 comes out broken, write FP32 under the name STEM.fp32-fallback.pte",
    )
    parser.output_option("the .pte to write; its sidecar FILE.json goes beside it", "--pte_out")
    args = parser.parse_args()
    export_command({"encoder_int8_ultra.pte": args.out}, ExportOptions.of(args))


if __name__ == "__main__":
    run(main)
