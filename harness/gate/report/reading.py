"""Read a ``report.json`` that may have been changed, damaged or written by something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import msgspec

from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, read_json, reason, shaped
from harness.gate.report.outcome import REPORT_SCHEMA, Kind, Report

if TYPE_CHECKING:
    from pathlib import Path

_Number = float | str  # ``json_number`` writes what JSON has no number for as a text
_Count = Annotated[int, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
# A picture is drawn of these; a swipe of the manifest leaves the keyboard by half of its width.
_Places = Annotated[list[Annotated[float, msgspec.Meta(ge=-10, le=10)]], msgspec.Meta(min_length=1)]


class ReportError(ExportGateError, ValueError):
    """A file is no report of the gate."""


class _Request(TypedDict):
    target: str
    device: str
    checkpoint: str
    checkpoint_sha256: str
    files: dict[str, str]
    calibration: NotRequired[str | None]
    calibration_sha256: NotRequired[str | None]
    file_bytes: NotRequired[dict[str, _Count | None]]
    gates_sha256: NotRequired[dict[str, str]]
    manifest: NotRequired[str | None]
    manifest_sha256: NotRequired[str | None]
    notes: NotRequired[list[str]]


class _Gate(TypedDict):
    subject: str
    metric: str
    direction: Literal["min", "max"]
    limit: float
    reason: str
    devices: list[str]
    device: str
    value: _Number | None
    status: str
    detail: str
    waived: bool


class _Measurement(TypedDict):
    subject: str
    metric: str
    value: _Number
    detail: str
    samples: list[_Number]


class _Evidence(TypedDict):
    subject: str
    kind: str
    rows: list[dict[str, Any]]


class _Report(TypedDict):
    verdict: str
    request: _Request
    environment: dict[str, Any]
    gates: list[_Gate]
    measurements: list[_Measurement]
    reproduce: dict[str, str]
    errors: dict[str, str]
    evidence: NotRequired[list[_Evidence]]
    gate: NotRequired[dict[str, str]]
    baseline: NotRequired[dict[str, dict[str, _Number]]]


class _WeightBytes(TypedDict):
    type: str
    bytes: _Count


class _Layer(TypedDict):
    layer: str
    sqnr_db: _Number | None


class _WordLength(TypedDict):
    group: str
    swipes: Annotated[int, msgspec.Meta(ge=1)]
    right: _Count
    nemo_right: _Count


class _ChangedWord(TypedDict):
    line: int
    word: str
    ours: str
    nemo: str
    frame: _Count
    fraction: _Share
    x: _Places
    y: _Places


_ROWS: dict[Kind, Any] = {
    Kind.WEIGHT_BYTES: list[_WeightBytes],
    Kind.LAYERS: list[_Layer],
    Kind.WORD_LENGTHS: list[_WordLength],
    Kind.CHANGED_WORDS: list[_ChangedWord],
}


def read_report(path: Path) -> dict[str, Any]:
    """Return a report as plain data that ``Report.from_json`` takes.

    Raises:
        ReportError: Missing, not JSON, of another schema, or a part of it has another shape.
    """
    try:
        data: dict[str, Any] = read_json(path)
        if data["schema"] != REPORT_SCHEMA:
            msg = f"schema is {data['schema']!r:.40}, but should be {REPORT_SCHEMA}"
            raise ValueError(msg)
        shaped(data, _Report, only=False)
        for item in data.get("evidence", []):
            kind = Kind(item["kind"])
            rows = shaped(item["rows"], _ROWS[kind], only=False)
            if kind is Kind.CHANGED_WORDS:
                _check_places(rows)
        Report.from_json(data)
    except (OSError, *MALFORMED) as error:
        msg = f"{path}: no readable report of the gate ({reason(error)}); run the gate again"
        raise ReportError(msg) from error
    return data


def _check_places(rows: list[_ChangedWord]) -> None:
    for row in rows:
        if len(row["x"]) != len(row["y"]):
            msg = f"a swipe of {row['word']!r:.40} has {len(row['x'])} x, but {len(row['y'])} y"
            raise ValueError(msg)
