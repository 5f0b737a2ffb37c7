"""Draw a report as one HTML page without scripts or outside files: it opens anywhere, offline.

The first screen says the verdict in words and why; then come the files, the narrowest margins, all
gates by file, pictures, and every number. ``page.html`` is the page, ``page.css`` its style.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.gate.gates import Status
from harness.gate.page.charts import charts
from harness.gate.page.keyboard import changed_swipes, total_changed
from harness.gate.report.changes import change_lines
from harness.gate.report.facts import file_facts, hashes
from harness.gate.report.margins import narrowest_by_gate
from harness.gate.report.markdown import cut
from harness.gate.report.reasons import headline, problems
from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.gate.gates import Verdict
    from harness.gate.page.svg import Picture
    from harness.gate.report.margins import Margin
    from harness.gate.report.outcome import Measured, Report
    from harness.history.points import Point, SeriesKey

FIRST_PROBLEMS = 4
"""Problems that stand on the first screen; more can be unfolded."""
FIRST_CHANGES = 8
MARGINS = 10
_MARKS = {"PASS": "✓", "FAIL": "✗", "NOT_MEASURED": "?", "waived": "~", "": "·"}


def html_of(report: Report, trend: Mapping[SeriesKey, Sequence[Point]] | None = None) -> str:
    """Return a report as an HTML page.

    Args:
        report: What to draw.
        trend: Lines of the history that the run was appended to.
    """
    loader = PackageLoader("harness.gate.page", ".")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    source = loader.get_source(environment, "page.css")[0]
    pictures, changed = charts(report, trend or {}), changed_swipes(report)
    values = {
        "style": Markup(source),  # noqa: S704 - our own file
        "verdict": "PASS" if report.passed else "FAIL",
        "headline": headline(report),
        "problems": problems(report),
        "first": FIRST_PROBLEMS,
        "cut": cut,
        "joint": Markup("_<wbr>"),
        "target": report.request["target"],
        "device": report.request["device"],
        "checkpoint": Path(report.request["checkpoint"]).name,
        "facts": _facts(report),
        "hashes": hashes(report),
        "notes": report.request.get("notes", []),
        "files": [_file(name, report) for name in report.artifacts],
        "baseline": change_lines(report),
        "most_changes": FIRST_CHANGES,
        "margins": [_margin_row(item) for item in narrowest_by_gate(report.verdicts, MARGINS)],
        "matrix": _matrix(report),
        "informational": _informational(report),
        "pictures": _marked(pictures),
        "changed": _marked(changed),
        "changed_text": _changed_text(len(changed), total_changed(report)),
    }
    _name_first_rows(values["files"])
    values["sections"] = _sections(values)
    return environment.get_template("page.html").render(values)


def _name_first_rows(files: Sequence[dict[str, Any]]) -> None:
    """Give the first row of each gate an anchor, to which the matrix leads."""
    named: set[str] = set()
    for file in files:
        for row in file["rows"]:
            row["anchor"] = "" if row["metric"] in named else f"gate-{row['metric']}"
            named.add(row["metric"])


def _sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    wanted = {
        "problems": ("why", "Why"),
        "files": ("files", "Files"),
        "baseline": ("baseline", "Changes"),
        "margins": ("margins", "Margins"),
        "matrix": ("matrix", "Gates by file"),
        "informational": ("informational", "Information"),
        "pictures": ("pictures", "Pictures"),
        "changed": ("changed", "Changed words"),
        "hashes": ("provenance", "Hashes"),
    }
    return [section for name, section in wanted.items() if values[name]]


def _facts(report: Report) -> dict[str, str]:
    gate, environment = report.gate, report.environment
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    flags = ", ".join(environment["cpu_flags"])
    return {
        "when": gate.get("finished_utc", "at an unknown time")
        .replace("T", " ")
        .replace("+00:00", " UTC"),
        "gate": f"exportgate {gate.get('version', '?')} at {gate.get('commit', '?')[:12]}",
        "commit": gate.get("commit", "unknown"),
        "machine": f"{environment['cpu']} ({flags}), {environment['system']}",
        "versions": f"Python {environment['python']}, {versions}",
    }


def _file(name: str, report: Report) -> dict[str, Any]:
    verdicts = [verdict for verdict in report.verdicts if verdict.gate.artifact == name]
    gated = {verdict.gate.metric for verdict in verdicts}
    measured = [item for item in report.measured if item.artifact == name]
    bad = sum(not verdict.good for verdict in verdicts)
    return {
        **file_facts(name, report),
        "name": name,
        "anchor": "file-" + re.sub(r"[^A-Za-z0-9_-]", "-", name),
        "status": "FAIL" if bad else "PASS",
        "verdict": f"{bad} of {len(verdicts)} not kept" if bad else f"{len(verdicts)} kept",
        "rows": [_gated(verdict, report) for verdict in verdicts],
        "ungated": [_reported(item) for item in measured if item.metric not in gated],
    }


def _gated(verdict: Verdict, report: Report) -> dict[str, Any]:
    metric = METRICS[verdict.gate.metric]
    key = f"{verdict.gate.artifact} {verdict.gate.metric}"
    return {
        "metric": verdict.gate.metric,
        "value": "-" if verdict.value is None else metric.format(verdict.value),
        "bound": verdict.gate.bound,
        "status": str(verdict.status),
        "meaning": metric.meaning,
        "detail": cut(verdict.detail, 500),
        "again": "" if verdict.good else report.reproduce.get(key, ""),
        "waived": verdict.waived,
    }


def _reported(item: Measured) -> dict[str, str]:
    metric = METRICS[item.metric]
    return {
        "metric": item.metric,
        "value": metric.format(item.value),
        "meaning": metric.meaning,
        "detail": cut(item.detail, 300),
    }


def _margin_row(item: Margin) -> dict[str, Any]:
    gate, value = item.verdict.gate, item.verdict.value
    return {
        "file": gate.artifact,
        "metric": gate.metric,
        "meaning": METRICS[gate.metric].meaning,
        "value": "-" if value is None else METRICS[gate.metric].format(value),
        "bound": gate.bound,
        "percent": item.percent,
        "width": round(100 * min(1.0, max(0.0, item.used))),
    }


def _matrix(report: Report) -> dict[str, Any]:
    """Return a row for each gate and a box for each file."""
    names = report.artifacts
    by_place: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in report.verdicts:
        by_place.setdefault((verdict.gate.metric, verdict.gate.artifact), []).append(verdict)
    metrics = dict.fromkeys(verdict.gate.metric for verdict in report.verdicts)
    rows = [
        {
            "metric": metric,
            "meaning": METRICS[metric].meaning,
            "boxes": [_box(by_place.get((metric, name), [])) for name in names],
        }
        for metric in metrics
    ]
    rows.sort(key=_rank)
    return {"files": names, "rows": rows}


def _rank(row: dict[str, Any]) -> int:
    """Broken gates first: on a phone the matrix is two screens long; the checkpoint's own last."""
    statuses = [box["status"] for box in row["boxes"]]
    if {"FAIL", "NOT_MEASURED"} & set(statuses):
        return 0
    return 1 if any(statuses[1:]) else 2


def _box(verdicts: Sequence[Verdict]) -> dict[str, str]:
    if not verdicts:
        return {"status": "", "mark": _MARKS[""], "text": ""}
    worst = next((v for v in verdicts if not v.good), None)
    shown = worst or next((v for v in verdicts if v.status is not Status.PASS), verdicts[0])
    status = "waived" if shown.waived else str(shown.status)
    value = "-" if shown.value is None else METRICS[shown.gate.metric].format(shown.value)
    text = f"{shown.gate.artifact} {shown.gate.metric}: {value}, limit {shown.gate.bound}"
    return {"status": status, "mark": _MARKS[status], "text": text}


def _informational(report: Report) -> dict[str, Any] | None:
    """Return a row for each file and a cell for each informational metric."""
    found: dict[str, dict[str, str]] = {}
    for item in report.measured:
        if METRICS[item.metric].role is Role.INFORMATIONAL:
            found.setdefault(item.artifact, {})[item.metric] = _readable(item)
    names = list(dict.fromkeys(name for cells in found.values() for name in cells))
    rows = [
        {"file": file, "cells": [(name, found[file].get(name, "")) for name in names]}
        for file in report.artifacts
        if file in found
    ]
    return {"names": names, "rows": rows} if rows else None


def _readable(item: Measured) -> str:
    if METRICS[item.metric].unit == "bytes":
        return f"{item.value / 1e6:.2f} MB"
    return METRICS[item.metric].format(item.value)


def _changed_text(drawn: int, found: int) -> str:
    if drawn == found:
        return "All that the files read otherwise than NeMo, lost words first."
    return f"{drawn} of {found} that were kept for drawing, lost words first."


def _marked(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    return [
        {"svg": Markup(p.svg), "title": p.title, "caption": p.caption}  # noqa: S704 - drawn here
        for p in pictures
    ]
