"""What files give on the device of a run, beside NeMo's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.variants import is_quantized, variant
from exportgate.levels import level
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.opening import contract_of
from exportgate.runtime.split import parts_declared
from harness.measure import coverage, outliers, parity
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from numpy.typing import NDArray

    from exportgate.contract import IoContract, Part
    from exportgate.runtime.session import Arrays
    from harness.measure.compare import Comparison
    from harness.run.nemo import Nemo
    from harness.run.request import Request
    from harness.run.sessions import Sessions
    from harness.run.swipes import Swipes

PADDED_SWIPES = 12
"""Swipes that are run with padding, each by another amount."""
BATCHED_SWIPES = 30
"""Swipes that are run in batches of different lengths."""
REPEATED = 16
"""Inputs that are run twice."""


@dataclass(repr=False)
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

    def parts(self, name: str) -> dict[Part, IoContract]:
        """Return what a file's runtime declares of the parts of a step that are called apart."""
        return self.sessions.call(name, parts_declared) if variant(name).interface.part else {}

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
        if variant(name).interface.log_probs:
            rollouts = tuple(rollout.with_log_probs() for rollout in rollouts)
        self.progress(f"{name}: roll out {len(rollouts)} words")
        return self.sessions.call(name, parity.compare_rollouts, rollouts)

    @once
    def padding_noise_ratio(self, name: str) -> float:
        """Return how padding moves valid frames ÷ how far the file is from NeMo."""
        some = parity.spread(self.swipes.features(), PADDED_SWIPES)
        padded = self.sessions.call(name, parity.run_padded, some, self.request.max_trace_len)
        return self._noise_ratio(name, PADDED_SWIPES, padded)

    @once
    def batch_noise_ratio(self, name: str) -> float:
        """Return how other swipes in a batch move frames ÷ how far the file is from NeMo."""
        some = parity.spread(self.swipes.features(), BATCHED_SWIPES)
        batched = self.sessions.call(name, coverage.run_in_batches, some)
        return self._noise_ratio(name, BATCHED_SWIPES, batched)

    def _noise_ratio(
        self, name: str, count: int, otherwise: Sequence[NDArray[np.float32]]
    ) -> float:
        nemo = parity.spread(self.nemo.reference().encoded, count)
        alone = parity.spread(self.encoder(name).encoded, count)
        return coverage.noise_ratio(nemo, alone, otherwise)

    @once
    def unequal_repeats(self, name: str) -> list[str]:
        """Name the outputs that differ between two runs of one input."""
        if variant(name).graph == "encoder":
            some = parity.spread(self.swipes.features(), REPEATED)
            feeds: Sequence[Arrays] = [encoder_input(item) for item in some]
        else:
            drive, _ = self.nemo.labels()
            feeds = [drive.row(index) for index in range(min(REPEATED, len(drive.y_prev)))]
        return self.sessions.call(name, coverage.unequal_repeats, feeds)

    @once
    def labels(self, name: str) -> coverage.LabelErrors:
        """Feed a step every symbol of the vocabulary from real states, beside NeMo's."""
        drive, nemo = self._driven(name)
        self.progress(f"{name}: feed {len(drive.y_prev)} symbols")
        ours = self.label_outputs(name)
        return coverage.label_errors(drive, nemo, ours)

    def _driven(self, name: str) -> tuple[coverage.LabelDrive, coverage.StepOutputs]:
        """Return inputs that feed every symbol, and what NeMo gives of what the file does."""
        drive, nemo = self.nemo.labels()
        return drive, nemo.with_log_probs() if variant(name).interface.log_probs else nemo

    @once
    def step_batch_noise_ratio(self, name: str) -> float:
        """Return how other rows of a batch move a step's outputs ÷ how far it is from NeMo."""
        drive, nemo = self._driven(name)
        alone = self.label_outputs(name)
        together = self.sessions.call(name, coverage.drive_batch, drive)
        return max(
            coverage.noise_ratio([nemo.logits], [alone.logits], [together.logits]),
            coverage.noise_ratio([nemo.states], [alone.states], [together.states]),
        )

    @once
    def label_outputs(self, name: str) -> coverage.StepOutputs:
        """Return what a step gives for every symbol of the vocabulary, from real states."""
        drive, _ = self.nemo.labels()
        return self.sessions.call(name, coverage.drive_labels, drive)

    @once
    def shape_sweep(self, name: str) -> parity.ShapeSweep:
        """Run an encoder at every length up to its bound, and at one beyond it."""
        bound = self.request.max_trace_len
        inputs, references = self.nemo.lengths()
        self.progress(f"{name}: sweep trace lengths 1 to {bound}")
        least = level("worst_length_db", variant(name).precision)
        return self.sessions.call(name, parity.sweep_shapes, inputs, references, bound, least)

    @once
    def farthest_length(self, name: str) -> tuple[int, outliers.Farthest]:
        """Return the trace length whose noise real swipes explain least, and how little.

        Steps of integers are shared: what values beyond all swipes do to them, swipes do not show.
        Their files are judged up to the longest swipe; floating point rounds each value by itself.
        """
        sweep, reference = self.shape_sweep(name), self.nemo.reference().encoded
        longest = max(len(swipe.points) for swipe in self.swipes.all())
        most = longest if is_quantized(variant(name).precision) else max(sweep.lengths)
        judged = np.array(sweep.lengths) <= most
        found = outliers.farthest_length(
            -np.array(sweep.sqnr_db)[judged],
            np.array(sweep.frames)[judged],
            -np.array(self._encoder_comparison(name).sqnr_each_db),
            np.array([item.shape[1] for item in reference]),
        )
        return int(np.array(sweep.lengths)[judged][found.index]), found
