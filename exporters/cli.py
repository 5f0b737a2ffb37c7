"""What the exporters' command lines share: options in both spellings, stages, errors, the table."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from exporters.artifact import sha256_of
from exporters.calibration import Calibration, calibration_from_manifest
from exporters.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from exporters.checkpoint import Checkpoint

DEFAULT_MAX_TRACE_LEN = 200
DEFAULT_CALIBRATION_BATCHES = 16
DEFAULT_CALIBRATION_BATCH_SIZE = 4


class OptionError(ExportGateError, ValueError):
    """Options contradict each other, the checkpoint or the files that they name."""


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
            help="swipes as JSON lines, to calibrate INT8 with",
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


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        msg = f"{text} should be at least 1"
        raise argparse.ArgumentTypeError(msg)
    return number


def calibration_of(args: argparse.Namespace, checkpoint: Checkpoint) -> Calibration:
    """Read the calibration swipes that the options name.

    Raises:
        OptionError: No manifest is named.
    """
    if args.val_manifest is None:
        msg = "INT8 needs swipes to calibrate with; name a manifest with --val_manifest"
        raise OptionError(msg)
    return calibration_from_manifest(
        args.val_manifest,
        swipes=args.calib_batches * args.calib_bs,
        max_trace_len=args.max_trace_len,
        feature_dim=checkpoint.spec.feature_dim,
    )


def check_vocabulary(path: Path, labels: Sequence[str]) -> None:
    """Check that a vocabulary file lists exactly the checkpoint's labels, in order.

    Raises:
        OptionError: It does not; decoded ids would stand for other characters.
    """
    try:
        lines = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path}: cannot read the vocabulary ({error})"
        raise OptionError(msg) from error
    if lines == tuple(labels):
        return
    differing = next(
        (i for i, (a, b) in enumerate(zip(lines, labels, strict=False)) if a != b), None
    )
    detail = (
        f"line {differing + 1} is {lines[differing]!r}, but should be {labels[differing]!r}"
        if differing is not None
        else f"it has {len(lines)} lines, but should have {len(labels)}"
    )
    msg = f"{path}: the vocabulary does not fit the checkpoint: {detail}"
    raise OptionError(msg)


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
    seconds: float
    cached: bool


def written(path: Path, precision: str, seconds: float, *, cached: bool = False) -> Written:
    """Describe a file that was just written; deflate level 6 is what zip and HTTP use."""
    payload = path.read_bytes()
    deflated = len(zlib.compress(payload, 6))
    return Written(path, precision, len(payload), deflated, seconds, cached)


def file_sha256(path: Path, kind: str) -> str:
    """Return a file's SHA-256.

    Raises:
        OptionError: There is no such file.
    """
    if not path.is_file():
        msg = f"{path}: no such {kind}"
        raise OptionError(msg)
    return sha256_of(path)


def print_table(rows: Sequence[Written]) -> None:
    """Print what was written: file, precision, megabytes (1e6 bytes) and seconds."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("file", "precision", "MB", "MB deflated", "seconds"):
        table.add_column(heading, justify="left" if heading in {"file", "precision"} else "right")
    for row in rows:
        table.add_row(
            str(row.path),
            row.precision,
            f"{row.raw_bytes / 1e6:.3f}",
            f"{row.deflated_bytes / 1e6:.3f}",
            "cached" if row.cached else f"{row.seconds:.1f}",
        )
    Console(soft_wrap=True).print(table)


def run(main: Callable[[], None]) -> None:
    """Run a command line: errors that the user can mend get one line and exit status 2."""
    try:
        main()
    except ExportGateError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
