"""The swipes that a run judges with, and their features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.data.features import featurize
from exportgate.data.manifest import Manifest, Swipe, load_manifest, read_manifest
from exportgate.data.manifest_facts import ManifestFacts, manifest_facts, shared_lines, too_long
from exportgate.errors import ExportGateError
from harness.devices.device import swipes_max
from harness.measure import parity
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from harness.run.request import Request


class SwipesError(ExportGateError, ValueError):
    """The manifest's swipes cannot be judged with."""


@dataclass(repr=False)
class Swipes:
    """The manifest of a request."""

    request: Request
    memo: dict[Hashable, Any] = field(default_factory=dict)

    @once
    def all(self) -> list[Swipe]:
        """Return the swipes that files are run on, in the manifest's order.

        All of them, or those that a slow device takes.
        """
        swipes, most = self.whole(), swipes_max(self.request.device)
        return parity.spread(swipes, most) if most else swipes

    @once
    def whole(self) -> list[Swipe]:
        """Return the manifest's swipes, in order.

        Raises:
            SwipesError: A swipe is longer than the bound.
        """
        bound = self.request.max_trace_len
        swipes = list(self.manifest().swipes)
        if long := too_long(swipes, bound):
            msg = (
                f"{self.request.manifest}:{long[0].line}: {len(long[0].points)} points, more than "
                f"the {bound} that the exports take ({len(long)} swipes are longer); raise "
                "--max-trace-len"
            )
            raise SwipesError(msg)
        return swipes

    @once
    def manifest(self) -> Manifest:
        """Return the manifest as it was read, with what was mended in it."""
        return load_manifest(self.request.manifest)

    def facts(self, labels: Sequence[str]) -> ManifestFacts:
        """Return what the manifest consists of, for a vocabulary."""
        return manifest_facts(self.whole(), labels)

    @once
    def shared_with_calibration(self) -> list[tuple[int, int]]:
        """Return the lines of swipes that stand in the manifest and in the calibration file."""
        if self.request.calibration is None:
            return []
        return shared_lines(self.whole(), read_manifest(self.request.calibration))

    @once
    def features(self) -> list[NDArray[np.float32]]:
        """Return (F, T) for each swipe."""
        return [np.ascontiguousarray(featurize(swipe.points).T) for swipe in self.all()]
