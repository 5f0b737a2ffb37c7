"""What an export wrote, as the closing table shows it."""

from __future__ import annotations

import bz2
import lzma
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.artifacts.sidecar import Sidecar


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
