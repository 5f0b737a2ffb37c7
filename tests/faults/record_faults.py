"""Faults of everything around a graph: files, sidecars, manifests, checkpoints, .pte bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.contents.pte_file import _Container
from exportgate.artifacts.contents.xnn_graph import XnnGraph
from exportgate.artifacts.sidecar import sidecar_path
from exportgate.data.manifest import Swipe, read_manifest, write_manifest
from harness.gate.gates_file import GATES_SCHEMA
from tests.faults.fault import REFUSED, Fault
from tests.faults.run import CHECKPOINT, GOLDEN, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.faults.run import Workspace

    Injection = Callable[[Workspace], None]

ENCODER, STEP = "encoder_fp32.onnx", "step_fp32.onnx"
INT8, FP16, WEB = "encoder_int8.onnx", "encoder_fp16.onnx", "encoder_int8_web.onnx"
ENCODER_PTE, INT8_PTE, STEP_PTE = "encoder_fp32.pte", "encoder_int8.pte", "step_fp32.pte"
OLDER = REPOSITORY / "build" / "golden-checkpoints"


def under_the_name(name: str, other: str, **claims: Any) -> Injection:
    """Ship another variant's bytes under a name."""

    def inject(workspace: Workspace) -> None:
        workspace.rewrite(name, workspace.path(other).read_bytes(), **claims)

    return inject


def without(name: str, *, file: bool = False, sidecar: bool = False) -> Injection:
    def inject(workspace: Workspace) -> None:
        path = workspace.path(name)
        if file:
            path.unlink()
        if sidecar:
            sidecar_path(path).unlink()

    return inject


def damaged(name: str, change: Callable[[bytearray], bytes], *, hidden: bool = True) -> Injection:
    """Change bytes; ``hidden``: the sidecar's hash is made to fit."""

    def inject(workspace: Workspace) -> None:
        data = change(bytearray(workspace.path(name).read_bytes()))
        if hidden:
            workspace.rewrite(name, bytes(data))
        else:
            workspace.path(name).write_bytes(bytes(data))

    return inject


def flipped(data: bytearray, at: float = 0.5) -> bytes:
    data[int(len(data) * at)] ^= 0x40
    return bytes(data)


def crashing(data: bytearray) -> bytes:
    """Break a delegate's header, which ends the process that loads it."""
    where = data.index(b"XH00")
    data[where : where + 64] = b"\xff" * 64
    return bytes(data)


def weights_flipped(data: bytearray) -> bytes:
    """Flip an exponent's bit in one of a hundred weights of the last fifth."""
    start = int(len(data) * 0.8) // 4 * 4
    for where in range(start + 3, len(data) - 4096, 400):
        data[where] ^= 0x01
    return bytes(data)


def forged(name: str, **claims: Any) -> Injection:
    return lambda workspace: workspace.forge(name, **claims)


def forged_model(name: str, **claims: Any) -> Injection:
    """Change what a sidecar says of the model."""

    def inject(workspace: Workspace) -> None:
        path = sidecar_path(workspace.path(name))
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        workspace.forge(name, model={**model, **claims})

    return inject


def judged_with(change: Callable[[list[Swipe]], list[Swipe]]) -> Injection:
    """Judge with other swipes."""

    def inject(workspace: Workspace) -> None:
        swipes = change(read_manifest(workspace.manifest))
        workspace.manifest = workspace.folder.parent / "swipes.jsonl"
        if swipes:
            write_manifest(workspace.manifest, swipes)
        else:
            workspace.manifest.write_text("", encoding="utf-8")

    return inject


def with_points(change: Callable[[np.ndarray], np.ndarray], count: int) -> Injection:
    """Judge with the first swipes, their points changed."""
    return judged_with(lambda all_: [replace(s, points=change(s.points)) for s in all_[:count]])


def words_exchanged(swipes: Sequence[Swipe]) -> list[Swipe]:
    first = swipes[:110]
    return [replace(a, word=b.word) for a, b in zip(first, [*first[1:], first[0]], strict=True)]


def stretched(points: np.ndarray) -> np.ndarray:
    """Repeat points until a trace is longer than any export takes."""
    repeated = np.repeat(points, 8, axis=0)
    repeated[:, 2] = np.arange(len(repeated))
    return repeated


def coarse_times(points: np.ndarray) -> np.ndarray:
    """Round times to the second."""
    return np.column_stack([points[:, :2], points[:, 2] // 1000])


@cache
def loaded(path: Path) -> Any:
    from exporters.nemo.checkpoint import load_checkpoint

    return load_checkpoint(path)


def exported(name: str, checkpoint: Callable[[], Path], **options: Any) -> Injection:
    """Export a file with other options, under the sidecar of the right one."""

    def inject(workspace: Workspace) -> None:
        from exporters.ort.to_onnx import encoder_to_onnx

        settings = {
            "precision": "fp32", "calibration": None, "max_trace_len": 200, "flavour": "standard",
        }  # fmt: skip
        made = {key: value() if callable(value) else value for key, value in options.items()}
        program = encoder_to_onnx(loaded(checkpoint()), **{**settings, **made})
        workspace.rewrite(name, program.payload)

    return inject


def golden() -> Path:
    return CHECKPOINT


def previous() -> Path:
    """Return an earlier checkpoint of the same training, or the golden one with other weights."""
    found = sorted(OLDER.glob("step-*.nemo"))
    if found:
        return found[-2]
    return perturbed_checkpoint()


@cache
def perturbed_checkpoint() -> Path:
    import tempfile
    from pathlib import Path

    import torch

    model = loaded(CHECKPOINT).model
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(0)
    changed = {
        name: value + 0.02 * value.abs().mean() * torch.randn_like(value)
        if value.is_floating_point()
        else value
        for name, value in state.items()
    }
    path = Path(tempfile.mkdtemp()) / "previous.nemo"
    model.load_state_dict(changed)
    model.save_to(str(path))
    model.load_state_dict(state)
    return path


def noise() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((37, 60)).astype(np.float32) for _ in range(16)]


def truncated_checkpoint(workspace: Workspace) -> None:
    workspace.checkpoint = workspace.folder.parent / "cut.nemo"
    workspace.checkpoint.write_bytes(CHECKPOINT.read_bytes()[:1_000_000])


def unknown_gate(workspace: Workspace) -> None:
    path = workspace.folder.parent / "mine.toml"
    path.write_text(f'schema = {GATES_SCHEMA}\n["{STEP}"]\nsqnr_min = 40\n', encoding="utf-8")
    workspace.args = ("--gates", str(path))


def gate_without_metric(workspace: Workspace) -> None:
    path = workspace.folder.parent / "mine.toml"
    path.write_text(f'schema = {GATES_SCHEMA}\n["{STEP}"]\nspeedup_min = 1\n', encoding="utf-8")
    workspace.args = ("--gates", str(path))


def portable_program(workspace: Workspace) -> None:
    """Lower a step without XNNPACK, and claim that every node is delegated."""
    import torch
    from executorch.exir import to_edge

    from exporters.graphs.step import StepGraph, example_step_inputs

    checkpoint = loaded(CHECKPOINT)
    program = torch.export.export(
        StepGraph(checkpoint.model).eval(), example_step_inputs(checkpoint.spec, batch=1)
    )
    payload = to_edge(program).to_executorch().buffer
    ratios = {"node_ratio": 1.0, "compute_ratio": 1.0, "mac_ratio": 1.0}
    workspace.rewrite(INT8_PTE, payload, lowering=ratios)


def scale_off(data: bytearray) -> bytes:
    """Make a channel of one INT8 layer in the middle of a .pte 5 % too loud."""
    container = _Container.parse(bytes(data))
    graph = XnnGraph.parse(next(container.xnnpack_payloads()))
    named = {
        entry["key"]: container.segments[entry["segment_index"]] for entry in container.named()
    }
    scales = [q["scale_buffer_idx"] for _, q in graph.tensors() if q.get("scale_buffer_idx")]
    before = graph.stored(scales[len(scales) // 2], named)
    after = np.frombuffer(before, np.float32).copy()
    after[11] *= 1.05
    return bytes(data).replace(before, after.tobytes())


def fault(name: str, row: int | None, what: str, gate: str, inject: Injection) -> Fault:
    """Return a fault whose only judged file is the gate's artifact."""
    artifact = gate.split(maxsplit=1)[0]
    judged = STEP if artifact == "checkpoint" else artifact
    return Fault(name, row, what, (judged,), gate, inject)


STALE_SPEC = {"version": "swipe37-0", "sha256": "0" * 64}

RECORD_FAULTS = (
    fault("weights of an earlier checkpoint", None, "under the sidecar of this one",
          f"{ENCODER} max_error_ratio_max", exported(ENCODER, previous)),
    fault("sidecar of an earlier checkpoint", None, "its SHA-256 is another's",
          f"{ENCODER} provenance_mismatches_max", forged(ENCODER, checkpoint_sha256="0" * 64)),
    fault("bound too short", 8, "exported for 100 points, 200 promised",
          f"{ENCODER} shape_failures_max", exported(ENCODER, golden, max_trace_len=100)),
    fault("bound not kept", 8, "exported for 400 points, 200 promised",
          f"{ENCODER} overlong_accepted_max", exported(ENCODER, golden, max_trace_len=400)),
    fault("calibrated on noise", 14, "randn instead of swipes", f"{INT8} clip_noise_ratio_max",
          exported(INT8, golden, precision="int8", calibration=noise)),
    fault("FP32 under an INT8 name", 10, "a fallback without a word",
          f"{INT8} int8_matrix_share_min", under_the_name(INT8, ENCODER)),
    fault("fallback admitted by the sidecar", 10, "INT8 name, precision fp32",
          f"{INT8} provenance_mismatches_max", forged(INT8, precision="fp32")),
    fault("FP32 under an FP16 name", 13, "the conversion was skipped",
          f"{FP16} weight_bytes_ratio_max", under_the_name(FP16, ENCODER)),
    fault("FP16 file missing", 13, "skipped with a warning", f"{FP16} contract_mismatches_max",
          without(FP16, file=True, sidecar=True)),
    fault("optimised file is the plain one", 16, "the same bytes under two names",
          f"{WEB} identical_files_max", under_the_name(WEB, INT8)),
    fault("INT8 is FP32 under two names", 16, "byte for byte the baseline",
          f"{INT8} identical_files_max", under_the_name(INT8, ENCODER)),
    fault("file missing", 20, "the sidecar is there", f"{STEP} contract_mismatches_max",
          without(STEP, file=True)),
    fault("sidecar missing", 20, "the file is there", f"{STEP} contract_mismatches_max",
          without(STEP, sidecar=True)),
    fault("baseline damaged", 20, "the FP32 file to compare with is cut off", f"{INT8} speedup_min",
          damaged(ENCODER, lambda data: bytes(data[: len(data) // 2]))),
    fault("gate that no suite measures", 20, "for this file", f"{STEP} speedup_min",
          gate_without_metric),
    Fault("gate with an unknown metric", 20, "a typing error in gates.toml", (STEP,), REFUSED,
          unknown_gate, also="unknown key"),
    fault("another feature specification", 21, "the export's features are not ours",
          f"{ENCODER} provenance_mismatches_max", forged(ENCODER, feature_spec=STALE_SPEC)),
    fault("calibrated with other features", 21, "by the sidecar's own word",
          f"{INT8} provenance_mismatches_max",
          forged(INT8, calibration={"feature_spec": STALE_SPEC})),
    Fault("times in seconds", 21, "the app rounds them", (STEP,), REFUSED,
          with_points(coarse_times, 110), also="expected milliseconds"),
    fault("keyboard upside down", 21, "y grows upwards", "checkpoint accuracy_over_chance_min",
          with_points(lambda p: p * [1, -1, 1] + [0, 1, 0], 110)),
    fault("words exchanged", 21, "each swipe has its neighbour's",
          "checkpoint accuracy_over_chance_min", judged_with(words_exchanged)),
    fault("ten swipes", 20, "too few to tell anything", "checkpoint distinct_swipes_min",
          judged_with(lambda swipes: swipes[:10])),
    Fault("no swipe", 20, "an empty manifest", (STEP,), REFUSED, judged_with(lambda _: []),
          also="no swipes"),
    Fault("all swipes too long", 20, "for the exports' bound", (STEP,), REFUSED,
          with_points(stretched, 110), also="more than the 200"),
    fault("one length only", 9, "full-length examples", f"{ENCODER} length_buckets_min",
          judged_with(lambda all_: [s for s in all_ if 65 <= len(s.points) <= 96] * 2)),
    fault("vocabulary permuted", 1, "in the sidecar, which ports read",
          f"{STEP} provenance_mismatches_max",
          forged_model(STEP, labels=[*"zyxwvutsrqponmlkjihgfedcba"])),
    fault("max_symbols of another decoder", 3, "in the sidecar",
          f"{STEP} provenance_mismatches_max", forged_model(STEP, max_symbols=1)),
    Fault("checkpoint cut off", 7, "after a megabyte", (STEP,), REFUSED,
          truncated_checkpoint, also="not a readable .nemo archive"),
    fault("ONNX cut off", 24, "after half", f"{STEP} contract_mismatches_max",
          damaged(STEP, lambda data: bytes(data[: len(data) // 2]))),
    fault(".pte cut off", 24, "after 5000 bytes", f"{STEP_PTE} contract_mismatches_max",
          damaged(STEP_PTE, lambda data: bytes(data[:5000]))),
    fault(".pte empty", 24, "no bytes at all", f"{STEP_PTE} contract_mismatches_max",
          damaged(STEP_PTE, lambda _: b"")),
    fault(".pte that crashes", 24, "its delegate ends the process",
          f"{STEP_PTE} contract_mismatches_max", damaged(STEP_PTE, crashing)),
    fault(".pte with a flipped bit", 24, "the sidecar has the right hash",
          f"{STEP_PTE} contract_mismatches_max", damaged(STEP_PTE, flipped, hidden=False)),
    fault(".pte with other weights", 22, "bits flipped, the hash made to fit",
          f"{STEP_PTE} max_error_ratio_max", damaged(STEP_PTE, weights_flipped)),
    fault("INT8 .pte channel scale 5 % off", 22, "one row of one layer's weights",
          f"{INT8_PTE} layer_gain_excess_max", damaged(INT8_PTE, scale_off)),
    fault(".pte of the other graph", 24, "the encoder's bytes under the step's name",
          f"{STEP_PTE} contract_mismatches_max", under_the_name(STEP_PTE, ENCODER_PTE)),
    fault("INT8 .pte that is FP32", 10, "inside", f"{INT8_PTE} int8_matrix_share_min",
          under_the_name(INT8_PTE, ENCODER_PTE)),
    fault("nothing delegated", 12, "portable kernels, and a ratio of 1.0 in the sidecar",
          f"{INT8_PTE} delegates_min", portable_program),
    fault("delegation not counted", 12, "the sidecar has no ratios",
          f"{INT8_PTE} delegated_compute_ratio_min", forged(INT8_PTE, lowering={})),
)  # fmt: skip

__all__ = ["GOLDEN", "RECORD_FAULTS"]
