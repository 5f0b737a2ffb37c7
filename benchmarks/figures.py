"""The figures of a release in one table: ``python -m benchmarks.figures [--checkpoint FILE]``.

Size, latency beside NeMo's own export, signal to noise and words of every file, with the plain
recipes that others use beside them; what the export of all files takes; what a gate of the golden
checkpoint takes, cold and with everything cached. All of one run, which is kept in
``build/figures`` part by part: an interrupted one goes on where it was.
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

from benchmarks import exporters
from benchmarks.exporter_work import Cost
from benchmarks.figures_table import markdown
from benchmarks.process_cost import ProcessCost, cost_of
from exporters.pipeline.options import file_sha256
from exporters.variants import VARIANTS
from exportgate.artifacts.sidecar import write_text
from exportgate.exit import Exit, end
from harness.history.same import differences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORK = Path("build/figures")
GATE = "android"
GATES = ("cold", "cached")


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


def gate_costs() -> dict[str, Any]:
    """Gate the golden checkpoint in an empty folder, and again with what that left."""
    folder = WORK / "gate"
    shutil.rmtree(folder, ignore_errors=True)
    command = [
        sys.executable, "-m", "harness.console", "gate", "--target", GATE,
        "--workdir", str(folder),
    ]  # fmt: skip
    found: dict[str, Any] = {}
    for name in GATES:
        report = ["--report", str(folder / name)]
        found[name] = asdict(cost_of([*command, *report], WORK / f"gate-{name}.log"))
    reports = [folder / name / "report.json" for name in GATES]
    return {**found, "differences": differences(*reports)}


def kept(name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401 - plain values
    """Return what a part gave, from its file if it is there."""
    path = WORK / f"{name}.json"
    if not path.is_file():
        write_text(path, json.dumps(make(), indent=1) + "\n")
        print(f"{name}: done", flush=True)
    return json.loads(path.read_text(encoding="utf-8"))


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
    parser.add_argument(
        "--part", choices=["release", "rows", "gate"], action="append", help="only make this part"
    )
    parser.add_argument("--out", type=Path, help="write the table here")
    args = parser.parse_args(argv)
    parts: dict[str, Callable[[], Any]] = {
        "release": lambda: release_cost(args.checkpoint),
        "rows": lambda: rows_of(args.checkpoint, args.swipes, args.peers or ["onnx", "pte"]),
        "gate": gate_costs,
    }
    digest = file_sha256(args.checkpoint, "checkpoint")[:16]
    found = {}
    for name in args.part or list(parts):
        found[name] = kept(name if name == "gate" else f"{name}-{digest}", parts[name])
    if args.part:
        return Exit.PASSED
    rows = [exporters.Row(**{**row, "cost": Cost(**row["cost"])}) for row in found["rows"]]
    gates = {name: ProcessCost(**found["gate"][name]) for name in GATES}
    text = markdown(
        rows,
        ProcessCost(**found["release"]),
        gates,
        found["gate"]["differences"],
        about(args.checkpoint, args.swipes, untrained=args.untrained),
        judged=not args.untrained,
    )
    print(text)
    if args.out:
        write_text(args.out, text)
    return Exit.PASSED


def about(checkpoint: Path, swipes: int | None, *, untrained: bool) -> str:
    """Return a sentence about what was measured."""
    weights = "random weights, which read no words" if untrained else "trained"
    count = f"{swipes} swipes" if swipes else "all swipes of golden/val.jsonl"
    return f"`{checkpoint.name}` ({weights}), {count}; {exporters.machine()}."


if __name__ == "__main__":
    end(main)
