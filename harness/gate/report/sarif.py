"""Broken gates as SARIF 2.1.0, which code scanning shows beside the limits that they broke."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from exportgate import resources
from harness.gate.gates import Status
from harness.metrics import METRICS

if TYPE_CHECKING:
    from pathlib import Path

    from harness.gate.gates import Verdict
    from harness.gate.report.outcome import Report

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_GATES = "suites/gates.toml"


def sarif(report: Report) -> str:
    """Return the text of ``report.sarif``: a result for each gate that was not kept.

    A result lies where its limit stands in ``suites/gates.toml``: code scanning shows only what has
    a place in the repository, and an exported file is none of it.
    """
    bad = [verdict for verdict in report.verdicts if verdict.status is not Status.PASS]
    metrics = list(dict.fromkeys(verdict.gate.metric for verdict in bad))
    lines = _section_lines()
    run = {
        "tool": {
            "driver": {
                "name": "exportgate",
                "version": report.gate.get("version", "unknown"),
                "rules": [
                    {
                        "id": metric,
                        "shortDescription": {"text": METRICS[metric].meaning},
                        "defaultConfiguration": {"level": "error"},
                    }
                    for metric in metrics
                ],
            }
        },
        "automationDetails": {"id": f"exportgate/{report.request['target']}/"},
        "invocations": [{"executionSuccessful": not report.errors, **_notices(report)}],
        "results": [_result(report, v, metrics.index(v.gate.metric), lines) for v in bad],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1) + "\n"


def _notices(report: Report) -> dict[str, Any]:
    found = [
        {"level": "error", "message": {"text": f"{test}: {said}"}}
        for test, said in report.errors.items()
    ]
    return {"toolExecutionNotifications": found} if found else {}


def _result(report: Report, verdict: Verdict, rule: int, lines: dict[str, int]) -> dict[str, Any]:
    gate = verdict.gate
    value = "not measured" if verdict.value is None else METRICS[gate.metric].format(verdict.value)
    again = report.reproduce.get(f"{gate.artifact} {gate.metric}", "")
    text = f"{gate.artifact}: {gate.metric} is {value}, but must be {gate.bound}. {verdict.detail}"
    text = text.rstrip() + (f" Again: {again}" if again else "")
    place = {
        "artifactLocation": {"uri": _GATES, "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": lines.get(gate.artifact, 1)},
    }
    return {
        "ruleId": gate.metric,
        "ruleIndex": rule,
        "level": "note" if verdict.waived else "error",
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": place,
                "logicalLocations": [{"name": gate.artifact, "kind": "module"}],
            }
        ],
        # The same gate of the same file is the same alert in the next run, whatever its value.
        "partialFingerprints": {"gate/v1": f"{gate.artifact}/{gate.key}/{verdict.device}"},
    }


def _section_lines() -> dict[str, int]:
    """Return the line of each file's section in the gates file, from 1."""
    path: Path = resources.folder("suites") / "gates.toml"
    found: dict[str, int] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("["):
            found.setdefault(line.strip("[] ").strip('"'), number)
    return found
