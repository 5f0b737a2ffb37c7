"""What an export wrote, as the closing table shows it."""

from __future__ import annotations

import bz2
import lzma
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from exportgate.artifacts.contents.reading import read_contents
from exportgate.artifacts.sidecar import read_sidecar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from exportgate.artifacts.sidecar import Sidecar

_STORED = {32: "FP32", 16: "FP16", 8: "INT8", 4: "INT4"}
"""What numbers of so many bits are called; those of 64 are indices."""


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


def print_audit(rows: Sequence[Written]) -> None:
    """Print what is in the files, read from them: numbers by type, quantization, delegation.

    Numbers of fewer than 256 in a row (scales, shapes, biases) are left out. Delegation is what was
    counted while a .pte was lowered; ONNX Runtime has none.
    """
    contents = {row.path: read_contents(row.path) for row in rows}
    widths = [bits for bits in _STORED if any(found.bytes_of(bits) for found in contents.values())]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("inside", no_wrap=True)
    table.add_column("parameters", justify="right")
    for bits in widths:
        table.add_column(f"{_STORED[bits]} MB", justify="right")
    for heading in ("quantize ops", "dequantize ops", "delegates", "delegated ops %"):
        table.add_column(heading, justify="right")
    for path, found in contents.items():
        lowering = read_sidecar(path).lowering
        table.add_row(
            path.name,
            f"{found.parameters:,}",
            *(f"{found.bytes_of(bits) / 1e6:.3f}" for bits in widths),
            str(found.quantize_ops),
            str(found.dequantize_ops),
            str(found.delegates) if lowering else "-",
            f"{100 * lowering['node_ratio']:.1f}" if lowering else "-",
        )
    print()
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
