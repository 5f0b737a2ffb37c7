"""The smallest fault that is still seen: what a gate cannot see at its limit is known."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.gate.gates import Status
from tests.faults.encoder_faults import perturbed_one
from tests.faults.graph_edits import change_constant, operate, scale_part
from tests.faults.step_faults import blank_favoured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.faults.run import FaultLab

QUICK = "not test_words.py and not latency and not shapes and not test_constants"
"""What is run: a search sees nothing that scores do not, and takes half of the time. The comparison
of constants sees any of these faults from 0.01 % on; how small a fault the outputs show is told."""
STEPS = 7
"""Bisections: each halves the distance between seen and unseen on a logarithmic scale."""


@dataclass(frozen=True, slots=True)
class Scalable:
    """A fault of any size.

    Attributes:
        name: What is wrong.
        file: Where.
        unit: Of the size.
        low: A size that should pass.
        high: A size that should be seen.
        change: Makes the change of a size.
    """

    name: str
    file: str
    unit: str
    low: float
    high: float
    change: Callable[[float], object]


SCALABLE = (
    Scalable("one channel's scale, FP32 encoder", "encoder_fp32.onnx", "%", 1e-4, 10,
             lambda x: scale_part("blocks.1.ff1_out.weight", 7, 1 + x / 100)),
    Scalable("largest weight of a layer, FP32 encoder", "encoder_fp32.onnx", "%", 1e-4, 10,
             lambda x: change_constant(
                 "blocks.0.qkv.weight", lambda w: perturbed_one(w, x / 100))),
    Scalable("one channel's scale, INT8 encoder", "encoder_int8.onnx", "%", 0.1, 50,
             lambda x: scale_part("blocks.2.ff2_out.weight.scale", 7, 1 + x / 100)),
    Scalable("one layer's activation step, INT8 encoder", "encoder_int8.onnx", "%", 0.1, 100,
             lambda x: scale_part("blocks.1.ff1_in.first.step", slice(None), 1 + x / 100)),
    Scalable("largest weight of the joint, FP32 step", "step_fp32.onnx", "%", 1e-4, 10,
             lambda x: change_constant("joint.enc.weight", lambda w: perturbed_one(w, x / 100))),
    Scalable("blank's bias, INT8 step", "step_int8.onnx", "nats", 1e-3, 5,
             blank_favoured),
)  # fmt: skip


def limit_lines(lab: FaultLab) -> Iterator[tuple[str, bool]]:
    """Bisect each fault; yield a row and whether its largest size is seen."""
    yield "| fault | seen from | by |\n|---|---|---|", True
    for scalable in SCALABLE:
        gates = seen_by(lab, scalable, scalable.high)
        if not gates:
            yield f"| {scalable.name} | not at {scalable.high:g} {scalable.unit} | none |", False
            continue
        low, high = scalable.low, scalable.high
        for _ in range(STEPS):
            middle = float(np.sqrt(low * high))
            found = seen_by(lab, scalable, middle)
            low, high, gates = (low, middle, found) if found else (middle, high, gates)
        yield f"| {scalable.name} | {high:.2g} {scalable.unit} | {', '.join(gates)} |", True


def seen_by(lab: FaultLab, scalable: Scalable, size: float) -> list[str]:
    """Return the metrics that see a fault of a size."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = lab.workspace(Path(folder) / "files")
        workspace.args = ("-k", QUICK)
        operate(scalable.file, scalable.change(size))(workspace)
        verdicts = lab.judge(workspace, [scalable.file])
    return [v.gate.metric for v in verdicts.values() if v.status is Status.FAIL]
