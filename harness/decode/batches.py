"""Many swipes at once where a format has a batch axis: like lengths together, order kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from harness.decode.greedy import greedy_together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Session
    from exportgate.transducer import Transducer
    from harness.decode.greedy import Hypothesis

ENCODER_BATCH = 16
DECODER_BATCH = 64


def has_batch_axis(session: Session) -> bool:
    """Tell whether a session takes several swipes (or symbols) at once."""
    return session.contract.inputs[0].shape[0] != 1


def encode_all(
    encoder: Session,
    features: Sequence[NDArray[np.float32]],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[NDArray[np.float32]]:
    """Return (D, T') valid frames for each swipe, swipes of like lengths together.

    Args:
        encoder: Session of an encoder.
        features: (F, T) for each swipe.
        progress: Called with the number of swipes done and their total.
    """
    size = ENCODER_BATCH if has_batch_axis(encoder) else 1
    order = sorted(range(len(features)), key=lambda index: features[index].shape[1])
    encoded: dict[int, NDArray[np.float32]] = {}
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        outputs = encoder.run(_padded([features[row] for row in rows]))
        lengths = outputs["encoded_lengths"].reshape(-1)
        for place, row in enumerate(rows):
            encoded[row] = np.array(outputs["encoded_bdt"][place, :, : int(lengths[place])])
        progress(len(encoded), len(features))
    return [encoded[index] for index in range(len(features))]


def greedy_batched(
    step: Session,
    encoded: Sequence[NDArray[np.float32]],
    spec: ModelSpec,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    rules: Transducer | None = None,
) -> list[Hypothesis]:
    """Decode swipes greedily; one step call for many of them, each at its own frame.

    Equal to ``greedy.greedy_decode`` of each alone, up to the last bits of the step's sums. Not for
    a step with dynamic quantization: it has one scale for all of a batch.

    Raises:
        DecodeError: The step gives NaN, or logits of another shape than (K, V).
    """
    size = DECODER_BATCH if has_batch_axis(step) else 1
    # Longest first: a batch's swipes end at about the same time.
    order = sorted(range(len(encoded)), key=lambda index: -encoded[index].shape[1])
    found: dict[int, Hypothesis] = {}
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        batch = greedy_together(step, [encoded[row] for row in rows], spec, rules)
        found.update(zip(rows, batch, strict=True))
        progress(len(found), len(encoded))
    return [found[index] for index in range(len(encoded))]


def _padded(features: Sequence[NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    lengths = np.array([item.shape[1] for item in features], np.int64)
    batch = np.zeros((len(features), features[0].shape[0], int(lengths.max())), np.float32)
    for row, item in zip(batch, features, strict=True):
        row[:, : item.shape[1]] = item
    return {"features_bft": batch, "lengths": lengths}
