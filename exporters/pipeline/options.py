"""What the exporters' command lines share: options in both spellings, stages, errors, the table."""

from __future__ import annotations

import argparse
import bz2
import contextlib
import lzma
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from exportgate.artifacts.sidecar import Sidecar, sha256_of
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exportgate.contract import ModelSpec

DEFAULT_MAX_TRACE_LEN = 200
DEFAULT_CALIBRATION_BATCHES = 16
DEFAULT_CALIBRATION_BATCH_SIZE = 4


class OptionError(ExportGateError, ValueError):
    """Options contradict each other, the checkpoint or the files that they name."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export starts from, and how it is made.

    Attributes:
        checkpoint: The model.
        vocab: Vocabulary file that must equal the checkpoint's labels.
        layers: LSTM layers that the checkpoint must have.
        hidden: LSTM width that the checkpoint must have.
        max_trace_len: Longest trace in points that an encoder takes.
        manifest: Swipes to calibrate with; synthetic ones if None.
        calibration_swipes: How many.
        check_quantization: Refuse a quantized file that is broken.
        fallback_to_fp32: Write FP32 in its place, under a name that says so.
        cache: Where exports are kept; None to export anew.
        package_dir: Bundle that the files go into as well.
        lexicon: Word list for that bundle.
        jobs: Files to export at once.
    """

    checkpoint: Path
    vocab: Path | None = None
    layers: int | None = None
    hidden: int | None = None
    max_trace_len: int = DEFAULT_MAX_TRACE_LEN
    manifest: Path | None = None
    calibration_swipes: int = DEFAULT_CALIBRATION_BATCHES * DEFAULT_CALIBRATION_BATCH_SIZE
    check_quantization: bool = True
    fallback_to_fp32: bool = False
    cache: Path | None = None
    package_dir: Path | None = None
    lexicon: Path | None = None
    jobs: int = 1

    @classmethod
    def of(cls, args: argparse.Namespace) -> ExportOptions:
        """Take over what a command line was given; each knows only some of the options."""
        given = vars(args)
        samples = given.get("calibration_samples")
        batches = given.get("calib_batches", DEFAULT_CALIBRATION_BATCHES)
        size = given.get("calib_bs", DEFAULT_CALIBRATION_BATCH_SIZE)
        return cls(
            checkpoint=args.checkpoint,
            vocab=args.vocab,
            layers=given.get("layers"),
            hidden=given.get("hidden"),
            max_trace_len=given.get("max_trace_len", DEFAULT_MAX_TRACE_LEN),
            manifest=given.get("val_manifest"),
            calibration_swipes=samples or batches * size,
            check_quantization=not given.get("skip_quantization_check", False),
            fallback_to_fp32=given.get("fallback_to_fp32", False),
            cache=given.get("cache"),
            package_dir=given.get("package_dir"),
            lexicon=given.get("lexicon"),
            jobs=given.get("jobs", 1),
        )


class Parser(argparse.ArgumentParser):
    """An argument parser whose long options can be written ``--like_this`` or ``--like-this``."""

    def __init__(self, module: str, summary: str, example: str) -> None:
        """Make a parser for ``python -m exporters.<module>``."""
        super().__init__(
            prog=f"python -m exporters.{module}",
            description=summary,
            epilog=f"example:\n  python -m exporters.{module} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def option(self, *flags: str, **settings: Any) -> None:  # noqa: ANN401 - argparse's own
        """Add an option under each flag, with underscores and with hyphens."""
        hyphened = [flag.replace("_", "-").replace("---", "--") for flag in flags]
        self.add_argument(*dict.fromkeys([*flags, *hyphened]), **settings)

    def checkpoint_options(self) -> None:
        """Add the options that say which model is exported."""
        self.option(
            "--nemo_model",
            "--checkpoint",
            dest="checkpoint",
            type=Path,
            required=True,
            metavar="FILE",
            help="checkpoint: a .nemo archive or a Lightning .ckpt",
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

    def encoder_options(self) -> None:
        """Add the options of every encoder export."""
        self.option(
            "--max_trace_len",
            type=positive,
            default=DEFAULT_MAX_TRACE_LEN,
            metavar="T",
            help="longest trace in points that the file takes (default %(default)s)",
        )
        self.option(
            "--val_manifest",
            type=Path,
            metavar="FILE",
            help="swipes as JSON lines, to calibrate INT8 with; synthetic ones without it",
        )
        self.option(
            "--calib_batches",
            type=positive,
            default=DEFAULT_CALIBRATION_BATCHES,
            metavar="N",
            help="batches of calibration swipes (default %(default)s)",
        )
        self.option(
            "--calib_bs",
            type=positive,
            default=DEFAULT_CALIBRATION_BATCH_SIZE,
            metavar="N",
            help="swipes in a calibration batch (default %(default)s)",
        )

    def quantization_options(self) -> None:
        """Add the options of the exporters that check what they quantized."""
        self.option(
            "--calibration_samples",
            type=positive,
            metavar="N",
            help="calibration swipes, instead of --calib_batches times --calib_bs",
        )
        self.option(
            "--skip_quantization_check",
            action="store_true",
            help="keep a quantized file even if it is broken",
        )

    def output_option(self, what: str, *more: str, metavar: str = "FILE") -> None:
        """Add the required option that says where to write."""
        self.option(
            "--out",
            "--output",
            *more,
            dest="out",
            type=Path,
            required=True,
            metavar=metavar,
            help=what,
        )


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        msg = f"{text} should be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def check_model(options: ExportOptions, spec: ModelSpec) -> None:
    """Refuse a vocabulary or dimensions that are not the checkpoint's: it says what the model is.

    Raises:
        OptionError: ``--vocab``, ``--layers`` or ``--hidden`` differ from the checkpoint.
    """
    for flag, given, actual in (
        ("--layers", options.layers, spec.pred_layers),
        ("--hidden", options.hidden, spec.pred_hidden),
    ):
        if given is not None and given != actual:
            msg = f"{flag} is {given}, but the checkpoint has {actual}; leave the option out"
            raise OptionError(msg)
    if options.vocab is not None:
        _check_vocabulary(options.vocab, spec.labels)


def _check_vocabulary(path: Path, labels: Sequence[str]) -> None:
    """Check that a file lists exactly the labels; else decoded ids stand for other characters."""
    try:
        lines = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot read the vocabulary ({error})"
        raise OptionError(msg) from error
    if lines == tuple(labels):
        return
    pairs = enumerate(zip(lines, labels, strict=False))
    differing = next((i for i, (a, b) in pairs if a != b), None)
    detail = (
        f"line {differing + 1} is {lines[differing]!r}, but should be {labels[differing]!r}"
        if differing is not None
        else f"it has {len(lines)} lines, but should have {len(labels)}"
    )
    msg = f"{path}: the vocabulary does not fit the checkpoint: {detail}"
    raise OptionError(msg)


def file_sha256(path: Path, kind: str) -> str:
    """Return the SHA-256 of a file, or of a folder such as an unpacked checkpoint.

    Raises:
        OptionError: There is no such file.
    """
    if not path.exists():
        msg = f"{path}: no such {kind}"
        raise OptionError(msg)
    return sha256_of(path)


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Say on standard error what is being done, and how long it took once it is done."""
    print(f"  {name} …", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        yield
    except BaseException:
        print(" failed", file=sys.stderr, flush=True)
        raise
    print(f" {time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Written:
    """A row of the closing table."""

    path: Path
    precision: str
    raw_bytes: int
    deflated_bytes: int
    sqnr_db: float | None
    seconds: float
    cached: bool


def written(path: Path, sidecar: Sidecar, seconds: float, *, cached: bool = False) -> Written:
    """Describe a file that was just written; deflate level 6 is what zip and HTTP use."""
    payload = path.read_bytes()
    deflated = len(zlib.compress(payload, 6))
    return Written(
        path, sidecar.precision, len(payload), deflated, sidecar.sqnr_db, seconds, cached
    )


def print_table(rows: Sequence[Written]) -> None:
    """Print what was written: file, precision, megabytes (1e6 bytes), dB against NeMo, seconds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", no_wrap=True)
    table.add_column("precision")
    for heading in ("MB", "MB deflated", "SQNR dB", "seconds"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            str(row.path),
            row.precision,
            f"{row.raw_bytes / 1e6:.3f}",
            f"{row.deflated_bytes / 1e6:.3f}",
            "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
            "cached" if row.cached else f"{row.seconds:.1f}",
        )
    _print_whole(table)


def _print_whole(table: Table) -> None:
    """Print a table as wide as it is: a path that is cut cannot be copied."""
    console = Console()
    wide = console.options.update(max_width=10_000)
    console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)


def print_compression(paths: Sequence[Path]) -> None:
    """Print how far general compressors shrink files: what a download or a package costs."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", no_wrap=True)
    for heading in ("MB", "deflate", "bzip2", "lzma"):
        table.add_column(heading, justify="right")
    for path in paths:
        payload = path.read_bytes()
        sizes = (zlib.compress(payload, 9), bz2.compress(payload), lzma.compress(payload))
        ratios = [f"{len(data) / len(payload):.3f}" for data in sizes]
        table.add_row(str(path), f"{len(payload) / 1e6:.3f}", *ratios)
    _print_whole(table)
