"""Promote the files of a green run to the baseline; nothing else writes one.

``exportgate promote [--report build/report/report.json] [--baseline build/baseline]``

The files that are copied are those that were judged, by their hashes in the report: a file that was
exported again since then, a red run, or one without files is refused. The folder appears as a whole
or not at all, and the one before it is kept beside it, named ``*.previous``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.variants import is_variant, variant
from exportgate import resources
from exportgate.artifacts.sidecar import read_sidecar, sidecar_path, write_text
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.reading import MALFORMED, reason
from harness.gate.baseline import ACCEPTED
from harness.gate.report.reading import ReportError, read_report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class PromoteError(ExportGateError, ValueError):
    """A run cannot become the baseline."""


def promote(report_path: Path, baseline: Path) -> list[str]:
    """Copy the judged files of a green run, and return their names.

    An encoder's step is copied with it where the run decoded with it: the next gate needs both.

    Raises:
        PromoteError: The run was not green, or judged nothing, or its files have changed.
        ArtifactError: A file is not its sidecar's.
    """
    report = _read(report_path)
    if report["verdict"] != "PASS":
        verdict = report["verdict"]
        msg = f"{report_path}: the verdict is {verdict}; only a green run becomes the baseline"
        raise PromoteError(msg)
    folder, judged = Path(report["request"]["folder"]), dict(report["request"]["files"])
    names = [name for name in judged if is_variant(name)]
    if not names:
        msg = f"{report_path}: the run judged no file"
        raise PromoteError(msg)
    for name in names:
        found = read_sidecar(folder / name).sha256
        if found != judged[name]:
            msg = f"{folder / name}: changed since it was judged; run the gate again"
            raise PromoteError(msg)
    files = {name: judged[name] for name in names}
    for name in names:
        step = variant(name).step
        if step and step not in files:
            files[step] = read_sidecar(folder / step).sha256
    _replace(baseline, folder, files, report)
    return list(files)


def _read(path: Path) -> dict[str, Any]:
    try:
        report = read_report(path)
        if not isinstance(report["request"]["folder"], str):
            msg = "request.folder should be text"
            raise TypeError(msg)
    except ReportError:
        raise
    except MALFORMED as error:
        msg = f"{path}: no readable report of a run ({reason(error)}); run the gate first"
        raise PromoteError(msg) from error
    return report


def _replace(
    baseline: Path, folder: Path, files: Mapping[str, str], report: Mapping[str, Any]
) -> None:
    values: dict[str, dict[str, float]] = {}
    for item in report["measurements"]:
        values.setdefault(item["subject"], {})[item["metric"]] = float(item["value"])
    accepted = {
        "accepted_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint_sha256": report["request"].get("checkpoint_sha256"),
        "files": files,
        "values": values,
    }
    baseline.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{baseline.name}.", dir=baseline.parent))
    for name in files:
        for path in (folder / name, sidecar_path(folder / name)):
            shutil.copyfile(path, draft / path.name)
    write_text(draft / ACCEPTED, json.dumps(accepted, indent=1) + "\n")
    previous = baseline.with_name(f"{baseline.name}.previous")
    if baseline.exists():
        shutil.rmtree(previous, ignore_errors=True)
        baseline.rename(previous)
    draft.rename(baseline)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = Parser(
        prog="exportgate promote",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build = resources.build_folder()
    parser.add_argument(
        "--report", type=Path, default=build / "report" / "report.json", metavar="FILE",
        help="of the gate (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", type=Path, default=build / "baseline", metavar="DIR",
        help="folder to make (default %(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    names = promote(args.report, args.baseline)
    print(f"{args.baseline} is the baseline now: {', '.join(names)}")
    return Exit.PASSED
