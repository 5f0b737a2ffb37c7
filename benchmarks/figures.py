"""The figures of a release in one table: ``python -m benchmarks.figures [--checkpoint FILE]``.

Size, latency beside NeMo's own export, signal to noise and words of every file, with the plain
recipes that others use beside them; what the export of all files takes; what a gate of the golden
checkpoint and of this one takes, cold and with everything cached; instructions on an emulated arm64
core; INT8 beside FP32 in a page; features. First of all, each goal beside what was reached
(``benchmarks.goals``). All of one run, which is kept in ``build/figures`` part by part: an
interrupted one goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import exporters, figures_elsewhere
from benchmarks.exporter_work import Cost
from benchmarks.figures_table import markdown
from benchmarks.goals import Found
from benchmarks.process_cost import ProcessCost, cost_of
from exporters.pipeline.bundle import copy_file
from exporters.pipeline.options import file_sha256
from exporters.variants import VARIANTS
from exportgate.artifacts.sidecar import write_text
from exportgate.exit import Exit, end
from harness.history.same import differences
from harness.measure.environment import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

WORK = Path("build/figures")
GATE = "android"
GATES = ("cold", "cached")
PARTS = ("release", "rows", "gate", "full-gate", "arm64", "page", "tests", "features")
OF_NO_MODEL = ("gate", "tests", "features")
"""Parts that are the same whatever the model."""


def rows_of(checkpoint: Path, swipes: int | None, peer_formats: Sequence[str]) -> list[Any]:
    """Return the rows of ``benchmarks.exporters``: peers, then our files as ``release`` made them.

    Args:
        checkpoint: The model.
        swipes: Judge with so many, spread evenly; None for all.
        peer_formats: Of which there are peers: ``onnx``, ``pte``.
    """
    features = exporters.features_of(exporters.GOLDEN / "val.jsonl", swipes)
    model = exporters.Model("full", checkpoint, features)
    with tempfile.TemporaryDirectory() as folder:
        bench = exporters.Bench(model, Path(folder), WORK / "release")
        try:
            bench.make("step_fp32.onnx")
            peers = exporters.peers_of(model, Path(folder), peer_formats, bench.spec)
            rows = [bench.peer_row(peer) for peer in peers]
            rows += [bench.our_row(row.name) for row in VARIANTS]
        finally:
            bench.runtimes.close()
    return [asdict(row) for row in rows]


def release_cost(checkpoint: Path) -> dict[str, Any]:
    """Export the files of all targets from one load, as a user does."""
    shutil.rmtree(WORK / "release", ignore_errors=True)
    command = [
        sys.executable, "-m", "exporters.release", "--checkpoint", str(checkpoint),
        "--calibration", str(exporters.GOLDEN / "calib.jsonl"), "--target", "all",
        "--out", str(WORK / "release"),
    ]  # fmt: skip
    return asdict(cost_of(command, WORK / "release.log"))


def gate_costs(checkpoint: Path, *, judged: bool = True) -> dict[str, Any]:
    """Gate a checkpoint in an empty folder, and again with what that left.

    Args:
        checkpoint: The model.
        judged: Whether it has to pass: random weights need not.
    """
    name = checkpoint.stem
    folder = WORK / f"gate-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable, "-m", "harness.console", "gate", "--target", GATE,
        "--checkpoint", str(checkpoint), "--manifest", str(exporters.GOLDEN / "val.jsonl"),
        "--calibration", str(exporters.GOLDEN / "calib.jsonl"), "--workdir", str(folder),
    ]  # fmt: skip
    found: dict[str, Any] = {}
    command += ["--report", str(folder / "report")]  # the same: it stands in what is reproduced
    allowed = (Exit.PASSED,) if judged else (Exit.PASSED, Exit.FAILED)
    for run in GATES:
        found[run] = asdict(cost_of(command, WORK / f"gate-{name}-{run}.log", allowed))
        copy_file(folder / "report" / "report.json", folder / f"{run}.json")
    reports = [folder / f"{run}.json" for run in GATES]
    return {**found, "differences": differences(*reports)}


def parts_of(args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Return what there is to measure, by name."""
    checkpoint: Path = args.checkpoint
    return {
        "release": lambda: release_cost(checkpoint),
        "rows": lambda: rows_of(checkpoint, args.swipes, args.peers or ["onnx", "pte"]),
        "gate": lambda: gate_costs(exporters.GOLDEN / "golden.nemo"),
        "full-gate": lambda: gate_costs(checkpoint, judged=not args.untrained),
        "arm64": lambda: figures_elsewhere.counts(WORK / "release"),
        "page": lambda: figures_elsewhere.in_a_page(WORK / "release"),
        "tests": lambda: asdict(cost_of(["make", "test"], WORK / "tests.log")),
        "features": lambda: figures_elsewhere.features(exporters.GOLDEN / "val.jsonl"),
    }


def kept(name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - plain values
    """Return what a part gave, from its file if it is there."""
    path = WORK / f"{name}.json"
    if not path.is_file():
        before = environment().load_1min
        write_text(path, json.dumps(make(), indent=1) + "\n")
        with (WORK / "loads.jsonl").open("a", encoding="utf-8") as file:
            file.write(
                json.dumps({"part": name, "loads": [before, environment().load_1min]}) + "\n"
            )
        print(f"{name}: done", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


def loads_of(names: Collection[str]) -> tuple[float, float]:
    """Return the lightest and the heaviest load before and after these parts were made."""
    rows = map(json.loads, (WORK / "loads.jsonl").read_text(encoding="utf-8").splitlines())
    found = [load for row in rows if row["part"] in names for load in row["loads"]]
    return min(found), max(found)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.figures",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=exporters.FULL, help="the model")
    parser.add_argument("--untrained", action="store_true", help="it reads no words: judge none")
    parser.add_argument("--swipes", type=int, metavar="N", help="judge with fewer swipes")
    parser.add_argument(
        "--peers", choices=["onnx", "pte"], action="append", help="only peers of this format"
    )
    parser.add_argument("--part", choices=PARTS, action="append", help="only make this part")
    parser.add_argument(
        "--kept", action="store_true", help="measure nothing: a table of the parts that are there"
    )
    parser.add_argument("--out", type=Path, help="write the table here")
    args = parser.parse_args(argv)
    parts, digest = parts_of(args), file_sha256(args.checkpoint, "checkpoint")[:16]
    files = {name: name if name in OF_NO_MODEL else f"{name}-{digest}" for name in parts}
    if args.kept:
        parts = {name: parts[name] for name in parts if (WORK / f"{files[name]}.json").is_file()}
    found = {name: kept(files[name], parts[name]) for name in args.part or parts}
    if args.part:
        return Exit.PASSED
    text = markdown(
        found_of(found, judged=not args.untrained),
        {name: found[name]["differences"] for name in ("gate", "full-gate") if name in found},
        about(args.checkpoint, args.swipes, untrained=args.untrained),
        loads_of({files[name] for name in found}),
    )
    print(text)
    if args.out:
        write_text(args.out, text)
    return Exit.PASSED


def found_of(parts: Mapping[str, Any], *, judged: bool) -> Found:
    """Return the parts' plain values as what they are; a part that is not there is empty."""
    rows = [exporters.Row(**{**row, "cost": Cost(**row["cost"])}) for row in parts.get("rows", [])]
    gates = [
        {name: ProcessCost(**parts[part][name]) for name in GATES if part in parts}
        for part in ("gate", "full-gate")
    ]
    return Found(
        rows={row.file: row for row in rows},
        release=ProcessCost(**parts["release"]) if "release" in parts else None,
        golden=gates[0],
        full=gates[1],
        counts=parts.get("arm64", {}),
        page=parts.get("page", {}),
        features=parts.get("features", {}),
        tests=ProcessCost(**parts["tests"]) if "tests" in parts else None,
        judged=judged,
    )


def about(checkpoint: Path, swipes: int | None, *, untrained: bool) -> str:
    """Return a sentence about what was measured."""
    weights = "random weights, which read no words" if untrained else "trained"
    count = f"{swipes} swipes" if swipes else "all swipes of golden/val.jsonl"
    env = environment()
    where = f"{env.cpu} ({', '.join(env.cpu_flags)}), {env.cores} cores"
    versions = ", ".join(f"{name} {number}" for name, number in env.versions.items())
    return f"`{checkpoint.name}` ({weights}), {count}; {where}; {versions}."


if __name__ == "__main__":
    end(main)
