"""Run what was just exported beside NeMo: the figure that closes an exporter's table.

A look, not a verdict: the harness judges in other processes, on more swipes. But an export that is
broken here is not worth writing, so INT8 below the level ``broken_db`` is refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from exporters.nemo.sessions import NemoStep
from exporters.quantize.step_calibration import nemo_encoding
from exportgate.transducer import Transducer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.variants import Variant
    from exportgate.artifacts.sidecar import Program

    Run = Callable[[list[NDArray[Any]]], list[NDArray[Any]]]

SWIPES = 8
"""Swipes that are run; the figure is stable to about 1 dB with so few."""
_CEILING_DB = 200.0


def sqnr_db(
    row: Variant, program: Program, checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> float:
    """Return the signal-to-noise of a program against NeMo's FP32, in dB.

    Args:
        row: The program's variant.
        program: What was exported; it is run from a temporary file.
        checkpoint: The model.
        features: (F, T) for each swipe; a few, spread evenly, are run.
    """
    take = min(SWIPES, len(features))
    chosen = [features[index * len(features) // take] for index in range(take)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / row.name
        path.write_bytes(program.payload)
        run = _onnx_runner(path) if row.format == "onnx" else _pte_runner(path)
        pairs = (
            _encoder_pairs(run, checkpoint, chosen)
            if row.graph == "encoder"
            else _step_pairs(run, checkpoint, chosen)
        )
    signal = sum(float((wanted.astype(np.float64) ** 2).sum()) for wanted, _ in pairs)
    noise = sum(float(((wanted.astype(np.float64) - got) ** 2).sum()) for wanted, got in pairs)
    if not math.isfinite(noise):
        return -_CEILING_DB
    return 10 * math.log10(signal / noise) if noise > 0 else _CEILING_DB


def _onnx_runner(path: Path) -> Run:
    import onnxruntime  # noqa: PLC0415 - only ONNX exports pay for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]

    def run(inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        return list(session.run(None, dict(zip(names, inputs, strict=True))))

    return run


def _pte_runner(path: Path) -> Run:
    with _native_chatter_kept_back():
        # Only .pte exports pay for these.
        from executorch.extension.pybindings.portable_lib import (  # noqa: PLC0415
            _unsafe_reset_threadpool,
        )
        from executorch.runtime import Runtime  # noqa: PLC0415

        _unsafe_reset_threadpool(1)  # exports run in parallel, and its idle threads spin
        method = Runtime.get().load_program(path).load_method("forward")

    def run(inputs: list[NDArray[Any]]) -> list[NDArray[Any]]:
        outputs = method.execute([torch.from_numpy(np.ascontiguousarray(i)) for i in inputs])
        return [output.numpy() for output in outputs]

    return run


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
    run: Run, checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    pairs = []
    for item in features:
        wanted = nemo_encoding(checkpoint, item).numpy()
        outputs = run([np.ascontiguousarray(item[None]), np.array([item.shape[1]], np.int64)])
        pairs.append((wanted, outputs[0][0, :, : wanted.shape[1]]))
    return pairs


def _step_pairs(
    run: Run, checkpoint: Checkpoint, features: Sequence[NDArray[np.float32]]
) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Feed both sides the same frames and labels, each its own states."""
    spec, nemo = checkpoint.spec, NemoStep(checkpoint)
    pairs = []
    for number, item in enumerate(features):
        frames = nemo_encoding(checkpoint, item).T[:, None].contiguous().numpy()
        state = np.zeros((spec.pred_layers, 1, spec.pred_hidden), np.float32)
        ours, theirs = (state, state), (state, state)
        label = np.array([Transducer.of(spec).start], np.int64)
        for index, frame in enumerate(frames):
            logits, *ours_next = run([label, *ours, frame])
            wanted = nemo.run({"y_prev": label, "h0": theirs[0], "c0": theirs[1], "enc_t": frame})
            pairs.append((wanted["logits"], logits.reshape(wanted["logits"].shape)))
            ours = (np.array(ours_next[0]), np.array(ours_next[1]))
            theirs = (wanted["h1"], wanted["c1"])
            label = np.array([(number + index) % len(spec.labels)], np.int64)
    return pairs
