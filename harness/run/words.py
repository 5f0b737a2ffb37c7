"""Words that files give: greedily, in a lexicon and free, beside the words that were meant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporters.variants import variant
from harness.decode import beam, greedy
from harness.decode.accuracy import Outcome
from harness.decode.changed import changed_words
from harness.decode.lexicon import Lexicon, open_lexicon
from harness.decode.spelling import can_spell, has_capitals
from harness.measure import parity
from harness.run.files import step_for
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from harness.run.nemo import Nemo
    from harness.run.outputs import Outputs
    from harness.run.request import Request
    from harness.run.sessions import Sessions
    from harness.run.swipes import Swipes

SEARCH_STRIDE = {("onnx", False): 1, ("onnx", True): 4, ("pte", False): 4, ("pte", True): 8}
"""Every how-many-th swipe is searched, by format and freedom: a .pte step takes no batch."""


@dataclass(repr=False)
class Words:
    """Decoded words by file.

    Attributes:
        decode: Greedy decoder, called in a step's worker; those who inject faults exchange it.
    """

    request: Request
    swipes: Swipes
    nemo: Nemo
    outputs: Outputs
    sessions: Sessions
    progress: Callable[[str], None]
    decode: Callable[..., list[greedy.Hypothesis]] = greedy.greedy_decode_all
    memo: dict[Hashable, Any] = field(default_factory=dict)

    @once
    def meant(self) -> list[str]:
        """Return the words as the vocabulary can spell them.

        A gesture has no case: where the vocabulary has no capital letters, words are lower-cased.
        A word that still has a letter outside the vocabulary stays, and counts as decoded wrong:
        the model cannot write it.
        """
        lower = not has_capitals(self.nemo.spec.labels)
        return [swipe.word.lower() if lower else swipe.word for swipe in self.swipes.all()]

    @once
    def unspellable(self) -> list[str]:
        """Return the words that no sequence of labels spells."""
        labels = self.nemo.spec.labels
        return sorted({word for word in self.meant() if not can_spell(word, labels)})

    @once
    def nemo_accuracy(self) -> float:
        """Return the share of words that NeMo decodes right."""
        return self._share_right(self.nemo.reference().hypotheses)

    @once
    def hypotheses(self, name: str) -> list[greedy.Hypothesis]:
        """Decode all swipes: an encoder with its FP32 step, a step on NeMo's encodings."""
        encoded, step = self._encodings(name)
        self.progress(f"{name}: decode {len(encoded)} swipes")
        return self.sessions.call(step, self.decode, list(encoded), self.nemo.spec)

    @once
    def accuracy(self, name: str) -> float:
        """Return the share of words decoded right."""
        return self._share_right(self.hypotheses(name))

    def outcomes(self, hypotheses: Sequence[greedy.Hypothesis]) -> list[Outcome]:
        """Return greedy hypotheses of all swipes beside the words."""
        labels = self.nemo.spec.labels
        return [
            Outcome(word, (hypothesis.text(labels),))
            for word, hypothesis in zip(self.meant(), hypotheses, strict=True)
        ]

    def changed(self, name: str) -> list[dict[str, Any]]:
        """Return the swipes that a file decodes otherwise than NeMo, see ``changed_words``."""
        nemo = self.nemo.reference().hypotheses
        return changed_words(self.swipes.all(), nemo, self.hypotheses(name), self.nemo.spec)

    @once
    def margin_error(self, name: str, index: int) -> float:
        """Return by how many nats a file moves the lead of a symbol over another, on a swipe."""
        if variant(name).graph == "encoder":
            return self.nemo.margin_error(index, self.outputs.encoder(name).encoded[index])
        calls = [self.nemo.rollout(index)]
        found = self.sessions.call(name, parity.compare_rollouts, calls)
        return 2 * found.logits.max_abs_error

    @once
    def lexicon(self) -> Lexicon:
        """Return the words that a search may find."""
        cache = self.request.workdir / "cache"
        return open_lexicon(self.nemo.spec.labels, self.request.lexicon, cache)

    def searched(self, name: str, *, free: bool = False) -> list[int]:
        """Return the places of the swipes that are searched with a file's runtime."""
        stride = SEARCH_STRIDE[variant(name).format, free]
        return list(range(0, len(self.swipes.all()), stride))

    @once
    def searches(self, name: str, *, free: bool = False) -> list[Outcome]:
        """Search the beam for every ``searched`` swipe, in the lexicon or free."""
        spec, rows = self.nemo.spec, self.searched(name, free=free)
        encoded, step = self._encodings(name)
        lexicon = None if free else self.lexicon()
        self.progress(f"{name}: search {len(rows)} swipes {'freely' if free else 'for words'}")
        some = [encoded[index] for index in rows]
        found = self.sessions.call(step, beam.beam_search_all, some, spec, lexicon)
        words = self.meant()
        return [
            Outcome(words[index], tuple(item.text(spec.labels) for item in items))
            for index, items in zip(rows, found, strict=True)
        ]

    def _encodings(self, name: str) -> tuple[Sequence[NDArray[np.float32]], str]:
        """Return the encodings that a file's words come from, and the step that decodes them."""
        if variant(name).graph == "encoder":
            return self.outputs.encoder(name).encoded, step_for(name)
        return self.nemo.reference().encoded, name

    def _share_right(self, hypotheses: Sequence[greedy.Hypothesis]) -> float:
        outcomes = self.outcomes(hypotheses)
        return sum(outcome.right for outcome in outcomes) / len(outcomes)
