"""A session in front of a file of ours that is called otherwise: it takes and gives what ours do.

int64 lengths, ``logits``, any number of hypotheses. What measures and decodes therefore knows one
interface; log-probabilities decode as logits do, because a softmax leaves them as they are. The
``contract`` stays the file's own, which is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.contract import LOG_PROBS
from exportgate.runtime.inputs import as_declared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays, Elapsed, TimedSession

_AXES = {"y_prev": 0, "h0": 1, "c0": 1, "enc_t": 0, "logits": 0, LOG_PROBS: 0, "h1": 1, "c1": 1}
"""Where the batch is, in inputs and outputs of a step."""


def canonical(session: TimedSession) -> TimedSession:
    """Return a session that is called as those of our own files are; itself if it is one."""
    contract = session.contract
    plain = (
        fixed_batch(contract) is None
        and all(spec.name != LOG_PROBS for spec in contract.outputs)
        and all(spec.dtype != "int32" for spec in (*contract.inputs, *contract.outputs))
    )
    return session if plain or isinstance(session, CanonicalSession) else CanonicalSession(session)


def fixed_batch(contract: IoContract) -> int | None:
    """Return the hypotheses that a step takes at once, if they are a number above 1."""
    first = contract.inputs[0] if contract.inputs else None
    size = first.shape[0] if first and first.name == "y_prev" and first.shape else None
    return size if isinstance(size, int) and size > 1 else None


class CanonicalSession:
    """See ``session.TimedSession``."""

    def __init__(self, inner: TimedSession) -> None:
        """Stand in front of a session."""
        self._inner = inner
        self.contract = inner.contract
        self._batch = fixed_batch(self.contract)

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See ``Session.run``."""
        feeds = self._feeds(inputs)
        if self._batch is None:
            return _renamed(self._inner.run(feeds[0]))
        # A runtime may overwrite what it gave at the next call.
        parts = [
            {name: np.array(value) for name, value in self._inner.run(feed).items()}
            for feed in feeds
        ]
        rows = len(inputs["y_prev"])
        whole = {
            name: np.concatenate([part[name] for part in parts], axis=_AXES[name]).take(
                range(rows), axis=_AXES[name]
            )
            for name in parts[0]
        }
        return _renamed(whole)

    def elapsed(self, inputs: Sequence[Arrays], runs: int = 1) -> Elapsed:
        """See ``TimedSession.elapsed``: of the file itself, without what stands in front of it."""
        return self._inner.elapsed([feed for item in inputs for feed in self._feeds(item)], runs)

    def _feeds(self, inputs: Arrays) -> list[dict[str, NDArray[Any]]]:
        """Return what the file is called with, once or several times; missing rows are zeros."""
        given = as_declared(self.contract, inputs)
        size = self._batch
        if size is None or "y_prev" not in given:
            return [given]
        rows = len(given["y_prev"])
        return [
            {name: _cut(value, _AXES.get(name, 0), first, size) for name, value in given.items()}
            for first in range(0, rows, size)
        ]


def _cut(value: NDArray[Any], axis: int, first: int, size: int) -> NDArray[Any]:
    part = value.take(range(first, min(first + size, value.shape[axis])), axis=axis)
    missing = [(0, 0)] * value.ndim
    missing[axis] = (0, size - part.shape[axis])
    return np.ascontiguousarray(np.pad(part, missing))


def _renamed(outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {
        "logits" if name == LOG_PROBS else name: (
            value.astype(np.int64) if value.dtype == np.int32 else value
        )
        for name, value in outputs.items()
    }
