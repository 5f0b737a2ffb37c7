"""Export one decoding step (prediction network and joint) for ONNX Runtime and for ExecuTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.cli import OptionError, Parser, positive, run
from exporters.release import export_command

if TYPE_CHECKING:
    import argparse

    from exporters.contract import ModelSpec


def main() -> None:
    """Run the command line."""
    parser = Parser(
        "export_rnnt_step",
        "Export one decoding step (prediction network and joint) as ONNX, .pte or both.",
        "--checkpoint golden/golden.nemo --onnx_out build/step_fp32.onnx "
        "--pte_out build/step_fp32.pte",
    )
    parser.checkpoint_options()
    parser.option("--onnx_out", type=Path, metavar="FILE", help="the ONNX file to write")
    parser.option("--pte_out", type=Path, metavar="FILE", help="the ExecuTorch file to write")
    parser.option(
        "--layers", type=positive, metavar="L", help="LSTM layers; must equal the checkpoint's"
    )
    parser.option(
        "--hidden", type=positive, metavar="H", help="LSTM width; must equal the checkpoint's"
    )
    args = parser.parse_args()
    export_command(
        {"step_fp32.onnx": args.onnx_out, "step_fp32.pte": args.pte_out}, args, check_dimensions
    )


def check_dimensions(args: argparse.Namespace, spec: ModelSpec) -> None:
    """Refuse dimensions that are not the checkpoint's: it alone says what the model is.

    Raises:
        OptionError: ``--layers`` or ``--hidden`` differ from the checkpoint.
    """
    for flag, given, actual in (
        ("--layers", args.layers, spec.pred_layers),
        ("--hidden", args.hidden, spec.pred_hidden),
    ):
        if given is not None and given != actual:
            msg = f"{flag} is {given}, but the checkpoint has {actual}; leave the option out"
            raise OptionError(msg)


if __name__ == "__main__":
    run(main)
