"""Tell people on the terminal what was judged."""

from __future__ import annotations

from collections import Counter
from textwrap import shorten
from typing import TYPE_CHECKING

from harness.gate.gates import Status
from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gate.report.outcome import Report


def summary_lines(report: Report) -> list[str]:
    """Return the terminal summary: a line for each gate, the reason under each that failed."""
    rows = [
        (
            verdict.gate.artifact,
            verdict.gate.metric,
            "-" if verdict.value is None else METRICS[verdict.gate.metric].format(verdict.value),
            verdict.gate.bound,
            str(verdict.status),
        )
        for verdict in report.verdicts
    ]
    heading = ("file", "metric", "value", "limit", "verdict")
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(5)]
    lines = [_row(heading, widths)]
    artifact, reason, command = "", "", ""
    for row, verdict in zip(rows, report.verdicts, strict=True):
        # A blank line between files; the name only once, so that the eye finds the groups.
        if row[0] != artifact and artifact:
            lines += [*_informational_lines(report, artifact), ""]
        lines.append(_row((row[0] if row[0] != artifact else "", *row[1:]), widths))
        artifact = row[0]
        if verdict.status is Status.PASS:
            continue
        # One cause often breaks many gates: say it once.
        if verdict.detail and verdict.detail != reason:
            reason = verdict.detail
            lines.append(f"      why: {shorten(reason, 300, placeholder=' …')}")
        again = report.reproduce.get(f"{verdict.gate.artifact} {verdict.gate.metric}", command)
        if again != command:
            command = again
            lines.append(f"      again: {command}")
    lines += _informational_lines(report, artifact)
    lines += [f"error: {test}: {said}" for test, said in report.errors.items()]
    return [*lines, "", closing_line(report)]


def _informational_lines(report: Report, artifact: str) -> list[str]:
    found = [
        f"{item.metric} {METRICS[item.metric].format(item.value)}"
        for item in report.measured
        if item.artifact == artifact and METRICS[item.metric].role is Role.INFORMATIONAL
    ]
    return [f"      informational: {', '.join(found)}"] if found else []


def closing_line(report: Report) -> str:
    """Return the verdict in one line."""
    verdicts = report.verdicts
    count = Counter(verdict.status for verdict in verdicts)
    if not verdicts:
        return "FAIL: nothing was judged"
    if report.passed:
        waived = sum(verdict.waived for verdict in verdicts)
        rest = f", {waived} not measured, which --release demands" if waived else ""
        return f"PASS: {count[Status.PASS]} of {len(verdicts)} gates kept{rest}"
    return (
        f"FAIL: {count[Status.FAIL]} of {len(verdicts)} gates broken, "
        f"{count[Status.NOT_MEASURED]} not measured, {count[Status.PASS]} kept"
        + (f", tests in error: {len(report.errors)}" if report.errors else "")
    )


def _row(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    aligned = [
        cell.rjust(width) if index == 2 else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()
