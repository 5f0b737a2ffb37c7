"""NeMo in a worker of a run: the side that every file is compared with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from exportgate.artifacts.sidecar import sha256_of
from exportgate.levels import level
from exportgate.runtime.split import held_part
from harness.diagnose import expected, stages
from harness.measure import coverage, parity
from harness.measure.expected import reference
from harness.measure.expected.answers import Answers
from harness.run.memo import once

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from exporters.variants import Graph
    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.contract import ModelSpec
    from exportgate.runtime.isolate import Handle, Worker
    from harness.measure.expected.rollout import Rollout
    from harness.run.request import Request
    from harness.run.swipes import Swipes
    from harness.run.workers import Workers

T = TypeVar("T")

ROLLOUTS = 16
"""Swipes for which every call of the step is kept and compared."""
LABEL_CALLS = 512
LABEL_REPEATS = 4
"""Calls that feed every symbol of the vocabulary, and the least number of real states for each."""
_WORKER = "NeMo"
_TIMEOUT_S = 3600.0
"""All swipes of a manifest are one call, and so is lowering a large model: minutes, more on a busy
machine. Nothing that is judged runs there."""


@dataclass(repr=False)
class Nemo:
    """The checkpoint, loaded by NeMo itself.

    Attributes:
        load: What loads it, in the worker; those who inject faults exchange it.
    """

    request: Request
    swipes: Swipes
    workers: Workers
    progress: Callable[[str], None]
    load: Callable[[Any], Any] = reference.load
    memo: dict[Hashable, Any] = field(default_factory=dict)

    @once
    def _model(self) -> Handle:
        self.progress(f"NeMo: load {self.request.checkpoint}")
        return self._worker.make(self.load, self.request.checkpoint)

    @once
    def reference(self) -> reference.Reference:
        """Return NeMo's own outputs for the manifest."""
        features = self.swipes.features()

        def compute() -> reference.Reference:
            model = self._model()
            self.progress(f"NeMo: encode and decode {len(features)} swipes")
            return self._worker.call(reference.compute, model, features, ROLLOUTS)

        inputs = {"rollouts": ROLLOUTS, "tie_nats": level("tie_nats")}
        return self._answers.of("reference", features, inputs, compute)

    @property
    def spec(self) -> ModelSpec:
        """The checkpoint's dimensions and vocabulary."""
        return self.reference().spec

    @once
    def labels(self) -> tuple[coverage.LabelDrive, coverage.StepOutputs]:
        """Return inputs that feed a step every symbol from real states, and what NeMo gives."""
        symbols = self.spec.vocab_size
        repeats = max(LABEL_REPEATS, LABEL_CALLS // symbols)
        drive = coverage.label_drive(self.reference().rollouts, symbols, repeats)
        arrays = [*drive.whole.values()]
        return drive, self._answers.of(
            "labels", arrays, {}, lambda: self.call(reference.step_outputs, drive)
        )

    @once
    def lengths(self) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        """Return an (F, T) input of every length up to the bound, and NeMo's (D, T') of each."""
        inputs = parity.sweep_inputs(self.swipes.features(), self.request.max_trace_len)
        self.progress(f"NeMo: encode {len(inputs)} trace lengths")
        return inputs, self.encode(inputs)

    def margin_error(self, index: int, other: NDArray[np.float32]) -> float:
        """Return how many nats another encoding of a swipe moves NeMo's margins; see reference."""
        encoded = self.reference().encoded[index]
        return self._answers.of(
            "margin error",
            [encoded, other],
            {},
            lambda: self.call(reference.margin_error, encoded, other),
        )

    def call(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - transparent
        """Call ``function(checkpoint, *args)`` where the checkpoint is loaded."""
        model = self._model()
        return self._worker.call(function, model, *args)

    def rollout(self, index: int) -> Rollout:
        """Return every call of NeMo's step for a swipe."""
        encoded = self.reference().encoded[index]
        return self._answers.of(
            "rollout", [encoded], {}, lambda: self.call(reference.rollout, encoded)
        )

    def encode(self, features: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return NeMo's (D, T') encoding of other inputs, each (F, T)."""
        return self._answers.of(
            "encodings", features, {}, lambda: self.call(reference.encode, features)
        )

    def fresh_onnx(self, graph: Graph) -> bytes:
        """Export the checkpoint's FP32 graph to ONNX, now."""
        return self.call(stages.fresh_onnx, graph, self.request.max_trace_len)

    def pte_weights(self, sidecar: Sidecar) -> Sequence[tuple[str, NDArray[np.float64]]]:
        """Return name and FP32 filter of each product that a .pte should hold."""
        rewrite, bound = sidecar.recipe.get("rewrite"), sidecar.max_trace_len
        return self._answers.of(
            "weights of a .pte",
            [],
            {"rewrite": rewrite, "bound": bound, "part": held_part(sidecar)},
            lambda: self.call(stages.pte_weights, sidecar),
        )

    def constant_findings(self, name: str, path: Path, sidecar: Sidecar) -> list[str]:
        """Describe what a file of ours holds otherwise than the checkpoint says.

        Raises:
            WorkerError: It was calibrated with other swipes than this run's.
        """
        self.progress(f"NeMo: what {name} must hold")
        calibration, digest = self.request.calibration, sidecar.sha256
        statement = replace(sidecar, sha256="", size_bytes=0).to_json()
        used = sha256_of(calibration) if calibration else None
        inputs = {"name": name, "sidecar": statement, "calibration": used}
        keep_at = self._answers.place("expected file", [], inputs)
        if keep_at is not None:
            found = self._worker.call(expected.findings_beside_kept, path, keep_at, digest)
            if found is not None:
                return found
        return self.call(expected.findings, path, name, sidecar, calibration, digest, keep_at)

    @property
    def _answers(self) -> Answers:
        # Of a checkpoint that was loaded in another way, nothing is known.
        if self.load is not reference.load or not self.request.checkpoint.exists():
            return Answers(None, "")
        return Answers(self.request.workdir / "cache", self._digest())

    @once
    def _digest(self) -> str:
        return sha256_of(self.request.checkpoint)

    @property
    def _worker(self) -> Worker:
        return self.workers.get(_WORKER, timeout_s=_TIMEOUT_S)
