"""What became of the stages of ``exportgate gate-all``: verdict, table, page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from exportgate.artifacts.sidecar import write_text
from harness.crossdevice import tables
from harness.crossdevice.agreement import Agreement, Status
from harness.crossdevice.plan import How

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harness.crossdevice.plan import Stage

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a stage.

    Attributes:
        stage: What was judged where.
        status: Outcome.
        reason: Why, where it is not PASS.
        seconds: How long it took.
        folder: Its report or table, and its log.
        waived: Not measured, and not demanded.
    """

    stage: Stage
    status: Status
    reason: str
    seconds: float
    folder: Path
    waived: bool = False

    @property
    def good(self) -> bool:
        """Whether the run may pass with it."""
        return self.status is Status.PASS or self.waived

    @property
    def shown(self) -> str:
        """The status in words."""
        return f"{self.status} (waived)" if self.waived else str(self.status)


def passed(outcomes: Sequence[Outcome]) -> bool:
    """Whether something was judged, and all of it is good."""
    return bool(outcomes) and all(each.good for each in outcomes)


def conclude(outcomes: Sequence[Outcome], out: Path, seconds: float) -> str:
    """Write verdict, table and page; return the table with the verdict below it.

    Args:
        outcomes: What became of each stage.
        out: Where to.
        seconds: How long all of them took.

    ``gate-all.json``, ``gate-all.md`` and ``gate-all.html`` are about the stages; ``devices.json``
    and ``devices.md`` put what was run on several devices into one table.
    """
    out.mkdir(parents=True, exist_ok=True)
    agreements, environments = compared(outcomes)
    if agreements:
        tables.write(out, agreements, {"command": "exportgate gate-all"}, environments)
    text = _markdown(outcomes, seconds)
    write_text(out / "gate-all.md", f"{text}\n")
    write_text(out / "gate-all.json", json.dumps(_plain(outcomes, seconds), indent=1) + "\n")
    write_text(out / "gate-all.html", page(outcomes, agreements, out, seconds))
    return text


def compared(outcomes: Sequence[Outcome]) -> tuple[list[Agreement], dict[str, dict[str, Any]]]:
    """Return the rows of all stages that compared devices, and what those devices are."""
    found: list[Agreement] = []
    environments: dict[str, dict[str, Any]] = {}
    for each in outcomes:
        file = each.folder / tables.JSON
        if each.stage.how is How.BESIDE and file.is_file():
            rows, there = tables.read(file)
            found += rows
            environments |= there
    return found, environments


def page(
    outcomes: Sequence[Outcome], agreements: Sequence[Agreement], out: Path, seconds: float
) -> str:
    """Return the page: stages with links to their reports, and files by devices."""
    packages = ("harness.crossdevice", "harness.gate.page")
    loader = ChoiceLoader([PackageLoader(package, ".") for package in packages])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = loader.get_source(environment, "page.css")[0]
    left_out = tables.left_out(agreements)
    return environment.get_template("gate_all.html").render(
        style=Markup(style),  # noqa: S704 - our own file
        verdict="PASS" if passed(outcomes) else "FAIL",
        closing=_closing(outcomes, seconds),
        stages=[(each, _link(each, out)) for each in outcomes],
        heads=tables.HEADS,
        rows=[
            (each, tables.cells(each)) for each in agreements if each.status is not Status.LEFT_OUT
        ],
        left_out=left_out,
        explanation=tables.EXPLANATION.replace("*", ""),
    )


def _link(each: Outcome, out: Path) -> str:
    """Return where a stage's report is, beside the page; empty if it came to none."""
    for name in ("report.html", "devices.md", "log.txt"):
        if (each.folder / name).is_file():
            return (each.folder / name).relative_to(out).as_posix()
    return ""


def _markdown(outcomes: Sequence[Outcome], seconds: float) -> str:
    rows = ["| Target | Devices | Judged by | Seconds | Verdict |", "|---|---|---|--:|---|"]
    for each in outcomes:
        stage = each.stage
        cells = [stage.what, ", ".join(stage.devices), stage.how, f"{each.seconds:.0f}", each.shown]
        rows.append(f"| {' | '.join(cells)} |")
    reasons = [f"- {each.stage.name}: {each.reason}" for each in outcomes if each.reason]
    return "\n".join([*rows, "", *reasons, *([""] if reasons else []), _closing(outcomes, seconds)])


def _closing(outcomes: Sequence[Outcome], seconds: float) -> str:
    verdict = "PASS" if passed(outcomes) else "FAIL"
    kept = sum(each.status is Status.PASS for each in outcomes)
    return f"{verdict}: {kept} of {len(outcomes)} stages, {seconds:.0f} s"


def _plain(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    stages = [
        {
            "target": each.stage.target, "files": each.stage.files, "devices": each.stage.devices,
            "how": each.stage.how, "status": each.status, "reason": each.reason,
            "seconds": round(each.seconds, 1), "waived": each.waived,
        }
        for each in outcomes
    ]  # fmt: skip
    verdict = "PASS" if passed(outcomes) else "FAIL"
    return {"schema": SCHEMA, "verdict": verdict, "seconds": round(seconds, 1), "stages": stages}
