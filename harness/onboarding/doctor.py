"""``exportgate doctor CKPT``: what a checkpoint is, what stands in the way, what to run next.

It reads the checkpoint's configuration and the names of its weights, the swipes and this machine,
and exports nothing: a second or two. Exit status: 0 if the printed command can be run, 1 if
something stands in its way.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.variants import TARGETS, VARIANTS
from exportgate import resources
from exportgate.exit import Exit, Parser
from exportgate.pasted import pasted
from harness.gate.gates import read_gates
from harness.gate.plugin.request import is_golden
from harness.onboarding.checkpoint import look_at_checkpoint, look_at_targets
from harness.onboarding.machine import look_at_machine
from harness.onboarding.swipes import look_at_calibration, look_at_manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.data.manifest import Swipe
    from harness.onboarding.finding import Findings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = _parser().parse_args(argv)
    findings, swipes = examine(args.checkpoint, args.manifest, args.calibration, args.gates)
    for part in findings:
        print("\n".join(part.lines()), end="\n\n")
    problems = sum(len(part.problems) for part in findings)
    if problems:
        print(f"{problems} problem{'s' if problems > 1 else ''}: mend this and run it again:")
        print(f"  {pasted('exportgate', 'doctor', *(sys.argv[2:] if argv is None else argv))}")
        return Exit.FAILED
    print("nothing stands in the way; next:")
    print(f"  {_gate(args, swipes)}")
    return Exit.PASSED


def examine(
    checkpoint: Path, manifest: Path | None, calibration: Path | None, gates: Sequence[Path] = ()
) -> tuple[list[Findings], list[Swipe]]:
    """Look at everything that a gate would start from.

    Args:
        checkpoint: The model.
        manifest: Swipes to judge with; the golden ones if None.
        calibration: Swipes to calibrate with; what the gate would take if None.
        gates: Files of gates laid over those of the suites.

    Returns:
        What was found, and the swipes of the manifest; none if it cannot be read.
    """
    golden = resources.folder("golden")
    about, summary = look_at_checkpoint(checkpoint)
    findings = [about]
    if summary is not None:
        findings.append(look_at_targets(summary, about.problems))
    labels = summary.labels if summary is not None else ()
    ours = checkpoint.is_file() and is_golden(checkpoint)
    judging, swipes = look_at_manifest(
        manifest or golden / "val.jsonl",
        labels,
        _least(gates),
        ours=manifest is None and not ours,
    )
    if calibration is None and ours:
        calibration = golden / "calib.jsonl"
    findings += [judging, look_at_calibration(calibration, swipes)]
    return [*findings, look_at_machine(resources.build_folder())], swipes


def _least(gates: Sequence[Path]) -> dict[str, float]:
    """Return how many swipes and words the gates demand of a manifest."""
    names = ["checkpoint", *(row.name for row in VARIANTS)]
    book = read_gates([resources.folder("suites") / "gates.toml", *gates], names)
    needed = ("distinct_swipes", "distinct_words")
    return {
        gate.metric: gate.limit
        for gate in book.gates
        if gate.artifact == "checkpoint" and gate.metric in needed
    }


def _gate(args: argparse.Namespace, swipes: Sequence[Swipe]) -> str:
    """Return the command that judges this checkpoint, with what it cannot do without."""
    given = ["--target", args.target, "--checkpoint", str(args.checkpoint)]
    for name, path in (("--manifest", args.manifest), ("--calibration", args.calibration)):
        given += [name, str(path)] if path is not None else []
    for path in args.gates:
        given += ["--gates", str(path)]
    longest = max(len(swipe.points) for swipe in swipes)
    if longest > DEFAULT_MAX_TRACE_LEN:
        given += ["--max-trace-len", str(longest)]
    return pasted("exportgate", "gate", *given)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="exportgate doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="a .nemo or .ckpt")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="swipes to judge with")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="swipes for INT8")
    parser.add_argument(
        "--gates", type=Path, action="append", default=[], metavar="FILE", help="laid over"
    )
    parser.add_argument(
        "--target", choices=[*TARGETS, "all"], default="android", help="default: %(default)s"
    )
    return parser
