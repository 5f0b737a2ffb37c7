"""Everything that the suites judge, computed once when it is first asked for.

A failure is evidence too: it is kept and raised again, so that each check that depends on it fails
with the same reason instead of trying again.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from exporters.variants import VARIANTS, Variant, decoding_step, variant
from exportgate.artifacts.sidecar import Sidecar, read_sidecar, sha256_of
from exportgate.data.features import featurize
from exportgate.data.manifest import Swipe, read_manifest
from exportgate.errors import ExportGateError
from exportgate.runtime import adapter, session
from exportgate.runtime.isolate import Handle, Worker
from harness.decode import beam, greedy
from harness.decode.accuracy import Outcome
from harness.decode.lexicon import Lexicon, open_lexicon
from harness.diagnose import stages
from harness.gate import third_party
from harness.inspect import audit
from harness.inspect.cost import StaticCost, static_cost
from harness.measure import layers, parity, reference
from harness.measure.environment import PairedLatency, paired_round
from harness.measure.latency import Latency, measure_alone
from harness.measure.paired import step_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from exportgate.runtime.session import Arrays
    from harness.measure.compare import Comparison

P = ParamSpec("P")
T = TypeVar("T")

LAYER_SWIPES = 24
"""Swipes that are run layer by layer."""
ROLLOUTS = 16
"""Swipes for which every call of the step is kept and compared."""


SEARCH_STRIDE = {("onnx", False): 1, ("onnx", True): 4, ("pte", False): 4, ("pte", True): 8}
"""Every how-many-th swipe is searched, by format and freedom: a .pte step takes no batch."""


class EvidenceError(ExportGateError, RuntimeError):
    """What a check needs could not be made."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a run was asked to judge.

    Attributes:
        checkpoint: The model.
        manifest: Swipes to judge with.
        calibration: Swipes to calibrate INT8 exports with.
        variants: Files to judge.
        artifacts: Folder with the files; None to export them.
        workdir: Where exports go.
        max_trace_len: Bound of the exported encoders, in points.
        lexicon: The user's words; None for the commonest English ones.
        baseline: Folder of accepted files to measure beside the candidates; None for none.
    """

    checkpoint: Path
    manifest: Path
    calibration: Path
    variants: tuple[Variant, ...]
    artifacts: Path | None
    workdir: Path
    max_trace_len: int
    lexicon: Path | None = None
    baseline: Path | None = None


def once(
    method: Callable[Concatenate[Evidence, P], T],
) -> Callable[Concatenate[Evidence, P], T]:
    """Compute at most once for each set of arguments; keep an error like a result."""

    @wraps(method)
    def cached(self: Evidence, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (method.__name__, *args)
        if key not in self.memo:
            try:
                self.memo[key] = method(self, *args, **kwargs)
            except ExportGateError as failure:
                self.memo[key] = failure
        kept: T | ExportGateError = self.memo[key]
        if isinstance(kept, ExportGateError):
            raise kept
        return kept

    return cached


@dataclass
class Evidence:
    """Lazily computed facts about one request."""

    request: Request
    progress: Callable[[str], None]
    memo: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _workers: dict[str, Worker] = field(default_factory=dict)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()

    # -- inputs -----------------------------------------------------------------------------

    @once
    def swipes(self) -> list[Swipe]:
        """Return the manifest's swipes that fit the bound, in order.

        Raises:
            EvidenceError: A swipe is longer than the bound.
        """
        swipes = read_manifest(self.request.manifest)
        for number, swipe in enumerate(swipes, 1):
            if len(swipe.points) > self.request.max_trace_len:
                msg = (
                    f"{self.request.manifest}:{number}: {len(swipe.points)} points, more than the "
                    f"{self.request.max_trace_len} that the exports take; raise --max-trace-len"
                )
                raise EvidenceError(msg)
        return swipes

    @once
    def features(self) -> list[NDArray[np.float32]]:
        """Return (F, T) for each swipe."""
        return [np.ascontiguousarray(featurize(swipe.points).T) for swipe in self.swipes()]

    @once
    def words(self) -> list[str]:
        """Return the words as the vocabulary can spell them.

        A gesture has no case: where the vocabulary has no capital letters, words are lower-cased.
        A word that still has a letter outside the vocabulary stays, and counts as decoded wrong:
        the model cannot write it.
        """
        labels = "".join(self.reference().spec.labels)
        lower = labels == labels.lower()
        return [swipe.word.lower() if lower else swipe.word for swipe in self.swipes()]

    @once
    def unspellable(self) -> list[str]:
        """Return the words with a letter outside the vocabulary."""
        labels = set(self.reference().spec.labels)
        return sorted({word for word in self.words() if not set(word) <= labels})

    # -- NeMo -------------------------------------------------------------------------------

    @once
    def _nemo(self) -> Handle:
        return self._worker("NeMo").make(reference.load, self.request.checkpoint)

    @once
    def reference(self) -> reference.Reference:
        """Return NeMo's own outputs for the manifest."""
        features = self.features()
        self.progress(f"NeMo: load {self.request.checkpoint}")
        model = self._nemo()
        self.progress(f"NeMo: encode and decode {len(features)} swipes")
        result: reference.Reference = self._worker("NeMo").call(
            reference.compute, model, features, ROLLOUTS
        )
        return result

    @once
    def reference_accuracy(self) -> float:
        """Return the share of words that NeMo decodes right."""
        return self._accuracy(self.reference().hypotheses)

    def encode_with_nemo(self, features: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return NeMo's (D, T') encoding of other inputs."""
        result: list[NDArray[np.float32]] = self._worker("NeMo").call(
            reference.encode, self._nemo(), features
        )
        return result

    # -- files ------------------------------------------------------------------------------

    @once
    def folder(self) -> Path:
        """Return the folder with the files, exporting them if none was given."""
        if self.request.artifacts is not None:
            return self.request.artifacts
        names = self._needed()
        out = artifact_folder(self.request)
        self._export(names, out)
        return out

    def _export(self, names: Sequence[str], out: Path) -> None:
        """Export files of the checkpoint to a folder, or take them from the cache."""
        self.progress(f"export {len(names)} file{'s'[: len(names) > 1]} to {out}")
        command = [sys.executable, "-m", "exporters.release"]
        command += ["--checkpoint", str(self.request.checkpoint), "--out", str(out)]
        command += ["--val-manifest", str(self.request.calibration)]
        command += ["--cache", str(self.request.workdir / "cache")]
        command += ["--max-trace-len", str(self.request.max_trace_len)]
        command += [part for name in names for part in ("--variant", name)]
        self._run_export(command)

    def _run_export(self, command: list[str]) -> None:
        """Run an export and show its stages as they come, without the runtimes' own chatter."""
        last = "no message"
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            for line in process.stderr or ():
                last = line.strip() or last
                stage, dots, _ = line.strip().partition(" …")
                if dots:
                    self.progress(f"  {stage}")
        if process.returncode != 0:
            msg = f"the export failed with status {process.returncode}: {last}"
            raise EvidenceError(msg)

    def _needed(self) -> list[str]:
        """Return the asked-for files, and those that they are compared or decoded with."""
        names = [row.name for row in self.request.variants]
        for row in self.request.variants:
            names += [row.baseline] if row.baseline else []
            names += [row.step] if row.step else []
        return list(dict.fromkeys(names))

    def path(self, name: str) -> Path:
        """Return the path of a variant's file."""
        return self.folder() / name

    @once
    def sidecar(self, name: str) -> Sidecar:
        """Return a file's sidecar, after checking the file's hash.

        What somebody else's files are compared or decoded with is exported, if they lack it.
        """
        judged = name in {row.name for row in self.request.variants}
        if not judged and not self.path(name).is_file() and third_party.is_adopted(self.folder()):
            self._export([name], self.folder())
        return read_sidecar(self.path(name))

    def _own_feeds(self, name: str, feeds: Sequence[Arrays]) -> Sequence[Arrays]:
        """Return inputs under a file's own names: somebody else's has others than ours."""
        if "foreign" not in self.sidecar(name).recipe:
            return feeds
        own: Sequence[Arrays] = self.run(name, adapter.own_feeds, feeds)
        return own

    @once
    def deflated_bytes(self, name: str) -> int:
        """Return the size after deflate, level 6."""
        return len(zlib.compress(self.path(name).read_bytes(), 6))

    @once
    def identical_files(self, name: str) -> list[str]:
        """Return the other files of the table that are there and hold the same bytes."""
        mine = self.sidecar(name).sha256
        others = [row.name for row in VARIANTS if row.name != name]
        return [
            other
            for other in others
            if self.path(other).is_file() and sha256_of(self.path(other)) == mine
        ]

    @once
    def contents(self, name: str) -> audit.Contents:
        """Return what the file itself says is in it."""
        self.sidecar(name)
        self.progress(f"{name}: read what is inside")
        worker = self._worker("audit")
        result: audit.Contents = worker.call(audit.read_contents, self.path(name))
        return result

    @once
    def cost(self, name: str) -> StaticCost:
        """Return what a file costs on its longest input, without a clock."""
        contract = self.sidecar(name).contract
        inputs: Arrays = step_inputs(contract)
        if variant(name).graph == "encoder":
            channels = contract.inputs[0].shape[1]
            longest = np.zeros((int(channels), self.request.max_trace_len), np.float32)
            inputs = reference.encoder_input(longest)
        (inputs,) = self._own_feeds(name, [inputs])
        worker = self._worker("audit")
        result: StaticCost = worker.call(static_cost, self.path(name), inputs)
        return result

    # -- runs -------------------------------------------------------------------------------

    @once
    def _opened(self, name: str) -> Handle:
        self.sidecar(name)
        return self._worker(variant(name).format).make(session.open_artifact, self.path(name))

    def _open(self, name: str) -> tuple[Worker, Handle]:
        """Return a file's worker and session; after a crash both are new."""
        worker = self._workers.get(variant(name).format)
        if worker is not None and not worker.alive:
            stale = [key for key in self.memo if key[0] == "_opened"]
            for key in stale:
                del self.memo[key]
        handle = self._opened(name)
        return self._worker(variant(name).format), handle

    def run(self, name: str, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """Call ``function(session, *args)`` in the file's worker."""
        worker, handle = self._open(name)
        return worker.call(function, handle, *args)

    @once
    def encoder_runs(self, name: str) -> parity.EncoderRuns:
        """Run an encoder on every swipe, on padded swipes and on every kind of length."""
        self.progress(f"{name}: run {len(self.features())} swipes")
        result: parity.EncoderRuns = self.run(name, parity.run_encoder, self.features())
        return result

    @once
    def encoder_comparison(self, name: str) -> Comparison:
        """Compare an encoder's valid frames with NeMo's."""
        return parity.compare_encodings(self.reference().encoded, self.encoder_runs(name).encoded)

    @once
    def padding_error(self, name: str) -> float:
        """Return the largest change of a valid frame caused by padding."""
        bound = self.request.max_trace_len
        padded: list[NDArray[np.float32]] = self.run(
            name, parity.run_padded, parity.spread(self.features(), 12), bound
        )
        alone = parity.spread(list(self.encoder_runs(name).encoded), 12)
        return parity.padding_error(alone, padded)

    @once
    def shape_sweep(self, name: str) -> parity.ShapeSweep:
        """Run an encoder at many lengths up to its bound, and one beyond it."""
        self.progress(f"{name}: sweep trace lengths 1 to {self.request.max_trace_len}")
        inputs = parity.sweep_inputs(self.features(), self.request.max_trace_len)
        references = self.encode_with_nemo(inputs)
        result: parity.ShapeSweep = self.run(
            name, parity.sweep_shapes, inputs, references, self.request.max_trace_len
        )
        return result

    @once
    def layer_errors(self, name: str) -> tuple[list[layers.LayerError], list[str]]:
        """Compare an ONNX encoder's layers with its FP32 file's; name the layers that it lacks.

        Of a .pte the weights are compared with the checkpoint's.

        Raises:
            EvidenceError: It has no FP32 file beside it.
        """
        if variant(name).format == "pte":
            sidecar = self.sidecar(name)
            weights = self._worker("NeMo").call(stages.pte_weights, self._nemo(), sidecar)
            return layers.weight_errors(
                self.path(name), weights, smoothed=sidecar.calibration is not None
            ), []
        baseline = variant(name).baseline
        if baseline is None:
            msg = f"{name} has no FP32 file to be compared with layer by layer"
            raise EvidenceError(msg)
        self.sidecar(name)
        self.sidecar(baseline)
        return self._layers_against(
            name, self.path(baseline), self._own_feeds(baseline, self._layer_feeds(name))
        )

    def _layer_feeds(self, name: str) -> Sequence[Arrays]:
        feeds = [reference.encoder_input(f) for f in parity.spread(self.features(), LAYER_SWIPES)]
        if variant(name).graph == "step":
            feeds = [
                feed
                for rollout in self.reference().rollouts
                for feed in stages.rollout_feeds(rollout)
            ]
        return feeds

    def _layers_against(
        self, name: str, baseline: Path, baseline_feeds: Sequence[Arrays]
    ) -> tuple[list[layers.LayerError], list[str]]:
        feeds = self._own_feeds(name, self._layer_feeds(name))
        found: tuple[list[layers.LayerError], list[str]] = self._worker("onnx").call(
            layers.layer_errors, self.path(name), baseline, feeds, baseline_feeds
        )
        return found

    @once
    def first_bad_layer(self, name: str) -> str:
        """Say at which layer a file leaves a fresh FP32 export of the checkpoint.

        Only failing files pay for it (seconds). Empty for what has no layers to look into.
        """
        row = variant(name)
        if row.format == "pte" and "foreign" in self.sidecar(name).recipe:
            return ""
        self.progress(f"{name}: look for the first bad layer")
        try:
            found, _ = self._layers_to_blame(name)
        except ExportGateError as error:
            return f"layers cannot be compared: {error}"
        return layers.sentence(layers.first_bad(found, row.precision))

    def _layers_to_blame(self, name: str) -> tuple[list[layers.LayerError], list[str]]:
        row = variant(name)
        if row.format == "pte":
            return self.layer_errors(name)
        if "foreign" in self.sidecar(name).recipe and row.baseline:
            # Its layers have other names than a fresh export's, but those of its own FP32 file.
            return self.layer_errors(name)
        with tempfile.TemporaryDirectory() as folder:
            fresh = Path(folder) / "fp32.onnx"
            payload = self._worker("NeMo").call(
                stages.fresh_onnx, self._nemo(), row.graph, self.request.max_trace_len
            )
            fresh.write_bytes(payload)
            return self._layers_against(name, fresh, self._layer_feeds(name))

    @once
    def step_comparison(self, name: str) -> parity.StepComparison:
        """Compare a step with NeMo's along whole words, with its own states."""
        self.progress(f"{name}: roll out {len(self.reference().rollouts)} words")
        result: parity.StepComparison = self.run(
            name, parity.compare_rollouts, self.reference().rollouts
        )
        return result

    @once
    def hypotheses(self, name: str) -> list[greedy.Hypothesis]:
        """Decode all swipes: an encoder with its FP32 step, a step on NeMo's encodings."""
        spec = self.reference().spec
        row = variant(name)
        if row.graph == "encoder":
            encoded, step = self.encoder_runs(name).encoded, decoding_step(row).name
        else:
            encoded, step = self.reference().encoded, name
        self.progress(f"{name}: decode {len(encoded)} swipes")
        result: list[greedy.Hypothesis] = self.run(
            step, greedy.greedy_decode_all, list(encoded), spec
        )
        return result

    @once
    def lexicon(self) -> Lexicon:
        """Return the words that a search may find."""
        cache = self.request.workdir / "cache"
        return open_lexicon(self.reference().spec.labels, self.request.lexicon, cache)

    def searched(self, name: str, *, free: bool = False) -> list[int]:
        """Return the places of the swipes that are searched with a file's runtime."""
        stride = SEARCH_STRIDE[variant(name).format, free]
        return list(range(0, len(self.swipes()), stride))

    @once
    def searches(self, name: str, free: bool = False) -> list[Outcome]:
        """Search the beam for every ``searched`` swipe, in the lexicon or free."""
        spec, rows = self.reference().spec, self.searched(name, free=free)
        row = variant(name)
        if row.graph == "encoder":
            encoded, step = self.encoder_runs(name).encoded, decoding_step(row).name
        else:
            encoded, step = self.reference().encoded, name
        lexicon = None if free else self.lexicon()
        self.progress(f"{name}: search {len(rows)} swipes {'freely' if free else 'for words'}")
        found: list[list[beam.Candidate]] = self.run(
            step, beam.beam_search_all, [encoded[index] for index in rows], spec, lexicon
        )
        words = self.words()
        return [
            Outcome(words[index], tuple(item.text(spec.labels) for item in items))
            for index, items in zip(rows, found, strict=True)
        ]

    def outcomes(self, hypotheses: Sequence[greedy.Hypothesis]) -> list[Outcome]:
        """Return greedy hypotheses of all swipes beside the words."""
        labels = self.reference().spec.labels
        return [
            Outcome(word, (hypothesis.text(labels),))
            for word, hypothesis in zip(self.words(), hypotheses, strict=True)
        ]

    @once
    def accuracy(self, name: str) -> float:
        """Return the share of words decoded right."""
        return self._accuracy(self.hypotheses(name))

    def latency_round(self, name: str) -> tuple[float, float]:
        """Time the file and its baseline once, interleaved, on typical and long swipes."""
        baseline = variant(name).baseline
        if baseline is None:
            msg = f"{name} has no baseline to be timed against"
            raise EvidenceError(msg)
        inputs = [reference.encoder_input(f) for f in parity.typical_and_long(self.features())]
        worker, candidate = self._open(name)
        _, other = self._open(baseline)
        result: tuple[float, float] = worker.call(paired_round, candidate, other, inputs)
        return result

    def comparison(self, name: str) -> Comparison:
        """Compare a file with NeMo: an encoder's frames, or a step's logits along whole words."""
        if variant(name).graph == "step":
            return self.step_comparison(name).logits
        return self.encoder_comparison(name)

    def typical_input(self, name: str) -> session.Arrays:
        """Return what a file is timed on: the median swipe, or one call of the step."""
        if variant(name).graph == "encoder":
            return reference.encoder_input(parity.typical_and_long(self.features())[0])
        return step_inputs(self.sidecar(name).contract)

    def latency(self, name: str) -> Latency:
        """Return what a file takes in a process of its own."""
        self.sidecar(name)
        worker = self._worker(f"{variant(name).format}, alone")
        result: Latency = worker.call(measure_alone, self.path(name), self.typical_input(name))
        return result

    # -- helpers ----------------------------------------------------------------------------

    def _accuracy(self, hypotheses: Any) -> float:  # noqa: ANN401 - any sequence of hypotheses
        labels = self.reference().spec.labels
        right = Counter(
            hypothesis.text(labels) == word
            for hypothesis, word in zip(hypotheses, self.words(), strict=True)
        )
        return right[True] / sum(right.values())

    def _worker(self, name: str) -> Worker:
        worker = self._workers.get(name)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            worker = self._workers[name] = Worker(name)
        return worker


def artifact_folder(request: Request) -> Path:
    """Return where a request's files are, or are going to be exported to.

    It is named by the inputs: runs on others beside it do not meet in it.
    """
    if request.artifacts is not None:
        return request.artifacts
    digest = hashlib.sha256(str(request.max_trace_len).encode())
    for path in (request.checkpoint, request.calibration):
        digest.update(path.read_bytes())
    return request.workdir / digest.hexdigest()[:12]


__all__ = ["Evidence", "EvidenceError", "PairedLatency", "Request"]
