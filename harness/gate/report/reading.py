"""Read a ``report.json`` that may have been changed, damaged or written by something else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, read_json
from harness.gate.report.outcome import REPORT_SCHEMA, Report

if TYPE_CHECKING:
    from pathlib import Path

_TEXTS = ("target", "device", "checkpoint_sha256")


class ReportError(ExportGateError, ValueError):
    """A file is no report of the gate."""


def read_report(path: Path) -> dict[str, Any]:
    """Return a report as plain data that ``Report.from_json`` takes.

    Raises:
        ReportError: Missing, not JSON, of another schema, or a part of it has another shape.
    """
    try:
        data: dict[str, Any] = read_json(path)
        if data["schema"] != REPORT_SCHEMA:
            msg = f"schema is {data['schema']}, but should be {REPORT_SCHEMA}"
            raise ValueError(msg)
        data["request"]["files"] = dict(data["request"]["files"])
        needed = [gate["status"] for gate in data["gates"]] + [data["verdict"]]
        needed += [data["request"][key] for key in _TEXTS]
        needed += [*data["request"]["files"], *data["request"]["files"].values()]
        if not all(isinstance(item, str) for item in needed):
            msg = "verdicts, target, device, checkpoint and files should be text"
            raise TypeError(msg)
        Report.from_json(data)
    except (OSError, *MALFORMED) as error:
        msg = f"{path}: no readable report of the gate ({error!r}); run the gate again"
        raise ReportError(msg) from error
    return data
