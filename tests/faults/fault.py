"""What a fault is, and how one is run through the real suites."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.gate.gates import Status
from tests.faults.run import RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.gate.gates import Verdict
    from tests.faults.run import FaultLab, Workspace

REFUSED = "refused"
"""The gate of a fault for which the whole run is refused, with a reason, before it begins."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that can go wrong, and the gate that has to see it.

    Attributes:
        name: Short, unique.
        known_failure: Row of the list of failures that shipped elsewhere; None for one of ours.
        description: What is wrong, in a line.
        variants: Files to judge.
        gate: ``artifact metric_direction`` that must be red, or ``REFUSED``.
        inject: Harms a workspace.
        also: Words that the broken gate's reason must hold.
    """

    name: str
    known_failure: int | None
    description: str
    variants: tuple[str, ...]
    gate: str
    inject: Callable[[Workspace], None]
    also: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the suites said to a fault.

    Attributes:
        fault: The fault.
        red: Gates that are broken or were not measured.
        caught: Whether the gate named for it is among them, for the named reason.
        seconds: Wall-clock of the judgement.
        reason: What the named gate said.
    """

    fault: Fault
    red: tuple[str, ...]
    caught: bool
    seconds: float
    reason: str


def red_gates(verdicts: dict[str, Verdict]) -> tuple[str, ...]:
    """Return the gates that did not pass."""
    return tuple(key for key, found in verdicts.items() if found.status is not Status.PASS)


def run_fault(lab: FaultLab, fault: Fault, *, named_only: bool = False) -> Outcome:
    """Inject a fault into copies of the files, and judge them.

    Args:
        lab: Files and reference.
        fault: What to inject.
        named_only: Run only the test that measures the named gate, and count only broken gates.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        workspace = lab.workspace(Path(folder) / "files")
        fault.inject(workspace)
        if named_only and fault.gate != REFUSED:
            workspace.only = fault.gate.split()[-1].removesuffix("_min").removesuffix("_max")
        try:
            verdicts = lab.judge(workspace, fault.variants)
        except RefusedError as refusal:
            red, reason = (REFUSED,), str(refusal)
        else:
            red = red_gates(verdicts)
            if workspace.only is not None:
                # What was left out was not measured; the named gate's own test was not left out.
                red = tuple(k for k in red if k == fault.gate or verdicts[k].status is Status.FAIL)
            reason = verdicts[fault.gate].detail if fault.gate in verdicts else ""
    caught = fault.gate in red and fault.also in reason
    return Outcome(fault, red, caught, time.perf_counter() - start, reason)
