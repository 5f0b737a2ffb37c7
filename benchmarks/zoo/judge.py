"""Gate every checkpoint of the zoo: ``python -m benchmarks.zoo.judge --zoo build/zoo``.

Each is judged with ``--target all`` on its own swipes and calibration, in a process of its own. One
row of ``results.jsonl`` is kept for each, so that an interrupted run goes on where it stood; the
table is made of all of them. The exit status is 1 if a gate of any checkpoint is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.exit import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIME_LIMIT_S = 1800


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate says of one checkpoint.

    Attributes:
        name: The checkpoint's.
        parameters: How many it has.
        word_accuracy: NeMo's own, of its swipes.
        gates: Gates that were judged.
        broken: ``artifact metric = value`` of each that is broken or was not measured.
        seconds: Wall-clock, exports included.
        peak_mb: Largest resident memory of one process in MB (10⁶ bytes).
    """

    name: str
    parameters: int
    word_accuracy: float
    gates: int
    broken: tuple[str, ...]
    seconds: float
    peak_mb: float


def judge(zoo: Path, out: Path, name: str, parameters: int, word_accuracy: float) -> Judged:
    """Run the gate on one checkpoint; what keeps it from judging counts as one broken gate."""
    work = out / name
    report = work / "report" / "report.json"
    report.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "pytest", "suites/", "--target", "all", "-q",
        "--checkpoint", str(zoo / f"{name}.nemo"),
        "--manifest", str(zoo / f"{name}.val.jsonl"),
        "--calibration", str(zoo / f"{name}.calib.jsonl"),
        "--workdir", str(work),
    ]  # fmt: skip
    start = time.monotonic()
    log = out / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        limit = threading.Timer(_TIME_LIMIT_S, process.kill)
        limit.start()
        # Of the process and all that it waited for: exports and workers.
        _, status, usage = os.wait4(process.pid, 0)
        limit.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds, peak_kib = time.monotonic() - start, usage.ru_maxrss
    gates = _gates(report)
    broken = tuple(_sentence(gate) for gate in gates if gate["status"] != "PASS")
    if not gates:
        broken = (f"no verdict: see {log.name}",)
    return Judged(
        name, parameters, word_accuracy, len(gates), broken, seconds, peak_kib * 1024 / 1e6
    )


def _gates(report: Path) -> list[dict[str, Any]]:
    if not report.is_file():
        return []
    gates: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["gates"]
    return gates


def _sentence(gate: dict[str, Any]) -> str:
    value = "not measured" if gate["value"] is None else f"{gate['value']:.4g}"
    return f"{gate['subject']} {gate['metric']} = {value}, limit {gate['limit']:g}"


def table(rows: Sequence[Judged]) -> str:
    """Return the Markdown table, broken gates spelled out below."""
    lines = [
        "# The gate on checkpoints that it was not made with",
        "",
        "`make zoo`: each checkpoint trained from `benchmarks/zoo/configs.py`, `--target all` on",
        "its own swipes, two cores.",
        "",
        "| Checkpoint | Parameters | NeMo's words | Gates | Broken | Seconds | Peak, MB |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row.name} | {row.parameters:,} | {row.word_accuracy:.1%} | {row.gates} "
        f"| {len(row.broken)} | {row.seconds:.0f} | {row.peak_mb:.0f} |"
        for row in rows
    ]
    broken = [f"- {row.name}: {sentence}" for row in rows for sentence in row.broken]
    return "\n".join([*lines, "", *broken]).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what has not been judged; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, required=True, help="what benchmarks.zoo.train wrote")
    parser.add_argument("--only", nargs="+", help="names; judged again if they were")
    parser.add_argument("--work", type=Path, help="exports and reports; default: gate in the zoo")
    parser.add_argument("--table", type=Path, help="default: zoo.md in the working folder")
    options = parser.parse_args(arguments)
    work = options.work or options.zoo / "gate"
    work.mkdir(parents=True, exist_ok=True)
    kept = work / "results.jsonl"
    done = {row.name: row for row in _read(kept)}
    for name, parameters, words in _index(options.zoo / "INDEX.tsv"):
        if name in done if options.only is None else name not in options.only:
            continue
        done[name] = judge(options.zoo, work, name, parameters, words)
        print(f"{name}: {len(done[name].broken)} of {done[name].gates} gates broken", flush=True)
        lines = (json.dumps(asdict(row)) for row in done.values())
        kept.write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = table(list(done.values()))
    (options.table or work / "zoo.md").write_text(text, encoding="utf-8")
    print(text)
    return Exit.FAILED if any(row.broken for row in done.values()) else Exit.PASSED


def _read(path: Path) -> list[Judged]:
    if not path.is_file():
        return []
    rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    return [Judged(**{**row, "broken": tuple(row["broken"])}) for row in rows]


def _index(path: Path) -> list[tuple[str, int, float]]:
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    cells = (line.split("\t") for line in lines)
    return [(name, int(parameters), float(words)) for name, parameters, words, *_ in cells]


if __name__ == "__main__":
    raise SystemExit(main())
