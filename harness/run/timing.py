"""What files take on the device of a run, by its own clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.variants import variant
from exportgate.runtime.inputs import as_declared, encoder_input, step_inputs
from harness.devices.device import Need, alone_on, demand
from harness.measure import parity
from harness.measure.paired import paired_round
from harness.run.layer_errors import NoBaselineError

if TYPE_CHECKING:
    from exportgate.runtime.session import Arrays
    from harness.measure.latency import Latency
    from harness.run.files import Files
    from harness.run.request import Request
    from harness.run.sessions import Sessions
    from harness.run.swipes import Swipes
    from harness.run.workers import Workers


@dataclass(repr=False)
class Timing:
    """Times by file; nothing is kept, each call measures anew."""

    request: Request
    swipes: Swipes
    files: Files
    sessions: Sessions
    workers: Workers

    def paired_round(self, name: str) -> tuple[float, float]:
        """Time a file and its baseline once, interleaved, on typical and long swipes.

        Returns:
            Processor seconds per inference of both.
        """
        demand(self.request.device, Need.PAIRED_TIME)
        baseline = variant(name).baseline
        if baseline is None:
            msg = f"{name} has no baseline to be timed against"
            raise NoBaselineError(msg)
        inputs = [encoder_input(f) for f in parity.typical_and_long(self.swipes.features())]
        _, other = self.sessions.opened(baseline)
        return self.sessions.call(name, paired_round, other, inputs)

    def typical_input(self, name: str) -> Arrays:
        """Return what a file is timed on: the median swipe, or one call of the step."""
        contract = self.files.called_contract(name)
        if variant(name).graph == "encoder":
            typical, _ = parity.typical_and_long(self.swipes.features())
            return as_declared(contract, encoder_input(typical))
        return step_inputs(contract)

    def alone(self, name: str) -> Latency:
        """Return what a file takes in a process of its own."""
        demand(self.request.device, Need.ALONE)
        self.files.sidecar(name)
        worker = self.workers.get(f"{variant(name).format} alone")
        inputs = self.typical_input(name)
        return worker.call(alone_on, self.request.device, self.files.path(name), inputs)
