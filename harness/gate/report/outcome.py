"""The outcome of a run as data: verdicts, what they were judged by, and what a page draws."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.gate.gates import Status, Verdict, json_number
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

REPORT_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """A value that was measured, gated or not, with what it was computed from."""

    artifact: str
    metric: str
    value: float
    detail: str = ""
    samples: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "subject": self.artifact,
            "metric": self.metric,
            "unit": METRICS[self.metric].unit,
            "value": json_number(self.value),
            "detail": self.detail,
            "samples": [json_number(sample) for sample in self.samples],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        """Read what ``to_json`` wrote."""
        samples = tuple(float(sample) for sample in data["samples"])
        return cls(data["subject"], data["metric"], float(data["value"]), data["detail"], samples)


class Kind(StrEnum):
    """What a picture of a file is drawn from; the columns of its rows.

    Attributes:
        WEIGHT_BYTES: ``type``, ``bytes``: weights by the type that they are stored in.
        LAYERS: ``layer``, ``sqnr_db``: in the graph's order.
        WORD_LENGTHS: ``group``, ``swipes``, ``right``, ``nemo_right``: swipes decoded right.
        CHANGED_WORDS: ``line``, ``word``, ``ours``, ``nemo``, ``frame`` (the first encoder frame
            where the tokens differ), ``fraction`` (that frame's place in the trace, 0 to 1),
            ``x``, ``y`` (the trace in keyboard units).
    """

    WEIGHT_BYTES = "weight_bytes"
    LAYERS = "layers"
    WORD_LENGTHS = "word_lengths"
    CHANGED_WORDS = "changed_words"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows that a picture of a file is drawn from; nothing is judged by them."""

    artifact: str
    kind: Kind
    rows: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        rows = [{key: _plain(value) for key, value in row.items()} for row in self.rows]
        return {"subject": self.artifact, "kind": str(self.kind), "rows": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evidence:
        """Read what ``to_json`` wrote."""
        return cls(data["subject"], Kind(data["kind"]), tuple(data["rows"]))


def _plain(value: object) -> object:
    return json_number(value) if isinstance(value, float) else value


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run.

    Attributes:
        request: What was asked for, as plain data.
        environment: Where it ran.
        verdicts: Every gate that was asked for, judged.
        measured: Every value, gated or not.
        reproduce: For a failing gate, the command that runs it alone, by ``artifact`` and metric.
        errors: What a test said that failed though no gate of its was broken, by the test's name.
        evidence: What pictures are drawn from.
        gate: Of the gate itself: ``version``, ``commit`` and ``finished_utc``.
        baseline: What was measured of the released files when they were accepted, by file and
            metric; empty without ``--baseline``.
    """

    request: dict[str, Any]
    environment: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    measured: tuple[Measured, ...]
    reproduce: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    gate: dict[str, str] = field(default_factory=dict)
    baseline: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether something was judged, and everything that was demanded kept its limit."""
        kept = any(verdict.status is Status.PASS for verdict in self.verdicts)
        return kept and all(verdict.good for verdict in self.verdicts) and not self.errors

    def to_json(self) -> str:
        """Return the text of ``report.json``."""
        data = {
            "schema": REPORT_SCHEMA,
            "verdict": "PASS" if self.passed else "FAIL",
            "request": self.request,
            "environment": self.environment,
            "gates": [verdict.to_json() for verdict in self.verdicts],
            "measurements": [item.to_json() for item in self.measured],
            "reproduce": self.reproduce,
            "errors": self.errors,
            "evidence": [item.to_json() for item in self.evidence],
            "gate": self.gate,
            "baseline": {name: dict(values) for name, values in self.baseline.items()},
        }
        return json.dumps(data, indent=1, allow_nan=False, default=str) + "\n"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Read what ``to_json`` wrote; a report of before evidence was kept has none."""
        return cls(
            request=dict(data["request"]),
            environment=dict(data["environment"]),
            verdicts=tuple(Verdict.from_json(item) for item in data["gates"]),
            measured=tuple(Measured.from_json(item) for item in data["measurements"]),
            reproduce=dict(data["reproduce"]),
            errors=dict(data["errors"]),
            evidence=tuple(Evidence.from_json(item) for item in data.get("evidence", [])),
            gate=dict(data.get("gate", {})),
            baseline=dict(data.get("baseline", {})),
        )

    def of(self, artifact: str, metric: str) -> Measured | None:
        """Return what was measured of a file, if it was."""
        found = (m for m in self.measured if (m.artifact, m.metric) == (artifact, metric))
        return next(found, None)

    def rows(self, artifact: str, kind: Kind) -> tuple[dict[str, Any], ...]:
        """Return the evidence of a kind on a file; empty if there is none."""
        found = (e.rows for e in self.evidence if (e.artifact, e.kind) == (artifact, kind))
        return next(found, ())

    @property
    def artifacts(self) -> list[str]:
        """What was judged, in order: the checkpoint, then its files."""
        return list(dict.fromkeys(verdict.gate.artifact for verdict in self.verdicts))
