"""Swipes whose word changed, drawn over the keyboard with both words and where they part."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from exportgate.data.features import KEY_CENTRES
from harness.gate.page.svg import BAD, DIM, GRID, SERIES, Picture, drawn
from harness.gate.report.outcome import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harness.gate.report.outcome import Report

MOST = 24
"""Swipes that a page has room for, over all files."""
_SIZE_IN = (3.3, 1.45)
_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))
_GAP = (float("nan"), float("nan"))


def changed_swipes(report: Report) -> list[Picture]:
    """Return a picture of each changed swipe; one that several files read alike is drawn once."""
    found: dict[tuple[int, str], tuple[dict[str, Any], list[str]]] = {}
    for name in report.artifacts:
        for row in report.rows(name, Kind.CHANGED_WORDS):
            found.setdefault((row["line"], row["ours"]), (row, []))[1].append(name)
    # Words that were lost come first, then those that more files get wrong.
    ranked = sorted(
        found.values(), key=lambda item: (item[0]["nemo"] != item[0]["word"], -len(item[1]))
    )
    return [_picture(place, row, names) for place, (row, names) in enumerate(ranked[:MOST])]


def total_changed(report: Report) -> int:
    """Return how many different swipes were drawn from."""
    rows = [row for name in report.artifacts for row in report.rows(name, Kind.CHANGED_WORDS)]
    return len({(row["line"], row["ours"]) for row in rows})


def _picture(place: int, row: Mapping[str, Any], names: list[str]) -> Picture:
    title = (
        f"{row['word']}: NeMo reads {_quoted(row['nemo'])}, {_files(names)} {_quoted(row['ours'])}"
    )
    caption = f"Line {row['line']} of the manifest; they part at frame {row['frame']} (ring)."
    svg = drawn(f"swipe-{place}", title, partial(_paint, row), _SIZE_IN)
    return Picture(title, caption, svg, small=True)


def _quoted(word: str) -> str:
    return f"“{word}”" if word else "nothing"


def _files(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} files"


def _paint(row: Mapping[str, Any], axes: Any) -> None:  # noqa: ANN401 - matplotlib's axes
    for key, (x, y) in KEY_CENTRES.items():
        axes.text(x, y, key, ha="center", va="center", color=DIM, fontsize=9)
    # One line with gaps: the keys' frames are most of the bytes of such a picture.
    frames = [
        point
        for x, y in KEY_CENTRES.values()
        for point in [*((x + 0.045 * dx, y + 0.14 * dy) for dx, dy in _CORNERS), _GAP]
    ]
    axes.plot(*zip(*frames, strict=True), color=GRID, linewidth=0.6)
    xs, ys = row["x"], row["y"]
    axes.plot(xs, ys, color=SERIES[0], linewidth=2, alpha=0.85)
    axes.plot(xs[:1], ys[:1], "o", color=SERIES[0], markersize=6)
    part = min(len(xs) - 1, int(row["fraction"] * len(xs)))
    axes.plot(
        xs[part : part + 1], ys[part : part + 1], "o", markersize=13, markerfacecolor="none",
        markeredgecolor=BAD, markeredgewidth=2.2,
    )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(1.03, -0.03)
    axes.set_axis_off()
