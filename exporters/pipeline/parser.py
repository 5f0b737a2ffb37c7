"""The exporters' command lines: options that several of them take, in both spellings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.pipeline.options import (
    CALIBRATION_BATCH_SIZE,
    CALIBRATION_BATCHES,
    DEFAULT_MAX_TRACE_LEN,
)
from exportgate.exit import Parser as PlainParser

if TYPE_CHECKING:
    from collections.abc import Sequence


class Parser(PlainParser):
    """An argument parser whose long options can be written ``--like_this`` or ``--like-this``.

    Several have more than one name: public export scripts for these models call them so, and their
    command lines work as they stand.
    """

    def __init__(self, module: str, summary: str, example: str) -> None:
        """Make a parser for ``python -m exporters.<module>`` and ``exportgate <module>``."""
        called = "exportgate " if Path(sys.argv[0]).stem == "exportgate" else "python -m exporters."
        super().__init__(
            prog=f"{called}{module}",
            description=summary,
            epilog=f"example:\n  {called}{module} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def option(self, *flags: str, **settings: Any) -> None:  # noqa: ANN401 - argparse's own
        """Add an option under each flag, with underscores and with hyphens."""
        self.add_argument(*_both_spellings(flags), **settings)

    def checkpoint_options(self) -> None:
        """Add the options that say which model is exported."""
        self.option(
            "--nemo_model",
            "--checkpoint",
            dest="checkpoint",
            type=Path,
            required=True,
            metavar="FILE",
            help="the model: a .nemo archive or a Lightning .ckpt",
        )
        self.option(
            "--vocab",
            type=Path,
            metavar="FILE",
            help="vocabulary, one label a line; must equal the checkpoint's labels",
        )
        self.option(
            "--package_dir",
            type=Path,
            metavar="DIR",
            help="also write a release bundle, or add to the one that is there: the files, "
            "vocabulary, contract, features and hashes",
        )
        self.option("--lexicon", type=Path, metavar="FILE", help="word list to go into the bundle")
        self.option(
            "--bundle_assets",
            type=Path,
            nargs="*",
            default=[],
            metavar="FILE",
            help="other files to go into the bundle",
        )

    def encoder_options(self) -> None:
        """Add the options of every encoder export."""
        self.option(
            "--max_trace_len",
            "--max_length",
            dest="max_trace_len",
            type=positive,
            default=DEFAULT_MAX_TRACE_LEN,
            metavar="T",
            help="longest trace in points that the file takes (default %(default)s)",
        )
        self.lengths_option()
        self.calibration_options()

    def calibration_options(self) -> None:
        """Add the options that say with which swipes to calibrate."""
        either = self.add_mutually_exclusive_group()
        either.add_argument(
            *_both_spellings(["--val_manifest", "--calibration", "--calib_manifest"]),
            dest="calibration",
            type=Path,
            metavar="FILE",
            help="calibration swipes as JSON lines: integer weights and ranges are fitted to all "
            "of them, so none of them should judge the files; without it, gesture-like synthetic "
            "swipes",
        )
        either.add_argument(
            *_both_spellings(["--synthetic_calibration"]),
            action="store_true",
            help="calibrate with synthetic swipes, as without a manifest",
        )
        self.option(
            "--calibration_samples",
            type=positive,
            metavar="N",
            help="calibrate with N swipes, spread over the manifest, instead of with all",
        )
        self.option(
            "--calib_batches",
            "--calibration_batches",
            dest="calib_batches",
            type=positive,
            metavar="N",
            help="calibrate with N batches of swipes instead of with all (default with --calib_bs: "
            f"{CALIBRATION_BATCHES})",
        )
        self.option(
            "--calib_bs",
            "--calib_batch_size",
            "--calibration_batch_size",
            dest="calib_bs",
            type=positive,
            metavar="N",
            help=f"swipes in such a batch (default with --calib_batches: {CALIBRATION_BATCH_SIZE})",
        )

    def lengths_option(self) -> None:
        """Add the option for applications that give an encoder other lengths."""
        self.option(
            "--lengths_dtype",
            choices=["int64", "int32"],
            default="int64",
            help="of an encoder's lengths, in and out, for an application that gives int32 "
            "(default %(default)s)",
        )

    def step_interface_options(self) -> None:
        """Add the options for applications that call a step otherwise."""
        self.option(
            "--step_batch",
            type=positive,
            default=1,
            metavar="N",
            help="hypotheses that a .pte step takes at each call (default %(default)s); an ONNX "
            "step takes any number",
        )
        self.option(
            "--log_probs",
            action="store_true",
            help="a step gives log-softmax, as log_probs, in the place of logits, for an "
            "application that adds them up; the file's name says so",
        )
        self.option(
            "--split",
            action="store_true",
            help="prediction network and joint to be called apart: two ONNX files, predict_*.onnx "
            "and joint_*.onnx, and a .pte with methods predict and joint",
        )

    def quantization_options(self) -> None:
        """Add the options of the exporters that round weights, and check what became of them."""
        self.option(
            "--skip_quantization_check",
            "--skip_quantization_audit",
            dest="skip_quantization_check",
            action="store_true",
            help="keep a file even if it is broken",
        )
        self.option(
            "--fallback_to_fp32",
            action="store_true",
            help="if a file comes out broken, write FP32 under the name STEM.fp32-fallback.SUFFIX",
        )

    def output_option(
        self, what: str, *more: str, metavar: str = "FILE", default: str = ""
    ) -> None:
        """Add the option that says where to write.

        Args:
            what: Is written.
            more: Other names of the option.
            metavar: ``FILE`` or ``DIR``.
            default: Name of what is written beside the checkpoint; without one it is required.
        """
        self.option(
            "--out",
            "--output",
            *more,
            dest="out",
            type=Path,
            required=not default,
            metavar=metavar,
            help=f"{what}; default: {default} beside the checkpoint" if default else what,
        )


def _both_spellings(flags: Sequence[str]) -> list[str]:
    hyphened = [flag.replace("_", "-").replace("---", "--") for flag in flags]
    return list(dict.fromkeys([*flags, *hyphened]))


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        msg = f"{text} should be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number
