"""``exportgate watch DIR``: gate each checkpoint of a running training as it appears.

A file counts once it has kept its size and time for a while and no marker of NeMo's says that it is
unfinished. Links and second names (``-last``) are left out. The checkpoint is held by a link of our
own while it is gated, so that a training which keeps its best few may delete it. One gate runs at a
time, with low priority; runs are appended to the history, and what is there is not gated again.

Exit status with ``--once``: as the sweep's. Without it, it goes on until it is interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.variants import is_quantized, variant
from exportgate.artifacts.sidecar import sha256_of
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from harness.gate.gates import Status
from harness.history.store import check_writable, read_report
from harness.history.sweep import Outcome, add_gate_options, exit_status, gate, make_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SUFFIXES = (".nemo", ".ckpt")
LAST, UNFINISHED = "-last", "-unfinished"
"""What NeMo calls a second copy of the newest checkpoint, and its mark beside one being written."""
_STANDARD_ERRORS = 2.0
"""A fall of words is told from the draw of swipes from here."""


class WatchError(ExportGateError, ValueError):
    """There is nothing to watch."""


@dataclass(frozen=True, slots=True)
class State:
    """How a file looked; the same state twice is a file that nobody writes to."""

    size_bytes: int
    modified_ns: int


@dataclass(slots=True)
class Folder:
    """A training's folder, and what was seen of it.

    Attributes:
        path: Where checkpoints appear, at any depth.
        settle_s: How long a file has to stay the same before it counts.
        seen: When each file was first seen in its present state, in seconds.
        taken: States that were handed out.
    """

    path: Path
    settle_s: float
    seen: dict[Path, tuple[State, float]] = field(default_factory=dict)
    taken: set[tuple[Path, State]] = field(default_factory=set)

    def complete(self, now_s: float) -> list[Path]:
        """Return new checkpoints that are written to the end, oldest first; each once.

        Args:
            now_s: The time, on a clock that only goes forward.
        """
        found = {path: state for path in self._candidates() if (state := _state(path))}
        self.seen = {
            path: self.seen[path]
            if path in self.seen and self.seen[path][0] == state
            else (state, now_s)
            for path, state in found.items()
        }
        ready = [
            path
            for path, (state, since_s) in self.seen.items()
            if now_s - since_s >= self.settle_s and (path, state) not in self.taken
        ]
        self.taken |= {(path, found[path]) for path in ready}
        return sorted(ready, key=lambda path: (found[path].modified_ns, path.name))

    def _candidates(self) -> Iterator[Path]:
        for path in self.path.rglob("*"):
            stem = str(path).removesuffix(path.suffix)
            if path.suffix not in SUFFIXES or path.is_symlink() or stem.endswith(LAST):
                continue
            if not Path(f"{stem}{UNFINISHED}").exists():
                yield path


def _state(path: Path) -> State | None:
    """Return how a file looks; None if it has vanished or is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return State(status.st_size, status.st_mtime_ns) if path.is_file() else None


@contextmanager
def held(path: Path, folder: Path) -> Iterator[Path]:
    """Hold a checkpoint under its own name in another folder while the training may delete it.

    Raises:
        FileNotFoundError: It has vanished already.
    """
    place = folder / sha256_of(path)[:24]  # the same after an interruption, which cleans up then
    place.mkdir(parents=True, exist_ok=True)
    copy = place / path.name
    copy.unlink(missing_ok=True)
    try:
        try:
            os.link(path, copy)
        except FileNotFoundError:
            raise
        except OSError:  # another file system
            shutil.copy2(path, copy)
        yield copy
    finally:
        shutil.rmtree(place, ignore_errors=True)


def findings(report: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[str]:
    """Say in words what a checkpoint lost: words, or that it can be quantized.

    Args:
        report: Of the gate on the new checkpoint.
        before: Of the one before it; None for the first.
    """
    found = []
    now, earlier = _accuracy(report), _accuracy(before) if before is not None else None
    if now is not None and earlier is not None:
        swipes = max(_measured(report, "swipes") or 1.0, 1.0)
        error = sqrt(max(earlier * (1 - earlier), 1 / swipes) * 2 / swipes)
        if earlier - now > _STANDARD_ERRORS * error:
            found.append(f"words fell from {earlier:.1%} to {now:.1%} of {swipes:.0f} swipes")
    broken = _broken(report)
    for name in sorted(broken):
        baseline = variant(name).baseline
        if is_quantized(variant(name).precision) and baseline and baseline not in broken:
            found.append(
                f"no longer quantizable as {name}: {', '.join(broken[name])} broken, while FP32 "
                "keeps its gates"
            )
    return found


def _accuracy(report: Mapping[str, Any]) -> float | None:
    return _measured(report, "reference_word_accuracy")


def _measured(report: Mapping[str, Any], metric: str) -> float | None:
    values = [item["value"] for item in report["measurements"] if item["metric"] == metric]
    return float(values[0]) if values else None


def _broken(report: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in report["gates"]:
        if item["status"] == Status.FAIL and item["subject"].endswith((".onnx", ".pte")):
            found.setdefault(item["subject"], []).append(item["metric"])
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Raises:
        WatchError: There is no such folder.
    """
    args = _parser().parse_args(argv)
    if not args.folder.is_dir():
        msg = f"{args.folder}: no such folder; give the one that the training writes to"
        raise WatchError(msg)
    check_writable(args.history)
    os.nice(args.nice)
    outcomes = list(watch(args))
    if not outcomes:
        kinds = " or ".join(sorted(SUFFIXES))
        print(f"{args.folder}: holds no finished {kinds} that could be gated", file=sys.stderr)
        return Exit.NOT_JUDGED
    return exit_status(outcomes)


def watch(args: argparse.Namespace) -> Iterator[Outcome]:
    """Gate checkpoints as they appear, and say what was found; ends only with ``--once``."""
    folder = Folder(args.folder, 0.0 if args.once else args.settle)
    before: Mapping[str, Any] | None = None
    while True:
        for path in folder.complete(time.monotonic()):
            outcome = _gated(path, args)
            if outcome is None:
                print(f"{path.name}: vanished before it was gated", flush=True)
                continue
            print(f"{path.name}: {outcome.verdict} {outcome.detail}".rstrip(), flush=True)
            if outcome.number is not None:
                report = read_report(args.history, outcome.number)
                for line in findings(report, before):
                    print(f"{path.name}: {line}", flush=True)
                before = report
            yield outcome
        if args.once:
            return
        time.sleep(args.interval)


def _gated(path: Path, args: argparse.Namespace) -> Outcome | None:
    """Gate a checkpoint unless the history holds it; None if it has vanished."""
    try:
        with held(path, args.workdir / "watch") as copy:
            (job,) = make_jobs([copy], args)
            outcome = gate(job)
            # The user knows the training's file, not the name under which it is held.
            detail = outcome.detail.replace(str(copy), str(path))
            return dataclasses.replace(outcome, detail=detail)
    except FileNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate watch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where checkpoints appear")
    add_gate_options(parser)
    parser.add_argument("--once", action="store_true", help="gate what is there, and end")
    for name, default, meaning in (
        ("--interval", 30.0, "seconds between two looks (default %(default)s)"),
        ("--settle", 30.0, "seconds without a change that end a file (default %(default)s)"),
    ):
        parser.add_argument(name, type=float, default=default, metavar="S", help=meaning)
    parser.add_argument(
        "--nice", type=int, default=10, metavar="N", help="lower priority (default %(default)s)"
    )
    return parser
