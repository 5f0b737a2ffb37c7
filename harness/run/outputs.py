"""What files give on the device of a run, beside NeMo's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporters.variants import variant
from exportgate.runtime.opening import contract_of
from harness.measure import parity
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from exportgate.contract import IoContract
    from harness.measure.compare import Comparison
    from harness.run.nemo import Nemo
    from harness.run.request import Request
    from harness.run.sessions import Sessions
    from harness.run.swipes import Swipes

PADDED_SWIPES = 12
"""Swipes that are run with padding, each by another amount."""


@dataclass
class Outputs:
    """Runs of encoders and steps, and how far they are from NeMo."""

    request: Request
    swipes: Swipes
    nemo: Nemo
    sessions: Sessions
    progress: Callable[[str], None]
    memo: dict[Hashable, Any] = field(default_factory=dict)

    def contract(self, name: str) -> IoContract:
        """Return what a file's runtime declares."""
        return self.sessions.call(name, contract_of)

    @once
    def encoder(self, name: str) -> parity.EncoderRuns:
        """Run an encoder on every swipe, one at a time."""
        features = self.swipes.features()
        self.progress(f"{name}: run {len(features)} swipes")
        return self.sessions.call(name, parity.run_encoder, features)

    def comparison(self, name: str) -> Comparison:
        """Compare a file with NeMo: an encoder's frames, or a step's logits along whole words."""
        if variant(name).graph == "step":
            return self.rollouts(name).logits
        return self._encoder_comparison(name)

    @once
    def _encoder_comparison(self, name: str) -> Comparison:
        return parity.compare_encodings(self.nemo.reference().encoded, self.encoder(name).encoded)

    @once
    def rollouts(self, name: str) -> parity.StepComparison:
        """Compare a step with NeMo's along whole words, with its own states."""
        rollouts = self.nemo.reference().rollouts
        self.progress(f"{name}: roll out {len(rollouts)} words")
        return self.sessions.call(name, parity.compare_rollouts, rollouts)

    @once
    def padding_error(self, name: str) -> float:
        """Return the largest change of a valid frame caused by padding."""
        some = parity.spread(self.swipes.features(), PADDED_SWIPES)
        padded = self.sessions.call(name, parity.run_padded, some, self.request.max_trace_len)
        alone = parity.spread(list(self.encoder(name).encoded), PADDED_SWIPES)
        return parity.padding_error(alone, padded)

    @once
    def shape_sweep(self, name: str) -> parity.ShapeSweep:
        """Run an encoder at many lengths up to its bound, and one beyond it."""
        bound = self.request.max_trace_len
        self.progress(f"{name}: sweep trace lengths 1 to {bound}")
        inputs = parity.sweep_inputs(self.swipes.features(), bound)
        references = self.nemo.encode(inputs)
        return self.sessions.call(name, parity.sweep_shapes, inputs, references, bound)
