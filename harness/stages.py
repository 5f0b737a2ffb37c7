"""What runs in workers when a bad artifact is diagnosed: each stage of an export by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exporters.checkpoint import Checkpoint
    from exporters.variants import Graph
    from harness.reference import Rollout
    from harness.session import Arrays, Session

    Outputs = list[NDArray[np.float32]]


def fresh_onnx(checkpoint: Checkpoint, graph: Graph, max_trace_len: int) -> bytes:
    """Export a graph of a checkpoint to ONNX in FP32, in the worker that holds it."""
    from exporters import to_onnx  # noqa: PLC0415 - loads torch

    if graph == "step":
        return to_onnx.step_to_onnx(checkpoint, precision="fp32").payload
    return to_onnx.encoder_to_onnx(
        checkpoint,
        precision="fp32",
        calibration=None,
        max_trace_len=max_trace_len,
        flavour="standard",
    ).payload


def rewritten(
    checkpoint: Checkpoint, suffix: str, feeds: Sequence[Arrays], max_trace_len: int
) -> Outputs:
    """Run the rewritten graph of a format eagerly, in the worker that holds the checkpoint."""
    import torch  # noqa: PLC0415 - the parent process does without

    from exporters import rewrite_onnx, rewrite_xnnpack, step_graph  # noqa: PLC0415 - loads torch

    names = list(feeds[0])
    if "enc_t" in names:
        module: torch.nn.Module = step_graph.StepGraph(checkpoint.model)
    elif suffix == ".onnx":
        module = rewrite_onnx.LeanEncoder(checkpoint.model.encoder, max_trace_len=max_trace_len)
    else:
        module = rewrite_xnnpack.rewrite_encoder(
            checkpoint.model.encoder, max_trace_len=max_trace_len
        )
    outputs = []
    with torch.inference_mode():
        for feed in feeds:
            result = module(*(torch.from_numpy(feed[name]) for name in names))
            first = result[0]
            outputs.append(
                np.array(first[..., : int(result[1][0])] if "lengths" in names else first)
            )
    return outputs


def run_all(opened: Session, feeds: Sequence[Arrays]) -> Outputs:
    """Run a file on single inputs; return the encoder's valid frames, or the step's logits."""
    outputs = []
    for feed in feeds:
        found = opened.run(feed)
        if "encoded_bdt" in found:
            valid = int(found["encoded_lengths"].reshape(-1)[0])
            outputs.append(np.array(found["encoded_bdt"][..., :valid]))
        else:
            outputs.append(np.array(found["logits"]))
    return outputs


def rollout_feeds(rollout: Rollout) -> list[dict[str, NDArray[Any]]]:
    """Return the step's inputs along a word, with NeMo's own states."""
    hidden = cell = np.zeros_like(rollout.h1[0][:, None])
    feeds = []
    for index, commit in enumerate(rollout.commit):
        feeds.append(
            {
                "y_prev": rollout.y_prev[index : index + 1],
                "h0": hidden,
                "c0": cell,
                "enc_t": rollout.enc_t[index : index + 1],
            }
        )
        if commit:
            hidden, cell = rollout.h1[index][:, None], rollout.c1[index][:, None]
    return feeds
