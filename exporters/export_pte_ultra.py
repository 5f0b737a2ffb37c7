"""Export the smallest and fastest INT8 encoder for XNNPACK, or a smaller INT4 one."""

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
        "export_pte_ultra",
        "Export the smallest and fastest INT8 encoder for ExecuTorch with XNNPACK, or with "
        "--weight_bits 4 the smallest one that keeps the words.",
        "--checkpoint golden/golden.nemo --calibration golden/calib.jsonl "
        "--out build/encoder_int8_ultra.pte",
    )
    parser.checkpoint_options()
    parser.encoder_options()
    parser.quantization_options()
    parser.option(
        "--weight_bits",
        type=int,
        choices=[8, 4],
        default=8,
        help="of the weights (default %(default)s)",
    )
    parser.option(
        "--skip_partition_check",
        action="store_true",
        help="changes nothing: what is delegated is counted here, and judged by the gate",
    )
    parser.output_option(
        "the .pte to write; its sidecar FILE.json goes beside it",
        "--pte_out",
        default="encoder_int8_ultra.pte, or encoder_int4.pte,",
    )
    args = parser.parse_args(argv)
    name = {8: "encoder_int8_ultra.pte", 4: "encoder_int4.pte"}[args.weight_bits]
    return export_command({name: args.out}, ExportOptions.of(args), [name]).status


if __name__ == "__main__":
    end(main)
