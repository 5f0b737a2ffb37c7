"""Say where a bad artifact went wrong: the stage, the layer, and the half that costs the words.

``exportgate localize --artifact build/encoder_int8.onnx --checkpoint golden/golden.nemo
--manifest golden/val.jsonl`` prints three tables and writes ``localize.html`` beside the artifact:

- stages: NeMo, the rewritten graph, the program as it is exported now, the same quantized, the
  artifact, each beside NeMo and beside the stage before it: the stage that loses the signal is
  named;
- layers: what every matrix product and convolution gives beside a fresh FP32 export's (ONNX), or
  the weights that it multiplies with beside the checkpoint's (ExecuTorch shows no inner values);
- words: every encoder of the folder with every step of the folder.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.pipeline.options import DEFAULT_MAX_TRACE_LEN
from exporters.variants import VARIANTS
from exportgate.artifacts.sidecar import keep_inputs, read_sidecar, write_text
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, Parser
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.isolate import Handle, Worker
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.split import held_part
from harness.decode import greedy
from harness.diagnose import stages
from harness.diagnose.localize_page import Stage, page
from harness.measure import compare, layers, parity
from harness.measure.expected import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from exporters.variants import Graph
    from exportgate.artifacts.sidecar import Sidecar
    from exportgate.data.manifest import Swipe

    Outputs = list[NDArray[np.float32]]


EXACT_STEPS = frozenset(Path(row.step).stem for row in VARIANTS if row.step)
"""What an encoder's words are decoded with to tell its own part in the loss."""


class LocalizeError(ExportGateError, ValueError):
    """Nothing can be said about a file."""


@dataclass
class Diagnosis:
    """What it takes to diagnose an artifact: workers, swipes and what NeMo makes of them."""

    artifact: Path
    sidecar: Sidecar
    swipes: list[Swipe]
    nemo: Worker
    runtime: Worker
    checkpoint: Handle
    truth: reference.Reference
    feeds: list[dict[str, NDArray[Any]]]
    words: list[str]
    fresh: Path
    calibration: tuple[NDArray[np.float32], ...] | None

    @property
    def graph(self) -> Graph:
        """Which half of the model the artifact is."""
        return "step" if self.sidecar.max_trace_len is None else "encoder"

    @property
    def bound(self) -> int:
        """Largest number of points."""
        return self.sidecar.max_trace_len or DEFAULT_MAX_TRACE_LEN

    def stages(self) -> list[Stage]:
        """Run every stage and compare each with NeMo and with the one before."""
        rows = [("NeMo, eager", self._nemo_outputs())]
        rows.append(
            (
                "rewritten graph, eager",
                self.nemo.call(
                    stages.rewritten, self.checkpoint, self.artifact.suffix, self.feeds, self.bound
                ),
            )
        )
        rows += self._fresh_onnx() if self.artifact.suffix == ".onnx" else self._fresh_programs()
        opened = self.runtime.make(open_artifact, self.artifact)
        name = f"{self.artifact.name} ({self.sidecar.precision})"
        rows.append((name, self.runtime.call(stages.run_all, opened, self.feeds)))
        found = []
        for (_, before), (name, outputs) in zip([rows[0], *rows], rows, strict=False):
            nemo = parity.compare_encodings(rows[0][1], outputs)
            step = parity.compare_encodings(before, outputs)
            found.append(Stage(name, nemo.sqnr_db, step.sqnr_db, self.words[nemo.worst_index]))
        return found

    def _fresh_onnx(self) -> list[tuple[str, Outputs]]:
        opened = self.runtime.make(OrtSession, self.fresh)
        rows = [("fresh FP32 ONNX", self.runtime.call(stages.run_all, opened, self.feeds))]
        if self.sidecar.precision != "fp32":
            path = self.fresh.with_name("again.onnx")
            precision = self.sidecar.precision
            path.write_bytes(
                self.nemo.call(
                    stages.fresh_onnx,
                    self.checkpoint,
                    self.graph,
                    self.bound,
                    precision,
                    self.calibration,
                )
            )
            opened = self.runtime.make(OrtSession, path)
            name = f"fresh {precision.upper()} ONNX"
            rows.append((name, self.runtime.call(stages.run_all, opened, self.feeds)))
        return rows

    def _fresh_programs(self) -> list[tuple[str, Outputs]]:
        traced = self.nemo.make(
            stages.trace_programs, self.checkpoint, self.sidecar, self.calibration
        )
        kinds = ["exported", "quantized"][: 2 if self.sidecar.precision != "fp32" else 1]
        return [
            (f"{kind} program, eager", self.nemo.call(stages.run_traced, traced, kind, self.feeds))
            for kind in kinds
        ]

    def layers(self) -> tuple[list[layers.LayerError], list[str]]:
        """Compare the artifact's layers with a fresh FP32 export's, or their weights."""
        if self.artifact.suffix == ".pte":
            weights = self.nemo.call(stages.pte_weights, self.checkpoint, self.sidecar)
            found = layers.weight_errors(
                self.artifact,
                weights,
                smoothed=self.sidecar.calibration is not None,
                precision=self.sidecar.precision,
            )
            return found, []
        result: tuple[list[layers.LayerError], list[str]] = self.runtime.call(
            layers.layer_errors, self.artifact, self.fresh, self.sidecar.precision, self.feeds
        )
        return result

    def swap_matrix(self) -> dict[str, dict[str, float]]:
        """Return the word accuracy of every encoder of the folder with every step of it."""
        suffix = self.artifact.suffix
        encoders = sorted(self.artifact.parent.glob(f"encoder_*{suffix}"))
        steps = sorted(self.artifact.parent.glob(f"step_*{suffix}"))
        features = [_features(swipe) for swipe in self.swipes]
        encoded: dict[str, Any] = {"NeMo": list(self.truth.encoded)}
        for path in encoders:
            opened = self.runtime.make(open_artifact, path)
            runs = self.runtime.call(parity.run_encoder, opened, features)
            encoded[path.stem] = list(runs.encoded)
        right = {"NeMo": {"NeMo": self._accuracy(self.truth.hypotheses)}}
        for path in steps:
            opened = self.runtime.make(open_artifact, path)
            for name, frames in encoded.items():
                found = self.runtime.call(greedy.greedy_decode_all, opened, frames, self.truth.spec)
                right.setdefault(name, {})[path.stem] = self._accuracy(found)
        return right

    def _nemo_outputs(self) -> Outputs:
        if self.graph == "encoder":
            return [encoded[None] for encoded in self.truth.encoded]
        return [row[None] for rollout in self.truth.rollouts for row in rollout.logits]

    def _accuracy(self, hypotheses: Sequence[greedy.Hypothesis]) -> float:
        labels = self.truth.spec.labels
        pairs = zip(hypotheses, self.swipes, strict=True)
        return float(np.mean([found.text(labels) == swipe.word for found, swipe in pairs]))


def open_diagnosis(
    artifact: Path,
    checkpoint: Path,
    manifest: Path,
    count: int,
    folder: Path,
    calibration: Path | None = None,
) -> Diagnosis:
    """Load everything that a diagnosis needs.

    Args:
        artifact: A file with its sidecar.
        checkpoint: What it should be equal to.
        manifest: Swipes; ``count`` of them are taken, spread evenly.
        count: How many.
        folder: For the fresh export.
        calibration: Swipes that an INT8 encoder was calibrated with.

    Raises:
        LocalizeError: No swipe fits the artifact's bound.
        ExportGateError: Anything else that cannot be read.
    """
    sidecar = read_sidecar(artifact)
    if held_part(sidecar) is not None:
        msg = (
            f"{artifact}: holds a step whose parts are called apart; its constants say which part "
            "is wrong (`exportgate gate`), or localize the same step exported without --split"
        )
        raise LocalizeError(msg)
    bound = sidecar.max_trace_len or DEFAULT_MAX_TRACE_LEN
    fitting = [swipe for swipe in read_manifest(manifest) if len(swipe.points) <= bound]
    swipes = parity.spread(fitting, count)
    if not swipes:
        msg = f"{manifest}: no swipe of at most {bound} points; give others with --manifest"
        raise LocalizeError(msg)
    swipes_seen = stages.observed(artifact, sidecar, calibration)
    nemo, runtime = Worker("NeMo"), Worker(artifact.suffix[1:])
    loaded = nemo.make(reference.load, checkpoint)
    truth: reference.Reference = nemo.call(
        reference.compute, loaded, [_features(swipe) for swipe in swipes], len(swipes)
    )
    words = [swipe.word for swipe in swipes]
    feeds = [encoder_input(_features(swipe)) for swipe in swipes]
    if sidecar.max_trace_len is None:
        each = [stages.rollout_feeds(rollout) for rollout in truth.rollouts]
        words = [word for word, calls in zip(words, each, strict=True) for _ in calls]
        feeds = [feed for calls in each for feed in calls]
    graph: Graph = "step" if sidecar.max_trace_len is None else "encoder"
    fresh = folder / "fp32.onnx"
    if artifact.suffix == ".onnx":
        fresh.write_bytes(nemo.call(stages.fresh_onnx, loaded, graph, bound))
    return Diagnosis(
        artifact, sidecar, swipes, nemo, runtime, loaded, truth, feeds, words, fresh, swipes_seen
    )


def _features(swipe: Swipe) -> NDArray[np.float32]:
    return np.ascontiguousarray(featurize(swipe.points).T)


def stage_lines(rows: Sequence[Stage]) -> list[str]:
    """Return the table of stages."""
    lines = [f"{'stage':38s}{'dB to NeMo':>12s}{'dB to the one before':>22s}  worst word"]
    for stage in rows:
        same = stage.against_nemo_db >= compare.SQNR_OF_EQUAL_DB
        both = [
            "equal" if value >= compare.SQNR_OF_EQUAL_DB else f"{value:.1f}"
            for value in (stage.against_nemo_db, stage.against_before_db)
        ]
        lines.append(f"{stage.name:38s}{both[0]:>12s}{both[1]:>22s}  {'' if same else stage.worst}")
    return lines


def layer_lines(found: Sequence[layers.LayerError], bad: layers.LayerError | None) -> list[str]:
    """Return the table of layers, the first bad one marked."""
    lines = [f"{'layer':52s}{'dB':>8s}{'gain error':>12s}{'shift':>10s}"]
    for layer in found:
        mark = "  ◄ first bad layer" if layer is bad else ""
        lines.append(
            f"{layer.name[-51:]:52s}{layer.sqnr_db:8.1f}{layer.gain_error:12.2g}"
            f"{layer.shift:10.2g}{mark}"
        )
    return lines


def matrix_lines(matrix: dict[str, dict[str, float]]) -> list[str]:
    """Return the table of word accuracies, encoders down, steps across."""
    steps = list(dict.fromkeys(step for row in matrix.values() for step in row))
    lines = [f"{'words right':24s}" + "".join(f"{step:>14s}" for step in steps)]
    for encoder, row in matrix.items():
        cells = [f"{row[step]:.3f}" if step in row else "" for step in steps]
        lines.append(f"{encoder:24s}" + "".join(f"{cell:>14s}" for cell in cells))
    return lines


def half_sentence(matrix: dict[str, dict[str, float]]) -> str:
    """Say what each encoder costs beside the FP32 step, and each step beside NeMo's encodings."""
    best = matrix["NeMo"]["NeMo"]
    right = {
        encoder: share
        for encoder, row in matrix.items()
        for step, share in row.items()
        if step in EXACT_STEPS
    }
    right |= {step: share for step, share in matrix["NeMo"].items() if step not in EXACT_STEPS}
    lost = {name: best - share for name, share in right.items() if name != "NeMo" and share < best}
    if not lost:
        return "no half loses words by itself"
    worst_first = sorted(lost.items(), key=lambda item: -item[1])
    return "words lost by a half itself: " + ", ".join(f"{n} {s:.1%}" for n, s in worst_first)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables and write the page; return the exit status."""
    parser = Parser(prog="exportgate localize", description=__doc__)
    parser.add_argument("--artifact", type=Path, required=True, help="the file")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of the file")
    parser.add_argument("--manifest", type=Path, required=True, help="swipes")
    parser.add_argument("--calibration", type=Path, help="what an INT8 file was calibrated with")
    parser.add_argument("--swipes", type=int, default=24, help="how many to run (default 24)")
    parser.add_argument("--out", type=Path, help="the page; default: localize.html by the artifact")
    options = parser.parse_args(arguments)
    keep_inputs(
        options.out, options.artifact, options.checkpoint, options.manifest, options.calibration
    )
    with tempfile.TemporaryDirectory() as folder:
        diagnosis = open_diagnosis(
            options.artifact,
            options.checkpoint,
            options.manifest,
            options.swipes,
            Path(folder),
            options.calibration,
        )
        tables = _tables(diagnosis)
    out = options.out or options.artifact.with_name("localize.html")
    write_text(out, page(options.artifact.name, *tables))
    print(f"\nwritten: {out}")
    return Exit.PASSED


def _tables(
    diagnosis: Diagnosis,
) -> tuple[list[Stage], list[layers.LayerError], set[str], str, dict[str, dict[str, float]], str]:
    rows = diagnosis.stages()
    print("\n".join(stage_lines(rows)))
    found, verdict = _layers(diagnosis, rows[-1].against_nemo_db)
    matrix = diagnosis.swap_matrix()
    half = half_sentence(matrix)
    print("", *matrix_lines(matrix), half, sep="\n")
    diagnosis.nemo.close()
    diagnosis.runtime.close()
    return rows, found, bad_layers(found, diagnosis.sidecar.precision), verdict, matrix, half


def bad_layers(found: Sequence[layers.LayerError], precision: str) -> set[str]:
    """Return the names of the layers that are bad by themselves, and of the first bad one."""
    first = layers.first_bad(found, precision)
    bad = {layer.name for layer in found if layers.first_bad([layer], precision) is layer}
    return bad | ({first.name} if first else set())


def _layers(diagnosis: Diagnosis, reached_db: float) -> tuple[list[layers.LayerError], str]:
    """Print the layers; return them, and which one is the first bad one."""
    try:
        found, missing = diagnosis.layers()
    except ExportGateError as error:
        verdict = f"layers cannot be compared: {error}"
        print("", verdict, sep="\n")
        return [], verdict
    bad = layers.first_bad(found, diagnosis.sidecar.precision)
    healthy = bad is None and layers.is_healthy(reached_db, diagnosis.sidecar.precision)
    verdict = "no layer is bad" if healthy else layers.sentence(bad)
    if missing:
        verdict += f"; layers that it lacks: {', '.join(missing[:5])}"
    print("", *layer_lines(found, bad), verdict, sep="\n")
    return found, verdict
