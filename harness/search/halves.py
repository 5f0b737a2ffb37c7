"""The swipes that a search may look at, and those that judge what it found."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exportgate.data.features import featurize
from exportgate.errors import ExportGateError
from harness.decode.accuracy import Outcome
from harness.decode.batches import greedy_batched
from harness.decode.spelling import has_capitals
from harness.measure.significance import PairedTest, lost_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exportgate.contract import ModelSpec
    from exportgate.data.manifest import Swipe
    from exportgate.runtime.session import Session
    from harness.decode.greedy import Hypothesis

_LEAST_SWIPES = 40


class HalvesError(ExportGateError, ValueError):
    """Too few swipes to be divided."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a file decodes beside NeMo.

    Attributes:
        test: Words that one side reads right and the other does not.
        different: Swipes that are decoded otherwise.
    """

    test: PairedTest
    different: int

    @property
    def percent(self) -> float:
        """Net words lost, of 100 swipes."""
        return 100 * (self.test.worse - self.test.better) / self.test.swipes


@dataclass(frozen=True, repr=False, eq=False)
class Half:
    """Swipes, and what NeMo makes of them.

    Attributes:
        features: (F, T) for each swipe.
        words: Those that were meant, as the vocabulary spells them.
        nemo: NeMo's greedy decoding of each.
        spec: The model's dimensions and vocabulary.
    """

    features: list[NDArray[np.float32]]
    words: list[str]
    nemo: list[Hypothesis]
    spec: ModelSpec

    def loss(self, step: Session, encoded: Sequence[NDArray[np.float32]]) -> Loss:
        """Decode encodings with a step, and compare with NeMo."""
        ours = greedy_batched(step, encoded, self.spec)
        right = [self._right(side) for side in (ours, self.nemo)]
        pairs = zip(ours, self.nemo, strict=True)
        return Loss(lost_words(*right), sum(a.tokens != b.tokens for a, b in pairs))

    def _right(self, found: Sequence[Hypothesis]) -> list[bool]:
        labels = self.spec.labels
        pairs = zip(self.words, found, strict=True)
        return [Outcome(word, (hypothesis.text(labels),)).right for word, hypothesis in pairs]


def halves(swipes: Sequence[Swipe]) -> tuple[list[Swipe], list[Swipe]]:
    """Divide swipes in two, all of a word on one side, whatever the order of the manifest.

    Raises:
        HalvesError: There are too few.
    """
    order = sorted({s.word for s in swipes}, key=lambda w: hashlib.sha256(w.encode()).digest())
    first = set(order[::2])
    found = [s for s in swipes if s.word in first], [s for s in swipes if s.word not in first]
    if min(map(len, found)) < _LEAST_SWIPES // 2:
        msg = (
            f"{len(swipes)} swipes of {len(order)} words cannot be divided; expected "
            f"{_LEAST_SWIPES} swipes or more, of many words"
        )
        raise HalvesError(msg)
    return found


def prepared(swipes: Sequence[Swipe], encode: Session, step: Session, spec: ModelSpec) -> Half:
    """Compute features of swipes, and NeMo's decoding of them."""
    from harness.decode.batches import encode_all  # noqa: PLC0415 - beside its only use

    lower = not has_capitals(spec.labels)
    features = [np.ascontiguousarray(featurize(swipe.points).T) for swipe in swipes]
    nemo = greedy_batched(step, encode_all(encode, features), spec)
    words = [swipe.word.lower() if lower else swipe.word for swipe in swipes]
    return Half(features, words, nemo, spec)
