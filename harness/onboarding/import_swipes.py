"""``exportgate import KIND FILE…``: a manifest of real swipes from recordings that others publish.

Recordings are read one at a time, however long the file. What is no swipe is dropped and counted by
its reason. Coordinates may leave the keyboard by up to half of it; they are not clamped, because
the features are not either.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.parser import positive
from exportgate.artifacts.sidecar import keep_inputs
from exportgate.data.importers.futo import read_futo
from exportgate.data.importers.how_we_swipe import read_how_we_swipe
from exportgate.data.importers.neuroswipe import read_grids, read_neuroswipe
from exportgate.data.importers.recording import Dropped, ImportingError, Recording
from exportgate.data.manifest import write_manifest
from exportgate.exit import Exit, Parser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from exportgate.data.manifest import Swipe

KINDS = {
    "futo": "JSON lines with word and data",
    "how-we-swipe": "logs of touch events",
    "neuroswipe": "JSON lines with word and curve",
}
_STAGGERED = (
    "the rows of this keyboard are staggered, but the features measure distances to keys in "
    "columns (docs/formats.md): train, calibrate and judge with the same"
)


class Tally:
    """Counts what is kept and what is dropped while it passes by."""

    def __init__(self, most_points: int | None) -> None:
        """Keep swipes of at most so many points; of any number if None."""
        self.swipes = 0
        self.outside = 0
        self.words: set[str] = set()
        self.dropped: Counter[str] = Counter()
        self.first: dict[str, int] = {}
        self._most_points = most_points

    def kept(self, recordings: Iterable[Recording]) -> Iterator[Swipe]:
        """Yield the swipes."""
        for recording in recordings:
            if isinstance(recording, Dropped):
                self._drop(recording.reason, recording.line)
            elif self._most_points is not None and len(recording.points) > self._most_points:
                self._drop(f"more than {self._most_points} points", recording.line)
            else:
                self.swipes += 1
                self.words.add(recording.word)
                xy = recording.points[:, :2]
                self.outside += bool(xy.min() < 0 or xy.max() > 1)
                yield recording

    def _drop(self, reason: str, line: int) -> None:
        self.dropped[reason] += 1
        self.first.setdefault(reason, line)

    def lines(self, out: Path, kind: str) -> list[str]:
        """Return what a reader is told."""
        found = [f"{out}: {self.swipes} swipes of {len(self.words)} words"]
        found.append(f"dropped: {self.dropped.total()}")
        found += [
            f"  {count:6}  {reason} (first: line {self.first[reason]})"
            for reason, count in self.dropped.most_common()
        ]
        if self.outside:
            found.append(f"note: {self.outside} swipes leave the keyboard; they are not clamped")
        if kind != "neuroswipe":
            found.append(f"note: {_STAGGERED}")
        return found


def import_swipes(
    kind: str, files: Sequence[Path], out: Path, *, grids: Path | None, most_points: int | None
) -> Tally:
    """Write a manifest of the swipes in recordings.

    Args:
        kind: One of ``KINDS``.
        files: Recordings.
        out: The manifest; written whole or not at all.
        grids: Keyboards that NeuroSwipe's lines only name.
        most_points: Longer swipes are dropped; none if None.

    Raises:
        ImportingError: A file cannot be read or is of another format, or none of them holds a
            swipe.
    """
    tally = Tally(most_points)
    write_manifest(out, _some(tally, files, tally.kept(_recordings(kind, files, grids))))
    return tally


def _some(tally: Tally, files: Sequence[Path], swipes: Iterable[Swipe]) -> Iterator[Swipe]:
    """Yield swipes; without any there is no manifest."""
    yield from swipes
    if not tally.swipes:
        why = "; ".join(f"{reason}: {n}" for reason, n in tally.dropped.most_common()) or "empty"
        msg = f"{', '.join(map(str, files))}: holds no swipe ({why}); no manifest is written"
        raise ImportingError(msg)


def _recordings(kind: str, files: Sequence[Path], grids: Path | None) -> Iterator[Recording]:
    known = read_grids(grids) if grids is not None else {}
    for path in files:
        if kind == "futo":
            yield from read_futo(path)
        elif kind == "how-we-swipe":
            yield from read_how_we_swipe(path)
        else:
            yield from read_neuroswipe(path, known)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate import",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {name:13} {what}" for name, what in KINDS.items()),
    )
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="recordings")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the manifest to write"
    )
    parser.add_argument(
        "--max-points", type=positive, metavar="N", help="drop swipes of more points"
    )
    parser.add_argument(
        "--grids", type=Path, metavar="FILE", help="keyboards of neuroswipe: gridname_to_grid.json"
    )
    args = parser.parse_args(argv)
    keep_inputs(args.out, *args.files, args.grids)
    tally = import_swipes(
        args.kind, args.files, args.out, grids=args.grids, most_points=args.max_points
    )
    print("\n".join(tally.lines(args.out, args.kind)))
    return Exit.PASSED
