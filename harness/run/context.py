"""The run context: one request, and everything that the suites judge about it, by artifact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.run.files import Files
from harness.run.layer_errors import LayerErrors
from harness.run.nemo import Nemo
from harness.run.outputs import Outputs
from harness.run.sessions import Sessions
from harness.run.swipes import Swipes
from harness.run.timing import Timing
from harness.run.words import Words
from harness.run.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.run.request import Request


@dataclass(repr=False)
class RunContext:
    """What is known about a request, computed when it is first asked for.

    Neither it nor its parts print what they know (``repr=False``): pytest shows the arguments of a
    test that failed, and to write out all swipes and outputs takes it 18 s for each.

    Attributes:
        request: What was asked.
        progress: Called with a line for whoever watches.
        swipes: The manifest.
        nemo: The checkpoint, and NeMo's outputs.
        files: Exports and what is inside them.
        sessions: Files opened on the device.
        outputs: What they give there, beside NeMo's outputs.
        layers: Files beside their FP32 graph, layer by layer.
        words: Decoded words.
        timing: What files take.
    """

    request: Request
    progress: Callable[[str], None]
    workers: Workers = field(default_factory=Workers)
    swipes: Swipes = field(init=False)
    nemo: Nemo = field(init=False)
    files: Files = field(init=False)
    sessions: Sessions = field(init=False)
    outputs: Outputs = field(init=False)
    layers: LayerErrors = field(init=False)
    words: Words = field(init=False)
    timing: Timing = field(init=False)

    def __post_init__(self) -> None:
        """Put the parts together; none of them works yet."""
        request, workers, say = self.request, self.workers, self.progress
        self.swipes = Swipes(request)
        self.nemo = Nemo(request, self.swipes, workers, say)
        self.files = Files(request, workers, say)
        self._depend()

    def share(self, other: RunContext) -> None:
        """Take NeMo and its outputs over from another run of the same checkpoint and swipes."""
        self.swipes, self.nemo = other.swipes, other.nemo
        self._depend()

    def close(self) -> None:
        """End the workers of this run."""
        self.workers.close()

    def _depend(self) -> None:
        request, workers, say = self.request, self.workers, self.progress
        swipes, nemo, files = self.swipes, self.nemo, self.files
        self.sessions = Sessions(request, files, workers)
        self.outputs = Outputs(request, swipes, nemo, self.sessions, say)
        self.layers = LayerErrors(swipes, nemo, files, workers, say)
        self.words = Words(request, swipes, nemo, self.outputs, self.sessions, say)
        self.timing = Timing(request, swipes, files, self.sessions, workers)
