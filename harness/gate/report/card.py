"""The model card that goes with released files: measured results, and what was not measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.gate.gates import Status
from harness.gate.report.facts import hashes
from harness.gate.report.markdown import file_table, origin, plain, table_line
from harness.gate.report.outcome import Kind
from harness.gate.report.reasons import headline, problems
from harness.metrics import METRICS, Role

if TYPE_CHECKING:
    from harness.gate.report.outcome import Report

_ACCURACIES = ("reference_word_accuracy", "accuracy_over_chance")
_INTENDED = (
    "An encoder and a decoder step of a recurrent neural network transducer that turns swipes over "
    "a keyboard into words, exported for {target}. Not judged for any other keyboard layout, "
    "language or runtime than those below."
)


def model_card(report: Report) -> str:
    """Return ``model_card.md``: what the files are, how good they are, and what is not known.

    After Mitchell et al., Model Cards for Model Reporting (2019), with measured numbers only.
    """
    request = report.request
    name = Path(request["checkpoint"]).stem
    lines = [
        "---", "library_name: exportgate", "tags: [rnn-t, swipe-typing, on-device]", "---", "",
        f"# {plain(name)}", "", f"{plain(headline(report))} {origin(report)}", "",
        "## Intended use", "",
        _INTENDED.format(target=plain(request["target"])), "",
        "## Results", "", *_accuracy_lines(report), *file_table(report), "",
        *_length_table(report), *_limits_lines(report),
        "## What it was judged with", "", "| | | SHA-256 |", "|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {item['what']} | {plain(item['name'])} | `{item['digest']}` |"
        for item in hashes(report)
    ]
    environment = report.environment
    versions = ", ".join(f"{key} {value}" for key, value in environment["versions"].items())
    lines += ["", f"{plain(environment['cpu'])}, {environment['system']}; {versions}.", ""]
    return "\n".join(lines)


def _accuracy_lines(report: Report) -> list[str]:
    found = [
        f"- {METRICS[item.metric].meaning}: {METRICS[item.metric].format(item.value)}"
        + (f" ({plain(item.detail)[:160]})" if item.detail else "")
        for item in report.measured
        if item.artifact == "checkpoint" and item.metric in _ACCURACIES
    ]
    return [*found, ""] if found else []


def _length_table(report: Report) -> list[str]:
    rows = {name: report.rows(name, Kind.WORD_LENGTHS) for name in report.artifacts}
    rows = {name: found for name, found in rows.items() if found}
    if not rows:
        return []
    first = next(iter(rows.values()))
    heads = ["File", *(f"{row['group']} ({row['swipes']})" for row in first)]
    nemo = ["NeMo", *(f"{row['nemo_right'] / row['swipes']:.3f}" for row in first)]
    lines = ["Share of swipes decoded right, by word length:", "", table_line(heads)]
    lines += ["|---|" + "--:|" * len(first), table_line(nemo)]
    for name, found in rows.items():
        lines.append(table_line([name, *(f"{row['right'] / row['swipes']:.3f}" for row in found)]))
    return [*lines, ""]


def _limits_lines(report: Report) -> list[str]:
    """Say what is wrong and what nobody has measured: a card without it is an advertisement."""
    lines = ["## Limitations", ""]
    lines += [f"- {plain(problem.title)}" for problem in problems(report)]
    unmeasured = [v for v in report.verdicts if v.status is Status.NOT_MEASURED and v.waived]
    lines += [f"- not measured: {v.gate.artifact} {v.gate.metric}" for v in unmeasured]
    lines += [f"- {plain(note)}" for note in report.request.get("notes", [])]
    clocks = any(METRICS[item.metric].role is Role.INFORMATIONAL for item in report.measured)
    lines += ["- times are of one machine and one run"] if clocks else []
    lines += ["- words are those of the manifest below; other users may swipe otherwise", ""]
    return lines
