"""Run what was just exported beside NeMo: the figure that closes an exporter's table.

A look, not a verdict: the harness judges in other processes, on more swipes. But an export that is
broken here is not worth writing, so INT8 below the level ``broken_db`` is refused.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.nemo.sessions import NemoStep
from exporters.quantize.step_calibration import nemo_encoding
from exportgate.contract import LOG_PROBS
from exportgate.decibel import ratio_db
from exportgate.runtime.canonical import canonical
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.split import open_halves, open_methods, other_half_path
from exportgate.transducer import Transducer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.variants import Variant
    from exportgate.artifacts.sidecar import Program
    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Session

SWIPES = 8
"""Swipes that are run; the figure is stable to about 1 dB with so few."""


def sqnr_db(
    row: Variant,
    program: Program,
    checkpoint: Checkpoint,
    features: Sequence[NDArray[np.float32]],
    other_half: Program | None = None,
) -> float:
    """Return the signal-to-noise of a program against NeMo's FP32, in dB.

    Args:
        row: The program's variant.
        program: What was exported; it is run from a temporary file.
        checkpoint: The model.
        features: (F, T) for each swipe; a few, spread evenly, are run.
        other_half: What half a step is run with.
    """
    take = min(SWIPES, len(features))
    chosen = [features[index * len(features) // take] for index in range(take)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / row.name
        path.write_bytes(program.payload)
        session = _opened(row, path, program, checkpoint.spec, other_half)
        compared = _encoder_pairs if row.graph == "encoder" else _step_pairs
        pairs = compared(session, checkpoint, chosen)
    signal = sum(float((wanted.astype(np.float64) ** 2).sum()) for wanted, _ in pairs)
    noise = sum(float(((wanted.astype(np.float64) - got) ** 2).sum()) for wanted, got in pairs)
    return ratio_db(signal, noise)


def _opened(
    row: Variant, path: Path, program: Program, spec: ModelSpec, other_half: Program | None
) -> Session:
    if other_half is not None:
        beside = other_half_path(path)
        beside.write_bytes(other_half.payload)
        return open_halves(path, beside)
    if path.suffix == ".onnx":
        return canonical(OrtSession(path))
    with _native_chatter_kept_back():
        if row.interface.part == "split":
            return open_methods(path, spec)
        return canonical(PteSession(path, program.contract))


@contextlib.contextmanager
def _native_chatter_kept_back() -> Iterator[None]:
    """Show what native code writes to the terminal only if it fails."""
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)


def _encoder_pairs(
    session: Session, checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    pairs = []
    for item in features:
        wanted = nemo_encoding(checkpoint, item).numpy()
        lengths = np.array([item.shape[1]], np.int64)
        outputs = session.run(
            {"features_bft": np.ascontiguousarray(item[None]), "lengths": lengths}
        )
        pairs.append((wanted, outputs["encoded_bdt"][0, :, : wanted.shape[1]]))
    return pairs


def _step_pairs(
    session: Session, checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Feed both sides the same frames and labels, each its own states."""
    spec, nemo = checkpoint.spec, NemoStep(checkpoint)
    log_probs = session.contract.outputs[0].name == LOG_PROBS
    pairs = []
    for number, item in enumerate(features):
        frames = nemo_encoding(checkpoint, item).T[:, None].contiguous().numpy()
        state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
        ours, theirs = (state, state), (state, state)
        label = np.array([Transducer.of(spec).start], np.int64)
        for index, frame in enumerate(frames):
            found = session.run({"y_prev": label, "h0": ours[0], "c0": ours[1], "enc_t": frame})
            wanted = nemo.run({"y_prev": label, "h0": theirs[0], "c0": theirs[1], "enc_t": frame})
            logits = wanted["logits"].astype(np.float64)
            if log_probs:
                logits = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            pairs.append((logits, found["logits"]))
            ours = (np.array(found["h1"]), np.array(found["c1"]))
            theirs = (wanted["h1"], wanted["c1"])
            label = np.array([(number + index) % len(spec.labels)], np.int64)
    return pairs
