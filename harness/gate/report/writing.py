"""Write a report where people and machines find it, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exportgate.artifacts.sidecar import write_text
from harness.gate.report.page import html_of
from harness.history.trends import series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from harness.gate.report.outcome import Report
    from harness.history.trends import Point, SeriesKey

REPORT_FILES = ("report.json", "report.html")


def write_report(report: Report, folder: Path, history: Path | None = None) -> Path:
    """Write every form of a report into a folder, each atomically.

    Args:
        report: What to write.
        folder: Where to.
        history: Store that the run was appended to, of which the page draws the trend.

    Returns:
        The path of ``report.json``.
    """
    path = folder / "report.json"
    write_text(path, report.to_json())
    write_text(folder / "report.html", html_of(report, _trend(report, history)))
    return path


def _trend(report: Report, history: Path | None) -> Mapping[SeriesKey, Sequence[Point]]:
    """Return the lines of the history on what this run judged."""
    if history is None:
        return {}
    names = set(report.artifacts)
    return {key: points for key, points in series(history, []).items() if key.artifact in names}
