"""Write a report where people and machines find it, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from exportgate.artifacts.sidecar import write_text
from harness.gate.page.render import html_of
from harness.gate.report.card import model_card
from harness.gate.report.markdown import summary
from harness.gate.report.sarif import sarif
from harness.history.trends import series

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.gate.report.outcome import Report
    from harness.history.points import Point, SeriesKey

REPORT_FILES = ("report.json", "report.html", "report.md", "report.sarif", "model_card.md")
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
"""Names the file that a workflow's page shows, where there is one."""


def write_report(report: Report, folder: Path, history: Path | None = None) -> Path:
    """Write every form of a report into a folder, each atomically.

    ``report.md`` is also appended to the summary of a GitHub workflow's step.

    Args:
        report: What to write.
        folder: Where to.
        history: Store that the run was appended to, of which the page draws the trend.

    Returns:
        The path of ``report.json``.

    Raises:
        OSError: A file cannot be written.
        HistoryError: The history cannot be read.
    """
    path = folder / "report.json"
    write_text(path, report.to_json())
    short = summary(report)
    write_text(folder / "report.md", short)
    write_text(folder / "report.sarif", sarif(report))
    write_text(folder / "model_card.md", model_card(report))
    if shown := os.environ.get(STEP_SUMMARY):
        with Path(shown).open("a", encoding="utf-8") as file:
            file.write(short)
    write_text(folder / "report.html", html_of(report, _trend(report, history)))
    return path


def _trend(report: Report, history: Path | None) -> Mapping[SeriesKey, Sequence[Point]]:
    """Return the lines of the history on what this run judged."""
    if history is None:
        return {}
    names = set(report.artifacts)
    return {key: points for key, points in series(history, []).items() if key.artifact in names}
