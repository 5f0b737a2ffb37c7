"""The gates of a run: the file's, what was recorded for the checkpoint, what is waived here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporters.variants import VARIANTS
from exportgate.artifacts.sidecar import (
    ArtifactError,
    package_versions,
    read_sidecar,
    sha256_of,
)
from harness.devices.device import Counting, swipes_max
from harness.gate.baseline import PREFIX, read_baseline
from harness.gate.gates import Gate, GateBook, GateError, Verdict, read_gates, waive
from harness.gate.plugin.request import gates_files
from harness.measure import instructions
from harness.measure.expected.golden_record import recorded_for
from harness.third_party.folder import is_imported

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import pytest

    from exportgate.artifacts.sidecar import Sidecar
    from harness.run.request import Request

CHECKPOINT = "checkpoint"
"""The artifact of gates on the model itself rather than on one of its files."""
RECORDED_OUTPUTS = ("recorded_token_mismatches", "recorded_score_max_abs_error")
"""Judged where the outputs of NeMo are recorded beside the checkpoint."""

_COUNTED_BY_EMULATOR = ("baseline_instruction_ratio",)
_CONSTANTS = "constant_mismatches"
"""Judged of files that this version's exporters made, of swipes that are at hand."""
_OF_OUR_PTE = (
    "delegated_node_ratio", "delegated_compute_ratio",
    "layer_gain_excess", "layer_shift_excess", "unmatched_layers",
)  # fmt: skip
"""Of a .pte they are counted while lowering, or compared with the graph that was lowered."""


def read_book(config: pytest.Config, request: Request) -> GateBook:
    """Read the gates of a run.

    Raises:
        ExportGateError: A gates file is malformed, the floor is no share, the record beside the
            checkpoint is of other files, or the baseline is not there.
    """
    names = dict.fromkeys(row.name for row in (*VARIANTS, *request.variants))
    book = read_gates(gates_files(config), [CHECKPOINT, *names])
    book = _with_baseline(_with_record(book, config, request), request)
    return book.on(request.device.name)


def left_to_others(book: GateBook, artifacts: Collection[str]) -> list[str]:
    """Say which gates of some artifacts this run's device cannot decide, and which can."""
    files: dict[tuple[str, str], list[str]] = {}
    for gate in book.elsewhere:
        if gate.artifact in artifacts:
            files.setdefault((gate.metric, " and ".join(gate.devices)), []).append(gate.artifact)
    return [
        f"not judged on {book.device}: {metric} of {', '.join(names)}; "
        f"judge it on {devices} (--device)"
        for (metric, devices), names in files.items()
    ]


def _with_baseline(book: GateBook, request: Request) -> GateBook:
    """Drop the gates beside a baseline where none was asked for; where it was, it has to be there.

    Raises:
        BaselineError: ``--baseline`` names what was never accepted.
    """
    if request.baseline is not None:
        read_baseline(request.baseline)
        return book
    gates = tuple(gate for gate in book.gates if not gate.metric.startswith(PREFIX))
    return replace(book, gates=gates)


def _with_record(book: GateBook, config: pytest.Config, request: Request) -> GateBook:
    """Keep the gates on what was recorded where there is a record; set the user's floor.

    Raises:
        GateError: The floor is no share.
        RecordError: The record beside the checkpoint is of other files.
    """
    floor: float | None = config.getoption("--accuracy-floor")
    if floor is not None and not 0.0 <= floor <= 1.0:
        msg = f"--accuracy-floor is {floor}, but should be a share from 0 to 1"
        raise GateError(msg)
    if floor is not None:
        book = book.with_limit(Gate(CHECKPOINT, "reference_word_accuracy", "min", floor))
    # What was recorded is of all swipes; a device that runs some of them is no place to judge NeMo.
    sampled = bool(swipes_max(request.device))
    record = None if sampled else recorded_for(request.checkpoint, request.manifest)
    absent = {
        *(RECORDED_OUTPUTS if record is None or record.tokens is None else ()),
        # The user's floor takes the place of what was recorded.
        *(("recorded_accuracy_drop",) if record is None or floor is not None else ()),
    }
    return replace(book, gates=tuple(gate for gate in book.gates if gate.metric not in absent))


def waived(gates: Sequence[Gate], request: Request) -> dict[tuple[str, str], Verdict]:
    """Return the verdicts on gates that nothing here can count, by artifact and key."""
    device = request.device
    absent = (
        device.cannot_count
        if isinstance(device, Counting)
        else instructions.missing(instructions.X86_64)
    )
    reasons = dict.fromkeys(_COUNTED_BY_EMULATOR, absent)
    if request.artifacts is not None and is_imported(request.artifacts):
        why = "known of our own .pte only; delegates and unexpected_fallback_ops are judged"
        reasons |= dict.fromkeys(_OF_OUR_PTE, why)
    found = {
        (gate.artifact, gate.key): waive(gate, reason, request.device.name)
        for gate in gates
        if (reason := reasons.get(gate.metric))
        and (gate.metric not in _OF_OUR_PTE or gate.artifact.endswith(".pte"))
    }
    for gate in gates:
        if gate.metric == _CONSTANTS and (reason := _not_made_alike(gate.artifact, request)):
            found[gate.artifact, gate.key] = waive(gate, reason, request.device.name)
    return found


def _not_made_alike(name: str, request: Request) -> str:
    """Say why nobody here can tell what a file must hold; nothing if its sidecar says how."""
    if request.artifacts is None:
        return ""
    if is_imported(request.artifacts):
        return "exported by somebody else: its outputs and layers are judged"
    try:
        sidecar = read_sidecar(request.artifacts / name)
    except ArtifactError:
        return ""  # a failure of its own
    return _made_with_others(sidecar) or _calibrated_with_others(sidecar, request.calibration)


def _made_with_others(sidecar: Sidecar) -> str:
    here = package_versions()
    others = [f"{key} {made}" for key, made in sidecar.versions.items() if here.get(key) != made]
    if not others:
        return ""
    return f"made with {', '.join(others)}: export it again to have its constants compared"


def _calibrated_with_others(sidecar: Sidecar, given: Path | None) -> str:
    used = sidecar.calibration
    if used is None or used.get("source") == "synthetic":
        return ""
    if given is not None and sha256_of(given) == used.get("sha256"):
        return ""
    return f"give the swipes that calibrated it, {used.get('file')}, with --calibration"
