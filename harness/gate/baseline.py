"""Released artifacts as the baseline: measured beside the candidates, on the machine at hand.

A baseline is a folder that ``exportgate promote`` made: the files of a green run with their
sidecars, and ``accepted.json``, which says what was judged and when. Numbers of an old report are
no baseline for speed or words: machine, swipes and packages may have changed, so that the released
files themselves are run again. Only the signal-to-noise is taken from that report: it refers to
the checkpoint that the released file was made from, which need not be at hand any more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.variants import variant
from exportgate.artifacts.sidecar import Sidecar, read_sidecar
from exportgate.errors import ExportGateError
from exportgate.levels import level
from exportgate.reading import MALFORMED, read_json, reason, shaped
from exportgate.runtime.inputs import as_declared, encoder_input, step_inputs
from exportgate.runtime.isolate import Worker
from harness.decode import greedy
from harness.devices.device import Counting, Need, demand, open_on
from harness.measure import instructions, parity
from harness.measure.paired import PairedComparison, Plan, compare_samples, measure_files
from harness.run.files import step_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exportgate.runtime.session import Arrays
    from harness.devices.device import Device
    from harness.measure.instructions import Count
    from harness.measure.paired import PairedSamples
    from harness.run.context import RunContext

ACCEPTED = "accepted.json"
PREFIX = "baseline_"
"""Metrics with this prefix are judged only where ``--baseline`` is given."""
COUNTED_FRAMES = 32
"""Length of the swipe that is counted under emulation, which is hundreds of times slower."""


class BaselineError(ExportGateError, ValueError):
    """The baseline was asked for and is not there, or is not what was accepted."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """An accepted folder.

    Attributes:
        folder: Where the files are.
        files: SHA-256 of each file that was accepted.
        values: What the accepted run measured, by file and metric.
    """

    folder: Path
    files: Mapping[str, str]
    values: Mapping[str, Mapping[str, float]]

    def sidecar(self, name: str) -> Sidecar:
        """Return a released file's sidecar, after checking that it is the accepted file.

        Raises:
            BaselineError: The file was not accepted, or was replaced since.
            ArtifactError: File and sidecar do not fit each other.
        """
        if name not in self.files:
            msg = (
                f"{self.folder}: the baseline has no {name}, only {', '.join(self.files)}; "
                "accept a release that has it"
            )
            raise BaselineError(msg)
        sidecar = read_sidecar(self.folder / name)
        if sidecar.sha256 != self.files[name]:
            msg = f"{self.folder / name}: not the file that was accepted; accept a green run again"
            raise BaselineError(msg)
        return sidecar

    def value(self, name: str, metric: str) -> float:
        """Return what the accepted run measured.

        Raises:
            BaselineError: It measured no such thing.
        """
        found = self.values.get(name, {}).get(metric)
        if found is None:
            msg = f"{self.folder}: the accepted run measured no {metric} of {name}"
            raise BaselineError(msg)
        return found


def read_baseline(folder: Path) -> Baseline:
    """Read a folder that ``harness.gate.promote`` made.

    Raises:
        BaselineError: Absent, or never accepted.
    """
    path = folder / ACCEPTED
    try:
        data = read_json(path)
        files = shaped(data["files"], dict[str, str])
        return Baseline(folder, files, shaped(data["values"], dict[str, dict[str, float]]))
    except FileNotFoundError as error:
        msg = f"{folder}: no accepted baseline; promote a green run with exportgate promote"
        raise BaselineError(msg) from error
    except (OSError, *MALFORMED) as error:
        msg = f"{path}: malformed ({reason(error)}); accept a green run again"
        raise BaselineError(msg) from error


def released_accuracy(context: RunContext, baseline: Baseline, name: str) -> float:
    """Return the share of words that a released encoder decodes right, with its released step.

    Raises:
        BaselineError: Encoder or step were not accepted.
    """
    step = step_for(name)
    spec = baseline.sidecar(name).model
    baseline.sidecar(step)
    with Worker(f"baseline {name}") as worker:
        encoder = worker.make(open_on, context.request.device, baseline.folder / name)
        runs: parity.EncoderRuns = worker.call(
            parity.run_encoder, encoder, context.swipes.features()
        )
        stepper = worker.make(open_on, context.request.device, baseline.folder / step)
        hypotheses = worker.call(greedy.greedy_decode_all, stepper, list(runs.encoded), spec)
    right: int = sum(
        hypothesis.text(spec.labels) == word
        for hypothesis, word in zip(hypotheses, context.words.meant(), strict=True)
    )
    return right / len(context.words.meant())


def paired_cost(
    context: RunContext, baseline: Baseline, name: str, plan: Plan
) -> tuple[PairedComparison, PairedSamples]:
    """Compare the processor time of a file with the released one's, interleaved.

    Raises:
        BaselineError: The file was not accepted.
        RunContextError: The candidate could not be made.
    """
    demand(context.request.device, Need.PAIRED_TIME)
    baseline.sidecar(name)
    context.files.sidecar(name)
    inputs = [context.timing.typical_input(name)]
    with Worker(f"timing {name}") as worker:
        samples: PairedSamples = worker.call(
            measure_files,
            context.request.device,
            context.files.path(name),
            baseline.folder / name,
            inputs,
            plan,
        )
    return compare_samples(samples, minimal_effect=level("least_effect")), samples


def counted_cost(context: RunContext, baseline: Baseline, name: str) -> tuple[Count, Count]:
    """Count the instructions of a file and of the released one, on the same short input.

    Raises:
        NotInstalledError: Nothing here can count them.
        ExactError: The emulated run failed.
    """
    baseline.sidecar(name)
    inputs, device = short_input(context, name), context.request.device
    # At the same time: what is counted does not depend on who else is busy.
    with ThreadPoolExecutor(2) as pool:
        ours = pool.submit(count_on, device, context.files.path(name), inputs)
        theirs = pool.submit(count_on, device, baseline.folder / name, inputs)
        return ours.result(), theirs.result()


def short_input(context: RunContext, name: str) -> Arrays:
    """Return what a file's instructions are counted on: a short swipe, or one call of the step."""
    contract = context.files.sidecar(name).contract
    if variant(name).graph == "step":
        return step_inputs(contract)
    swipe = parity.typical_and_long(context.swipes.features())[1]
    return as_declared(contract, encoder_input(swipe[:, :COUNTED_FRAMES]))


def count_on(device: Device, artifact: Path, inputs: Arrays) -> Count:
    """Count instructions on a device that does, or on an emulated processor of this machine's kind.

    Raises:
        NotInstalledError: What counts is not installed.
        ExactError: The count failed.
    """
    count = device.count if isinstance(device, Counting) else instructions.count
    return count(artifact, inputs)
