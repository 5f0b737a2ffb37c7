"""Files beside their FP32 graph, layer by layer: facts of the file, whatever device it runs on."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.variants import other_half, variant
from exportgate.errors import ExportGateError
from exportgate.runtime.inputs import encoder_input
from harness.diagnose import stages
from harness.measure import clipping, layers, parity
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from exportgate.runtime.session import Arrays
    from harness.run.files import Files
    from harness.run.nemo import Nemo
    from harness.run.swipes import Swipes
    from harness.run.workers import Workers

    Found = tuple[list[layers.LayerError], list[str]]

LAYER_SWIPES = 24
"""Swipes that are run layer by layer."""
_WORKER = "layers"


class NoBaselineError(ExportGateError, ValueError):
    """A file has no FP32 file to be compared with."""


@dataclass(repr=False)
class LayerErrors:
    """Errors of layers by file."""

    swipes: Swipes
    nemo: Nemo
    files: Files
    workers: Workers
    progress: Callable[[str], None]
    memo: dict[Hashable, Any] = field(default_factory=dict)

    @once
    def of(self, name: str) -> Found:
        """Compare an ONNX file's layers with its FP32 file's; name the layers that it lacks.

        Of a .pte the weights are compared with the checkpoint's.

        Raises:
            NoBaselineError: It has no FP32 file beside it.
        """
        sidecar, row = self.files.sidecar(name), variant(name)
        if row.format == "pte":
            smoothed = sidecar.calibration is not None
            weights = self.nemo.pte_weights(sidecar)
            found = layers.weight_errors(
                self.files.path(name), weights, smoothed=smoothed, precision=row.precision
            )
            return found, []
        baseline = row.baseline
        if baseline is None:
            msg = f"{name} has no FP32 file to be compared with layer by layer"
            raise NoBaselineError(msg)
        self.files.sidecar(baseline)
        feeds = self.files.own_feeds(baseline, self._feeds(name))
        return self._against(name, self.files.path(baseline), feeds)

    @once
    def clipping(self, name: str) -> Sequence[clipping.Clipping]:
        """Say what each static quantizer of an ONNX file clips, over all swipes."""
        if variant(name).graph == "encoder":
            feeds: Sequence[Arrays] = [encoder_input(item) for item in self.swipes.features()]
        else:
            feeds = self._feeds(name)
        path, worker = self.files.path(name), self.workers.get(_WORKER)
        found: Sequence[clipping.Clipping] = worker.call(
            clipping.clipping, path, self.files.own_feeds(name, feeds)
        )
        return found

    @once
    def first_bad(self, name: str) -> str:
        """Say at which layer a file leaves a fresh FP32 export of the checkpoint.

        Only failing files pay for it (seconds). Empty for what has no layers to look into.
        """
        row = variant(name)
        if row.format == "pte" and self.files.is_third_party(name):
            return ""
        if other_half(row) is not None:
            return ""  # run with the other half: which of both is off, their constants say
        self.progress(f"{name}: look for the first bad layer")
        try:
            found, _ = self._to_localize(name)
        except ExportGateError as error:
            return f"layers cannot be compared: {error}"
        return layers.sentence(layers.first_bad(found, row.precision))

    def _to_localize(self, name: str) -> Found:
        row = variant(name)
        # Somebody else's layers have other names than a fresh export's, but those of his FP32 file.
        if row.format == "pte" or (self.files.is_third_party(name) and row.baseline):
            return self.of(name)
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / "fp32.onnx"
            fresh.write_bytes(self.nemo.fresh_onnx(row.graph))
            return self._against(name, fresh, self._feeds(name))

    def _feeds(self, name: str) -> Sequence[Arrays]:
        if variant(name).graph == "encoder":
            return [encoder_input(f) for f in parity.spread(self.swipes.features(), LAYER_SWIPES)]
        rollouts = self.nemo.reference().rollouts
        return [feed for rollout in rollouts for feed in stages.rollout_feeds(rollout)]

    def _against(self, name: str, baseline: Path, baseline_feeds: Sequence[Arrays]) -> Found:
        feeds = self.files.own_feeds(name, self._feeds(name))
        return self.workers.get(_WORKER).call(
            layers.layer_errors,
            self.files.path(name),
            baseline,
            variant(name).precision,
            feeds,
            baseline_feeds,
        )
