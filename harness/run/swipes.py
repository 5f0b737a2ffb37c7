"""The swipes that a run judges with, and their features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.data.features import featurize
from exportgate.data.manifest import Swipe, read_manifest
from exportgate.errors import ExportGateError
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from harness.run.request import Request


class SwipesError(ExportGateError, ValueError):
    """The manifest's swipes cannot be judged with."""


@dataclass
class Swipes:
    """The manifest of a request."""

    request: Request
    memo: dict[Hashable, Any] = field(default_factory=dict)

    @once
    def all(self) -> list[Swipe]:
        """Return the manifest's swipes, in order.

        Raises:
            SwipesError: A swipe is longer than the bound.
        """
        swipes = read_manifest(self.request.manifest)
        for number, swipe in enumerate(swipes, 1):
            if len(swipe.points) > self.request.max_trace_len:
                msg = (
                    f"{self.request.manifest}:{number}: {len(swipe.points)} points, more than the "
                    f"{self.request.max_trace_len} that the exports take; raise --max-trace-len"
                )
                raise SwipesError(msg)
        return swipes

    @once
    def features(self) -> list[NDArray[np.float32]]:
        """Return (F, T) for each swipe."""
        return [np.ascontiguousarray(featurize(swipe.points).T) for swipe in self.all()]
