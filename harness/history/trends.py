"""Runs of the gate across checkpoints: what rose, what fell, and which checkpoint broke it.

``exportgate history [--history FILE] list|compare A B|same A B|trend [METRIC …]|regressions|merge
FILE …``

The gate appends with ``pytest suites/ --history FILE``. Runs are keyed by checkpoint hash, file,
device and environment (machine, processor, versions). Runs of different environments are never
joined to one line: each has its own, and every command says how many there are.

Commands name a run by its number, by its checkpoint's file name or by a prefix of its SHA-256.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exportgate import resources
from exportgate.artifacts.sidecar import keep_inputs
from exportgate.exit import Exit, Parser
from harness.history.drawing import draw
from harness.history.points import Point, SeriesKey
from harness.history.same import differences
from harness.history.store import (
    HistoryError,
    Run,
    find_run,
    merge,
    read_environments,
    read_gates,
    read_runs,
    read_values,
)
from harness.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Order = Literal["time", "name"]
_PICTURES = (".png", ".svg", ".pdf")


def default_history() -> Path:
    """Return where the history lies if ``--history`` does not say."""
    return resources.build_folder() / "history.db"


@dataclass(frozen=True, slots=True)
class Break:
    """A gate that held at one checkpoint and not at the next."""

    key: SeriesKey
    bound: str
    before: Point | None
    after: Point
    mended: Run | None

    def sentence(self) -> str:
        """Say what broke and where."""
        metric = METRICS[self.key.metric]
        now = "not measured" if self.after.value is None else metric.format(self.after.value)
        was = (
            f"kept at {self.before.run.label}"
            f" ({'?' if self.before.value is None else metric.format(self.before.value)})"
            if self.before
            else "never kept before"
        )
        mended = f"; kept again at {self.mended.label}" if self.mended else ""
        return (
            f"{self.key.artifact} {self.key.metric} ({self.bound}): broken at "
            f"{self.after.run.label} ({now}), {was}{mended}"
        )


# -- across runs --------------------------------------------------------------------------------


def in_order(runs: Sequence[Run], order: Order) -> list[Run]:
    """Return the latest run of each checkpoint and calibration in each environment, in order."""
    latest = {
        (r.checkpoint_sha256, r.calibration_sha256, r.device, r.environment, r.target): r
        for r in runs
    }
    found = sorted(latest.values(), key=lambda run: run.number)
    return sorted(found, key=lambda run: _natural(run.checkpoint)) if order == "name" else found


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort ``step-20`` before ``step-100``."""
    return [
        (int(part or 0), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)
    ]


def series(
    path: Path, metrics: Sequence[str], order: Order = "time"
) -> dict[SeriesKey, list[Point]]:
    """Return the points of each line: one artifact, metric, device and environment.

    Raises:
        HistoryError: A metric does not exist.
    """
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        msg = f"unknown metrics {', '.join(unknown)}; known: {', '.join(METRICS)}"
        raise HistoryError(msg)
    runs = in_order(read_runs(path), order)
    values, states = read_values(path), _states(path)
    found: dict[SeriesKey, list[Point]] = {}
    for run in runs:
        for (artifact, metric), value in values.get(run.number, {}).items():
            if metrics and metric not in metrics:
                continue
            key = SeriesKey(artifact, metric, run.device, run.environment)
            status = states.get((run.number, artifact, metric))
            found.setdefault(key, []).append(Point(run, value, status))
    return found


def _states(path: Path) -> dict[tuple[int, str, str], str]:
    """Return whether a metric kept all its gates, by run, artifact and metric."""
    found: dict[tuple[int, str, str], str] = {}
    for row in read_gates(path):
        key = (row["run"], row["subject"], row["metric"])
        if found.get(key, "PASS") == "PASS":
            found[key] = row["status"]
    return found


def breaks(path: Path, order: Order = "time") -> list[Break]:
    """Return each step of a gate from kept to broken, in each environment by itself."""
    place = {run.number: (i, run) for i, run in enumerate(in_order(read_runs(path), order))}
    lines: dict[tuple[SeriesKey, str], list[tuple[Point, str]]] = {}
    rows = [row for row in read_gates(path) if row["run"] in place]
    for row in sorted(rows, key=lambda row: place[row["run"]][0]):
        run = place[row["run"]][1]
        key = SeriesKey(row["subject"], row["metric"], run.device, run.environment)
        sign = "≥" if row["direction"] == "min" else "≤"
        known = METRICS.get(row["metric"])  # a metric that is measured no more has no unit
        bound = f"{sign} {known.format(row['limit']) if known else row['limit']}"
        # By direction, not by limit: a limit that was tightened goes on with the same line.
        point = Point(run, row["value"], row["status"])
        lines.setdefault((key, row["direction"]), []).append((point, bound))
    return [found for (key, _), line in lines.items() for found in _breaks_of(key, line)]


def _breaks_of(key: SeriesKey, line: Iterable[tuple[Point, str]]) -> list[Break]:
    found: list[Break] = []
    before: Point | None = None
    broken = False
    for point, bound in line:
        if point.status != "PASS" and not broken:
            found.append(Break(key, bound, before, point, mended=None))
        elif point.status == "PASS" and broken:
            found[-1] = replace(found[-1], mended=point.run)
        broken = point.status != "PASS"
        before = point if not broken else before
    return found


# -- commands -----------------------------------------------------------------------------------


def environment_lines(path: Path, runs: Sequence[Run]) -> list[str]:
    """Say which environments the runs come from, and that they are not to be compared."""
    used = list(dict.fromkeys(run.environment for run in runs))
    known = read_environments(path)
    lines = [f"environment {key}: {_describe(known[key])}" for key in used]
    if len(used) > 1:
        lines.append(
            f"{len(used)} environments: speeds measured on different machines or with different "
            "versions cannot be compared"
        )
    return lines


def _describe(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return (
        f"{environment['cpu']}, {environment['cores']} cores, {environment['system']}; {versions}"
    )


def list_lines(path: Path) -> list[str]:
    """Return a line for each run, oldest first."""
    runs, gates = read_runs(path), read_gates(path)
    lines = []
    for run in runs:
        states = [row["status"] for row in gates if row["run"] == run.number]
        kept = f"{states.count('PASS')} of {len(states)} kept"
        lines.append(
            f"{run.number:>4}  {run.finished_utc}  {run.verdict}  {kept:>16}  "
            f"{run.checkpoint} {run.checkpoint_sha256[:8]}  {run.target} on {run.device}  "
            f"environment {run.environment}"
        )
    return [*lines, *environment_lines(path, runs)] if runs else ["no runs"]


def compare_lines(path: Path, first: str, second: str) -> list[str]:
    """Return what differs between two runs.

    Raises:
        HistoryError: One of them is not in the store.
    """
    runs = read_runs(path)
    a, b = find_run(runs, first), find_run(runs, second)
    values, states = read_values(path), _states(path)
    ours, theirs = values.get(a.number, {}), values.get(b.number, {})
    lines = [f"{'file':26} {'metric':28} {a.label:>26} {b.label:>26} change"]
    for key in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(key), theirs.get(key)
        was, now = states.get((a.number, *key), ""), states.get((b.number, *key), "")
        if left == right and was == now:
            continue
        change = "" if not left or right is None else f"{right / left - 1:+.1%}"
        verdict = f"  {was} → {now}" if was != now else ""
        artifact, metric = key
        lines.append(
            f"{artifact:26} {metric:28} {_text(metric, left):>26} {_text(metric, right):>26} "
            f"{change}{verdict}".rstrip()
        )
    return [*lines, *environment_lines(path, [a, b])]


def _text(metric: str, value: float | None) -> str:
    return "-" if value is None else METRICS[metric].format(value)


def trend_lines(found: Mapping[SeriesKey, Sequence[Point]]) -> list[str]:
    """Return each line's values, one environment after the other."""
    lines = []
    for key, points in found.items():
        lines.append(f"{key.artifact} {key.metric} on {key.device}, environment {key.environment}")
        for point in points:
            status = point.status if point.status not in {None, "PASS"} else ""
            value = _text(key.metric, point.value)
            lines.append(f"    {point.run.label:40} {value:>16}  {status}".rstrip())
    return lines


def find_changed(found: Mapping[SeriesKey, Sequence[Point]]) -> dict[SeriesKey, list[Point]]:
    """Return the lines that have more than one value: a constant has no trend."""
    return {
        key: list(points)
        for key, points in found.items()
        if len({point.value for point in points}) > 1
    }


def regression_lines(path: Path, order: Order) -> list[str]:
    """Return which checkpoint broke which gate."""
    found = breaks(path, order)
    lines = [entry.sentence() for entry in found] or ["no gate was broken"]
    return [*lines, *environment_lines(path, read_runs(path))]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate history",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--history", type=Path, default=default_history(), metavar="FILE",
        help="the store (default %(default)s)",
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every run, oldest first")
    compare = commands.add_parser("compare", help="what differs between two runs")
    compare.add_argument("first", metavar="A", help="run, checkpoint or hash")
    compare.add_argument("second", metavar="B", help="run, checkpoint or hash")
    same = commands.add_parser("same", help="whether two reports say the same, clocks aside")
    same.add_argument("first", type=Path, metavar="A.json", help="a run's report.json")
    same.add_argument("second", type=Path, metavar="B.json", help="another's")
    trend = commands.add_parser("trend", help="a metric across checkpoints")
    trend.add_argument("metrics", nargs="*", metavar="METRIC", help="default: all that changed")
    trend.add_argument(
        "--artifact", "--subject", action="append", metavar="FILE", help="only this file"
    )
    trend.add_argument(
        "--out", type=_picture, metavar="PNG", help="draw it; the ending may be .svg or .pdf, too"
    )
    regressions = commands.add_parser(
        "regressions", aliases=["blame"], help="which checkpoint broke which gate"
    )
    merging = commands.add_parser("merge", help="append the runs of other stores")
    merging.add_argument("others", nargs="+", type=Path, metavar="FILE", help="a store")
    for command in (trend, regressions):
        command.add_argument(
            "--order", choices=["time", "name"], default="time",
            help="of checkpoints: as they were gated, or by their names (default %(default)s)",
        )  # fmt: skip
    return parser


def _picture(text: str) -> Path:
    """Return the path of a picture.

    Raises:
        ArgumentTypeError: Its ending is of no picture that can be drawn.
    """
    path = Path(text)
    if path.suffix not in _PICTURES:
        msg = f"{text}: expected a name that ends in {', '.join(_PICTURES)}"
        raise argparse.ArgumentTypeError(msg)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    if args.command == "merge":
        appended = sum(merge(args.history, other) for other in args.others)
        print(f"{appended} runs appended to {args.history}")
        return Exit.PASSED
    if args.command == "same":
        differing = differences(args.first, args.second)
        print("\n".join(differing) or "both say the same, clocks aside")
        return Exit.FAILED if differing else Exit.PASSED
    if not args.history.is_file():
        msg = f"{args.history}: no history yet; run the gate with --history {args.history}"
        raise HistoryError(msg)
    keep_inputs(getattr(args, "out", None), args.history)
    if args.command == "list":
        lines = list_lines(args.history)
    elif args.command == "compare":
        lines = compare_lines(args.history, args.first, args.second)
    elif args.command in {"regressions", "blame"}:
        lines = regression_lines(args.history, args.order)
    else:
        found = series(args.history, args.metrics, args.order)
        # What was asked for by name is shown, also after a single run.
        found = found if args.metrics else find_changed(found)
        wanted = args.artifact or [key.artifact for key in found]
        found = {key: points for key, points in found.items() if key.artifact in wanted}
        runs = [point.run for points in found.values() for point in points]
        lines = [*trend_lines(found), *environment_lines(args.history, runs)]
        if args.out:
            draw(found, args.out)
            lines.append(f"picture: {args.out}")
    print("\n".join(lines))
    return Exit.PASSED
