"""The report in Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.gate.report.changes import change_lines
from harness.gate.report.facts import file_facts
from harness.gate.report.margins import narrowest_by_gate
from harness.gate.report.reasons import headline, problems
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.gate.report.outcome import Report
    from harness.gate.report.reasons import Problem

MOST_LINES = 60
"""A comment that is longer is not read."""
# A zero-width space parts what would be a link, a picture or somebody's name.
_HARMLESS = (
    ("\n", " "), ("\r", " "), ("|", "\\|"), ("<", "&lt;"), ("`", "'"),
    ("@", "@\u200b"), ("](", "]\u200b("),
)  # fmt: skip
_PROBLEMS, _FILES, _CHANGES, _MARGINS = 3, 13, 4, 4
_TABLE_HEAD = 5


def summary(report: Report) -> str:
    """Return ``report.md``: verdict, reasons, files, changes and margins in at most 60 lines."""
    mark = "✅" if report.passed else "❌"
    lines = [f"## {mark} {plain(headline(report))}", "", origin(report), ""]
    found = problems(report)
    for problem in found[:_PROBLEMS]:
        lines += _problem_lines(problem)
    lines += _rest(len(found), _PROBLEMS, "problems")
    lines += file_table(report)
    changes = change_lines(report)
    if report.baseline:
        lines += ["", "**Changed since the released files**", ""]
        lines += [f"- {plain(line)}" for line in changes[:_CHANGES]] or ["- nothing by 1 % or more"]
        lines += _rest(len(changes), _CHANGES, "changes")
    lines += _margin_table(report, MOST_LINES - len(lines) - _TABLE_HEAD)
    return "\n".join(lines) + "\n"


def origin(report: Report) -> str:
    """Say what was judged, where, when and by which gate."""
    gate, request = report.gate, report.request
    return (
        f"`{plain(Path(request['checkpoint']).name)}` (SHA-256 "
        f"`{request['checkpoint_sha256'][:12]}…`) on {plain(request['device'])}, judged "
        f"{gate.get('finished_utc', 'at an unknown time')} by exportgate "
        f"{gate.get('version', '?')} (`{gate.get('commit', '?')[:12]}`)."
    )


def _problem_lines(problem: Problem) -> list[str]:
    first, *more = problem.reasons
    lines = [f"**{plain(problem.title)}**", ""]
    also = f" The same in {', '.join(plain(reason.artifact) for reason in more)}." if more else ""
    cause = f" Cause: {plain(cut(first.cause, 300))}." if first.cause else ""
    lines += [f"{plain(first.artifact)}: {plain(first.found)}.{cause}{also}", ""]
    if first.command:
        lines += ["```sh", first.command.replace("\n", " "), "```", ""]
    return lines


def _rest(found: int, shown: int, what: str) -> list[str]:
    return [f"… and {found - shown} more {what} in report.html", ""] if found > shown else []


def file_table(report: Report) -> list[str]:
    """Return a row for each file."""
    names = [name for name in report.artifacts if name != "checkpoint"]
    lines = [
        "| File | MB | Words kept | Speed | Narrowest margin | Verdict |",
        "|---|--:|--:|--:|---|---|",
    ]
    for name in names[:_FILES]:
        facts = file_facts(name, report)
        bad = sum(not v.good for v in report.verdicts if v.gate.artifact == name)
        verdict = f"❌ {bad} not kept" if bad else "✅"
        cells = (name, *(facts[key] for key in ("megabytes", "words", "speed", "margin")), verdict)
        lines.append(table_line(cells))
    return [*lines, *_rest(len(names), _FILES, "files")]


def _margin_table(report: Report, room: int) -> list[str]:
    """Return the narrowest margins: as many rows as there is room for."""
    found = narrowest_by_gate(report.verdicts, max(0, min(_MARGINS, room)))
    if not found:
        return []
    lines = [
        "",
        "**Narrowest margins**",
        "",
        "| File | Gate | Value | Limit | Used |",
        "|---|---|--:|--:|--:|",
    ]
    for item in found:
        gate, value = item.verdict.gate, item.verdict.value or 0.0
        cells = (
            gate.artifact,
            gate.metric,
            METRICS[gate.metric].format(value),
            gate.bound,
            item.percent,
        )
        lines.append(table_line(cells))
    return lines


def table_line(cells: Sequence[str]) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(plain(cell) for cell in cells) + " |"


def cut(text: str, most: int) -> str:
    """Return a text of at most so many characters, which says where it goes on."""
    return text if len(text) <= most else f"{text[:most].rstrip()} …"


def plain(text: str) -> str:
    """Return text that cannot end a table's cell, open a tag or call somebody.

    File names and what a foreign file says of itself reach a pull request's comment with this.
    """
    for raw, safe in _HARMLESS:
        text = text.replace(raw, safe)
    return text
