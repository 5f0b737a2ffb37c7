"""What is signed: an in-toto statement that binds a verdict to the bytes that it is about.

The predicate is in-toto's own test result (``test-result/v0.1``), so that other tools read it, with
one field more, ``exportgate``: the gate's version and commit, target, device, and every limit with
what was measured. Subjects are every file of the bundle by its plain name, and by a name with a
folder what is not in it: ``checkpoint/…``, ``manifest/…``, ``calibration/…``, ``gates/1/…``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from google.protobuf import json_format
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement

from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, reason, shaped
from harness.gate.gates import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from harness.gate.gates import Verdict
    from harness.gate.report.outcome import Report

PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
PASSED = "PASSED"
_SYNTHETIC = "synthetic"
_DIGEST_LENGTH = 64


class StatementError(ExportGateError, ValueError):
    """A report does not say enough to be signed, or a signed statement is not of this kind."""


class _Gate(TypedDict):
    version: str
    commit: str
    finished_utc: str
    target: str
    device: str
    limits: list[dict[str, Any]]


class _Predicate(TypedDict):
    result: str
    failedTests: NotRequired[list[str]]
    exportgate: _Gate


@dataclass(frozen=True, slots=True)
class Claim:
    """What a statement says.

    Attributes:
        subjects: SHA-256 of each thing that the verdict is about, by name.
        result: ``PASSED``, or anything else.
        gate: Of the gate: ``version``, ``commit``, ``finished_utc``, ``target``, ``device``.
        limits: Each gate with its limit and what was measured.
    """

    subjects: Mapping[str, str]
    result: str
    gate: Mapping[str, Any]
    limits: tuple[Mapping[str, Any], ...]

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each file of the bundle."""
        return {name: digest for name, digest in self.subjects.items() if "/" not in name}

    @property
    def inputs(self) -> dict[str, str]:
        """SHA-256 of what the files were made from and judged with."""
        return {name: digest for name, digest in self.subjects.items() if "/" in name}


def statement_of(report: Report, files: Mapping[str, str]) -> bytes:
    """Return the statement on a bundle, as JSON.

    Args:
        report: Its gate's.
        files: SHA-256 of every file in it, by name.

    Raises:
        StatementError: The report does not name what it judged, as those of before 0.1 do not.
    """
    try:
        subjects = {**files, **_inputs(report)}
        if bad := sorted(name for name, digest in subjects.items() if not _is_digest(digest)):
            msg = f"the hash of {bad[0]} is {subjects[bad[0]]!r:.40}"
            raise ValueError(msg)
        statement = Statement(
            [ResourceDescriptor(name, digest={"sha256": d}).pb for name, d in subjects.items()],
            PREDICATE,
            _predicate(report),
        )
        statement.validate()
    except MALFORMED as error:
        said = f"{reason(error):.200}"
        msg = f"the report does not name all that it judged ({said}); run the gate again"
        raise StatementError(msg) from error
    data = json_format.MessageToDict(statement.pb)
    return json.dumps(data, indent=1, sort_keys=True).encode()


def claim_of(where: Path, payload: bytes) -> Claim:
    """Return what a signed payload says.

    Raises:
        StatementError: It is no statement of a gate's verdict.
    """
    try:
        message = json_format.Parse(
            payload, Statement([], "", {}).pb.__class__(), ignore_unknown_fields=True
        )
        statement = Statement.copy_from_pb(message)
        statement.validate()
        if statement.pb.predicate_type != PREDICATE:
            msg = f"the predicate is {statement.pb.predicate_type!r:.80}, not {PREDICATE}"
            raise ValueError(msg)
        subjects = _subjects(statement.pb.subject)
        predicate = shaped(
            json_format.MessageToDict(statement.pb.predicate), _Predicate, only=False
        )
        _check_consistent(predicate)
        gate = predicate["exportgate"]
        return Claim(subjects, predicate["result"], dict(gate), tuple(gate["limits"]))
    except (*MALFORMED, RecursionError, json_format.ParseError) as error:
        msg = f"{where}: the signed statement is no verdict of a gate ({reason(error):.200})"
        raise StatementError(msg) from error


def _subjects(stated: Iterable[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in stated:
        if item.name in found:
            msg = f"{item.name!r:.80} is there twice"
            raise ValueError(msg)
        if not _is_digest(item.digest["sha256"]):
            msg = f"{item.name!r:.80} has no SHA-256"
            raise ValueError(msg)
        found[item.name] = item.digest["sha256"]
    return found


def _check_consistent(predicate: _Predicate) -> None:
    """Refuse a verdict that its own list of tests contradicts, whoever signed it."""
    if predicate["result"] != PASSED:
        return
    limits = predicate["exportgate"]["limits"]
    failed = [str(limit.get("metric")) for limit in limits if limit.get("status") == Status.FAIL]
    if failed := [*predicate.get("failedTests", []), *failed]:
        msg = f"it is {PASSED}, but names as failed: {', '.join(failed):.120}"
        raise ValueError(msg)
    if not limits:
        msg = f"it is {PASSED}, but names no limit"
        raise ValueError(msg)


def _inputs(report: Report) -> dict[str, str]:
    request = report.request
    found = {
        f"{what}/{PurePath(str(request[what])).name}": request[f"{what}_sha256"]
        for what in ("checkpoint", "manifest", "calibration")
        if request[f"{what}_sha256"] != _SYNTHETIC
    }
    gates = request["gates_sha256"]
    for place, (name, digest) in enumerate(gates.items(), 1):
        found[f"gates/{place}/{Path(name).name}"] = digest
    return found


def _predicate(report: Report) -> dict[str, Any]:
    kept = [verdict for verdict in report.verdicts if verdict.status is Status.PASS]
    others = [verdict for verdict in report.verdicts if verdict.status is not Status.PASS]
    configuration = [
        {"name": name, "digest": {"sha256": digest}} for name, digest in _inputs(report).items()
    ]
    request = report.request
    return {
        "result": PASSED if report.passed else "FAILED",
        "configuration": configuration,
        "passedTests": [_name(verdict) for verdict in kept],
        "warnedTests": [_name(verdict) for verdict in others if verdict.good],
        "failedTests": [_name(verdict) for verdict in others if not verdict.good],
        "exportgate": {
            "version": report.gate["version"],
            "commit": report.gate["commit"],
            "finished_utc": report.gate["finished_utc"],
            "target": request["target"],
            "device": request["device"],
            "calibrated_with": "synthetic swipes"
            if request["calibration_sha256"] == _SYNTHETIC
            else "the calibration manifest",
            "limits": [_limit(verdict) for verdict in report.verdicts],
        },
    }


def _name(verdict: Verdict) -> str:
    return f"{verdict.gate.artifact} {verdict.gate.key} on {verdict.device}"


def _limit(verdict: Verdict) -> dict[str, Any]:
    data = verdict.to_json()
    named = ("subject", "metric", "direction", "limit", "reason", "unit", "value", "status")
    return {name: data[name] for name in named}


def _is_digest(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) == _DIGEST_LENGTH
        and not set(value) - set("0123456789abcdef")
    )
