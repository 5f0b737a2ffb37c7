"""Write a report where people and machines find it: ``report.json`` and ``report.html``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exportgate.artifacts.sidecar import write_text
from harness.gate.html_report import html_of
from harness.gate.report import closing_line

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gate.report import Report

REPORT_FILES = ("report.json", "report.html")


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.json`` and ``report.html`` into a folder, atomically.

    Returns:
        The path of ``report.json``.
    """
    path = folder / "report.json"
    write_text(path, report.to_json())
    write_text(folder / "report.html", html_of(report, closing_line(report)))
    return path
