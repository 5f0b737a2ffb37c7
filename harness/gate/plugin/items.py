"""A measuring test: for which artifacts it runs, what it records, and the verdicts on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from exportgate.artifacts.sidecar import Sidecar
from exportgate.errors import ExportGateError
from harness.gate.gates import GateBook, GateError, Status, Verdict, judge
from harness.gate.plugin.book import CHECKPOINT
from harness.gate.report.outcome import Evidence, Kind, Measured
from harness.metrics import METRICS, Role
from harness.run.context import RunContext

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from exporters.variants import Variant
    from harness.gate.gates import Gate

VERDICTS, MEASURED, FILE = "exportgate.verdicts", "exportgate.measured", "exportgate.file"
EVIDENCE = "exportgate.evidence"
"""Names of the properties of a test's report, which reach the main process under xdist too."""

_RECORDED: pytest.StashKey[list[Measured]] = pytest.StashKey()
_SHOWN: pytest.StashKey[list[Evidence]] = pytest.StashKey()
_JUDGED: pytest.StashKey[list[Verdict]] = pytest.StashKey()


class GateFailure(AssertionError):  # noqa: N818 - pytest prints the name; it is no error of ours
    """Gates of this test are broken or were not measured."""


def measures(item: pytest.Item) -> tuple[str, ...] | None:
    """Return the metrics that a test declares; None if it is no measuring test."""
    marker = item.get_closest_marker("measures")
    return None if marker is None else marker.args


def artifact_of(item: pytest.Item) -> Any:  # noqa: ANN401 - a string, or pytest's placeholder
    """Return what a measuring test judges: a variant's file name, or ``checkpoint``."""
    return item.callspec.params["artifact"]  # type: ignore[attr-defined]  # set by parametrize


def parameters(
    metrics: Sequence[str],
    variants: Sequence[Variant],
    gates: Sequence[Gate],
    waived: Container[tuple[str, str]],
) -> list[Any]:
    """Return a pytest parameter for each artifact with a gate on one of the metrics.

    What needs no gate, since it is counted or only informational, is measured of every file.
    """
    rows = {row.name: row for row in variants}
    demanded = [g for g in gates if g.metric in metrics and (g.artifact, g.key) not in waived]
    artifacts = [gate.artifact for gate in demanded]
    if all(METRICS[metric].role in (Role.COUNTED, Role.INFORMATIONAL) for metric in metrics):
        artifacts = list(rows)
    found = []
    for artifact in dict.fromkeys(artifacts):
        row = rows.get(artifact)
        names = (row.graph, row.format, row.precision, row.exporter) if row else (CHECKPOINT,)
        marks = [getattr(pytest.mark, name) for name in names]
        found.append(pytest.param(artifact, marks=marks, id=artifact))
    return found


def recorder(item: pytest.Item) -> Callable[..., None]:
    """Return the function that keeps a test's measured values.

    It raises:
        GateError: The test did not declare the metric.
    """
    declared, artifact = measures(item) or (), artifact_of(item)

    def keep(metric: str, value: float, detail: str = "", samples: Sequence[float] = ()) -> None:
        if metric not in declared:
            msg = f"{item.nodeid} records {metric}, but declares {', '.join(declared)}"
            raise GateError(msg)
        found = Measured(artifact, metric, float(value), detail, tuple(map(float, samples)))
        item.stash.setdefault(_RECORDED, []).append(found)

    return keep


def shower(item: pytest.Item) -> Callable[[str, Sequence[dict[str, Any]]], None]:
    """Return the function that keeps what a page draws of the artifact that a test judges."""

    def keep(kind: str, rows: Sequence[dict[str, Any]]) -> None:
        found = Evidence(artifact_of(item), Kind(kind), tuple(rows))
        item.stash.setdefault(_SHOWN, []).append(found)

    return keep


def judge_item(item: pytest.Item, book: GateBook, reason: str) -> list[Verdict]:
    """Judge every gate that a test is answerable for; what it did not record is NOT_MEASURED."""
    declared = measures(item)
    if declared is None:
        return []
    values = {value.metric: value for value in item.stash.get(_RECORDED, [])}
    verdicts = []
    for gate in book.of(artifact_of(item)):
        if gate.metric in declared:
            found = values.get(gate.metric)
            value = found.value if found else None
            detail = found.detail if found else reason or f"{item.name} recorded no {gate.metric}"
            verdicts.append(judge(gate, value, detail, book.device))
    item.stash[_JUDGED] = verdicts
    return verdicts


def complaints(item: pytest.Item, verdicts: Sequence[Verdict]) -> list[str]:
    """Say what is wrong with a test that returned: broken gates, metrics that it did not record."""
    wrong = [_explain(verdict) for verdict in verdicts if verdict.status is not Status.PASS]
    recorded = {value.metric for value in item.stash.get(_RECORDED, [])}
    return wrong + [
        f"{item.name} recorded no {metric}"
        for metric in measures(item) or ()
        if METRICS[metric].role is Role.INFORMATIONAL and metric not in recorded
    ]


def _explain(verdict: Verdict) -> str:
    gate, metric = verdict.gate, METRICS[verdict.gate.metric]
    value = "not measured" if verdict.value is None else metric.format(verdict.value)
    return (
        f"{gate.artifact}: {gate.metric} is {value}, but should be {gate.bound} "
        f"({metric.meaning}). {verdict.detail}"
    ).rstrip()


def attach(
    report: pytest.TestReport, item: pytest.Item, call: pytest.CallInfo[None], book: GateBook
) -> None:
    """Put verdicts, values and the judged file's hash into a test's report.

    Gates of a test that raised are NOT_MEASURED, with what it said.
    """
    if call.excinfo is not None:
        error = call.excinfo.value
        known = isinstance(error, ExportGateError)
        # The message says all; a traceback through the harness would bury it.
        if known or isinstance(error, GateFailure):
            report.longrepr = str(error)
        if not isinstance(error, GateFailure):
            judge_item(item, book, str(error) if known else f"{type(error).__name__}: {error}")
    if call.when == "call" or call.excinfo is not None:
        verdicts = [verdict.to_json() for verdict in item.stash.get(_JUDGED, [])]
        measured = [value.to_json() for value in item.stash.get(_RECORDED, [])]
        report.user_properties += [
            (VERDICTS, json.dumps(verdicts)),
            (MEASURED, json.dumps(measured)),
            (EVIDENCE, json.dumps([shown.to_json() for shown in item.stash.get(_SHOWN, [])])),
            (FILE, json.dumps(_judged_file(item))),
        ]


def _judged_file(item: pytest.Item) -> dict[str, str]:
    """Return the hash of the file that a test judged, by its name; empty if it opened none."""
    artifact = artifact_of(item)
    found = getattr(item, "funcargs", {}).get("context")
    kept = found.files.memo if isinstance(found, RunContext) else {}
    sidecar = kept.get(("sidecar", artifact))
    return {artifact: sidecar.sha256} if isinstance(sidecar, Sidecar) else {}
