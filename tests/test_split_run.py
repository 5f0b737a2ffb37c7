"""A step whose parts are called apart, on its runtimes; faults in each; pairs that are none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters.variants import VARIANTS, contract_of, parts_of, variant
from exportgate.artifacts.sidecar import ArtifactError, read_sidecar, sha256_of, sidecar_path
from exportgate.contract import METHODS, OTHER_SHA256
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import InputError, OpenError, RunError
from exportgate.runtime.split import KeptPredictions, SplitStep, for_decoding
from harness.decode.beam import beam_search, beam_search_all
from harness.decode.greedy import greedy_decode, greedy_decode_all
from harness.diagnose.expected import expected_file
from harness.gate.gates import Status, judge, read_gates
from harness.inspect import audit
from harness.inspect.constants import onnx_findings, pte_findings
from harness.measure import parity
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exportgate.contract import ModelSpec
    from exportgate.runtime.session import Arrays, TimedSession
    from harness.measure.expected.rollout import Rollout

pytestmark = pytest.mark.slow
GATES = REPOSITORY / "suites" / "gates.toml"
PREDICT, JOINT, BOTH = "predict_fp32.onnx", "joint_fp32.onnx", "step_split_fp32.pte"
QUANTIZED = ("predict_int8.onnx", "joint_int8.onnx", "step_split_int8.pte")
FILES = (PREDICT, JOINT, BOTH, *QUANTIZED)
OPENED = (PREDICT, JOINT, BOTH)
WHOLE = {"onnx": "step_fp32.onnx", "pte": "step_fp32.pte"}


def made(checkpoint: Checkpoint, folder: Path, names: Sequence[str]) -> Path:
    """Export files of a loaded checkpoint."""
    from exporters.pipeline.checked import export_file
    from exporters.pipeline.making import Source
    from exporters.pipeline.options import ExportOptions
    from exporters.quantize.calibration import synthetic_calibration

    features = checkpoint.spec.feature_dim
    swipes = synthetic_calibration(swipes=8, max_trace_len=40, feature_dim=features)
    source = Source(checkpoint, swipes, 40)
    options = ExportOptions(checkpoint.path, check_quantization=False)
    for name in names:
        export_file(variant(name), folder / name, options, source, None)
    return folder


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    from tests.random_checkpoints import random_checkpoint

    return random_checkpoint(layers=2, labels=9)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint) -> Path:
    return made(checkpoint, tmp_path_factory.mktemp("split"), [*FILES, *WHOLE.values()])


@pytest.fixture(scope="module")
def spec(checkpoint: Checkpoint) -> ModelSpec:
    return checkpoint.spec


def frames(spec: ModelSpec, count: int = 6) -> list[NDArray[np.float32]]:
    """Return (D, T') frames that write labels, and blanks."""
    rng = np.random.default_rng(3)
    return [
        4 * rng.normal(size=(spec.d_model, length)).astype(np.float32)
        for length in rng.integers(3, 9, count)
    ]


def feeds(spec: ModelSpec, rows: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    state = (spec.pred_layers, rows, spec.pred_hidden)
    return {
        "y_prev": rng.integers(0, spec.vocab_size, rows),
        "h0": rng.normal(size=state).astype(np.float32),
        "c0": rng.normal(size=state).astype(np.float32),
        "enc_t": rng.normal(size=(rows, spec.d_model)).astype(np.float32),
    }


def close(found: Arrays, wanted: Arrays) -> bool:
    """Whether outputs are the same but for the order of float32's sums."""
    assert list(found) == list(wanted)
    return all(np.allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6) for name in wanted)


@pytest.mark.parametrize("name", OPENED)
def test_both_parts_give_what_the_step_in_one_piece_gives(
    files: Path, spec: ModelSpec, name: str
) -> None:
    row = variant(name)
    parts, whole = open_artifact(files / name), open_artifact(files / WHOLE[row.format])
    assert isinstance(parts, SplitStep)
    assert parts.contract == whole.contract
    assert {part: parts.parts[part] for part in parts_of(row, spec)} == parts_of(row, spec)
    for rows in (1,) if row.format == "pte" else (1, 2, 7):
        given = feeds(spec, rows)
        assert close(parts.run(given), whole.run(given))
    assert parts.elapsed([feeds(spec, 1)], 3).wall_s > 0
    with pytest.raises(InputError, match="enc_t"):
        parts.run({key: value for key, value in feeds(spec, 1).items() if key != "enc_t"})


@pytest.mark.parametrize("name", FILES)
def test_sidecars_say_what_is_in_the_files(
    files: Path, checkpoint: Checkpoint, tmp_path: Path, name: str
) -> None:
    sidecar, row = read_sidecar(files / name), variant(name)
    assert sidecar.variant == name
    assert sidecar.contract == contract_of(row, checkpoint.spec)
    assert sidecar.sqnr_db is not None
    assert sidecar.sqnr_db > (20 if row.precision == "int8" else 100)
    if row.format == "pte":
        implied = parts_of(row, checkpoint.spec)
        assert audit.method_mismatches(sidecar.recipe[METHODS], implied) == []
        assert audit.method_mismatches(None, implied)
    if row.precision == "fp32":
        expected = expected_file(checkpoint, name, sidecar, None)
        beside = tmp_path / name
        beside.write_bytes(expected.payload)
        path = files / name
        assert (
            onnx_findings(path, expected)
            if row.format == "onnx"
            else pte_findings(path, beside, expected)
        ) == []


class Counted:
    """A step that counts its calls."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.contract, self.calls = inner, inner.contract, 0

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        self.calls += len(inputs["y_prev"])
        found: dict[str, NDArray[Any]] = self.inner.run(inputs)
        return found


@pytest.mark.parametrize("name", [PREDICT, BOTH])
def test_a_decoder_asks_the_prediction_network_after_labels_only(
    files: Path, spec: ModelSpec, name: str
) -> None:
    parts, whole = open_artifact(files / name), open_artifact(files / WHOLE[variant(name).format])
    assert for_decoding(whole) is whole
    blanks = 0
    for item in frames(spec):
        kept = for_decoding(parts)
        assert isinstance(kept, KeptPredictions)
        counted = Counted(kept)
        found, wanted = (greedy_decode(step, item, spec) for step in (counted, whole))
        assert (found.tokens, found.frames) == (wanted.tokens, wanted.frames)
        assert found.score == pytest.approx(wanted.score, abs=1e-4)
        # The start, and each label; what follows a label at the last frame is never asked.
        assert len(found.tokens) <= kept.predicted <= len(found.tokens) + 1
        blanks += counted.calls - kept.predicted
    assert blanks > 0
    kept = for_decoding(parts)
    counted = Counted(kept)
    found, wanted = (beam_search(step, frames(spec)[0], spec) for step in (counted, whole))
    assert [item.tokens for item in found] == [item.tokens for item in wanted]
    assert np.allclose([i.score for i in found], [i.score for i in wanted], atol=1e-4)
    assert isinstance(kept, KeptPredictions)
    assert kept.predicted < counted.calls


def test_what_is_kept_is_what_was_asked(files: Path, spec: ModelSpec) -> None:
    parts = open_artifact(files / PREDICT)
    kept = for_decoding(parts)
    assert isinstance(kept, KeptPredictions)
    given = feeds(spec, 5)
    first = {name: np.array(value) for name, value in kept.run(given).items()}
    assert close(first, parts.run(given))
    assert kept.predicted == 5
    # Another label, another state of any layer, or other rows beside it: none is mistaken.
    for name, place in (("y_prev", (0,)), ("h0", (1, 0, 3)), ("c0", (0, 0, 1))):
        other = {key: np.array(value) for key, value in given.items()}
        other[name][place] = (other[name][place] + 1) % spec.vocab_size
        before = kept.predicted
        assert close(kept.run(other), parts.run(other))
        assert kept.predicted == before + 1
    order = [3, 0, 0, 4]
    axes = {"h0": 1, "c0": 1}
    other = {key: value.take(order, axis=axes.get(key, 0)) for key, value in given.items()}
    before = kept.predicted
    assert close(kept.run(other), parts.run(other))
    assert kept.predicted == before
    # More than is kept: the oldest are asked again, and are right.
    for seed in range(1, 7):
        kept.run(feeds(spec, 300, seed))
    assert close(kept.run(given), first)


def test_words_of_a_run_are_those_of_the_step_in_one_piece(files: Path, spec: ModelSpec) -> None:
    for name in (PREDICT, BOTH):
        parts = open_artifact(files / name)
        whole = open_artifact(files / WHOLE[variant(name).format])
        sides: Any = [greedy_decode_all(step, frames(spec), spec) for step in (parts, whole)]
        assert [item.tokens for item in sides[0]] == [item.tokens for item in sides[1]]
        sides = [beam_search_all(step, frames(spec, 2), spec) for step in (parts, whole)]
        firsts = [[items[0].tokens for items in side] for side in sides]
        assert firsts[0] == firsts[1]


# --- faults --------------------------------------------------------------------------------------


def rollouts(checkpoint: Checkpoint) -> list[Rollout]:
    """Return NeMo's calls while random frames are decoded."""
    from exporters.nemo.sessions import NemoStep
    from exportgate.transducer import Transducer, follow
    from harness.measure.expected.reference import _rollout

    rules = Transducer.of(checkpoint.spec)
    return [
        _rollout(list(follow(NemoStep(checkpoint), [item], checkpoint.spec, rules)))
        for item in frames(checkpoint.spec, 4)
    ]


def red(name: str, step: Any, checkpoint: Checkpoint) -> set[str]:
    """Return the gates of a file that break when a step is compared with NeMo."""
    found = parity.compare_rollouts(step, rollouts(checkpoint))
    values = {
        "sqnr_db": found.logits.sqnr_db,
        "max_error_ratio": found.logits.max_error_ratio,
        "state_max_error_ratio": found.states.max_error_ratio,
        "normalised_logits": found.normalised,
    }
    book = read_gates([GATES], [*(item.name for item in VARIANTS), "checkpoint", name])
    judged = [gate for gate in book.of(name) if gate.metric in values]
    assert len(judged) == len(values)
    return {g.metric for g in judged if judge(g, values[g.metric]).status is not Status.PASS}


@pytest.mark.parametrize("name", OPENED)
def test_honest_files_are_green(files: Path, checkpoint: Checkpoint, name: str) -> None:
    assert red(name, open_artifact(files / name), checkpoint) == set()
    assert red(name, for_decoding(open_artifact(files / name)), checkpoint) == set()


class OneLate:
    """A joint that is fed the prediction of the call before."""

    def __init__(self, step: SplitStep) -> None:
        self.step, self.contract = step, step.contract
        self.last: dict[str, NDArray[Any]] | None = None

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        now = {name: np.array(value) for name, value in self.step.predict(inputs).items()}
        fed = {**now, "prediction": (self.last or now)["prediction"]}
        self.last = now
        return self.step.joint(inputs, fed)


class StatesBefore:
    """A decoder that gives the joint's caller the states of before."""

    def __init__(self, step: SplitStep) -> None:
        self.step, self.contract = step, step.contract

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        found = self.step.run(inputs)
        return {**found, "h1": inputs["h0"], "c1": inputs["c0"]}


@pytest.mark.parametrize("name", OPENED)
def test_a_joint_that_is_fed_the_wrong_state_is_red(
    files: Path, checkpoint: Checkpoint, name: str
) -> None:
    step: Any = open_artifact(files / name)
    late, before = (red(name, kind(step), checkpoint) for kind in (OneLate, StatesBefore))
    assert {"sqnr_db", "max_error_ratio"} <= late
    assert "state_max_error_ratio" not in late  # the network itself is right
    assert {"sqnr_db", "state_max_error_ratio"} <= before


def copied(files: Path, folder: Path, names: Sequence[str] = FILES) -> Path:
    for name in names:
        for source in (files / name, sidecar_path(files / name)):
            (folder / source.name).write_bytes(source.read_bytes())
    return folder


def sealed(folder: Path) -> None:
    """Make the sidecars of a folder those of its files, as an exporter with a fault writes them."""
    digests = {name: sha256_of(folder / name) for name in (PREDICT, JOINT, BOTH)}
    for name, other in ((PREDICT, JOINT), (JOINT, PREDICT), (BOTH, None)):
        data = json.loads(sidecar_path(folder / name).read_text("utf-8"))
        data |= {"sha256": digests[name], "size_bytes": (folder / name).stat().st_size}
        if other:
            data["recipe"][OTHER_SHA256] = digests[other]
        sidecar_path(folder / name).write_text(json.dumps(data), "utf-8")


def scaled(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == name)
        value = numpy_helper.to_array(tensor) * np.float32(factor)
        tensor.CopyFrom(numpy_helper.from_array(value, name))

    return change


def exchanged(first: str, second: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        names = {first: second, second: first}
        for node in model.graph.node:
            node.input[:] = [names.get(item, item) for item in node.input]

    return change


@pytest.mark.parametrize(
    ("name", "fault", "broken"),
    [
        (PREDICT, scaled("table.weight", 1.01), "sqnr_db"),
        (PREDICT, scaled("cells.1.gates.bias", 1.05), "state_max_error_ratio"),
        (PREDICT, exchanged("h0", "c0"), "state_max_error_ratio"),
        (JOINT, scaled("pred.weight", 1.01), "max_error_ratio"),
        (JOINT, scaled("out.bias", 1.01), "sqnr_db"),
    ],
)
def test_a_fault_in_either_file_is_red(
    files: Path, tmp_path: Path, checkpoint: Checkpoint, name: str, fault: Any, broken: str
) -> None:
    folder = copied(files, tmp_path)
    model = onnx.load(str(folder / name))
    fault(model)
    (folder / name).write_bytes(model.SerializeToString(deterministic=True))
    sealed(folder)
    for opened in (PREDICT, JOINT):  # both are judged by the step that they make
        assert broken in red(opened, open_artifact(folder / opened), checkpoint)
    expected = expected_file(checkpoint, name, read_sidecar(folder / name), None)
    assert onnx_findings(folder / name, expected)


@pytest.mark.parametrize("part", ["prediction.cells.0.gates", "joint.pred", "joint.out"])
def test_a_fault_in_either_method_is_red(
    files: Path, tmp_path: Path, checkpoint: Checkpoint, part: str
) -> None:
    from exporters.graphs.step import StepGraph

    layer: Any = StepGraph(checkpoint.model).get_submodule(part)
    stored = layer.weight.detach().numpy().astype("<f4").tobytes()
    folder = copied(files, tmp_path)
    payload = (folder / BOTH).read_bytes()
    assert payload.count(stored) == 1
    wrong = (1.05 * np.frombuffer(stored, "<f4")).astype("<f4").tobytes()
    (folder / BOTH).write_bytes(payload.replace(stored, wrong))
    sealed(folder)
    assert "sqnr_db" in red(BOTH, open_artifact(folder / BOTH), checkpoint)
    expected = expected_file(checkpoint, BOTH, read_sidecar(folder / BOTH), None)
    beside = tmp_path / "beside.pte"
    beside.write_bytes(expected.payload)
    assert pte_findings(folder / BOTH, beside, expected)


# --- pairs that are none -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "other"), [(PREDICT, JOINT), (JOINT, PREDICT)])
def test_a_half_without_the_other_is_refused(
    files: Path, tmp_path: Path, name: str, other: str
) -> None:
    folder = copied(files, tmp_path, [name])
    with pytest.raises(ArtifactError, match=f"other half of the step, {other}, is missing beside"):
        open_artifact(folder / name)


def test_halves_of_two_checkpoints_are_refused(files: Path, tmp_path: Path) -> None:
    from tests.random_checkpoints import random_checkpoint

    # The same sizes, so that both files would run together.
    other = replace(random_checkpoint(layers=2, labels=9), sha256="1" * 64)
    other.model.joint.joint_net[-1].bias.data += 1
    made(other, tmp_path, [PREDICT, JOINT])
    copied(files, tmp_path, [JOINT])
    for name in (PREDICT, JOINT):
        with pytest.raises(ArtifactError, match="is of another checkpoint; export both again"):
            open_artifact(tmp_path / name)


@pytest.mark.parametrize("changed", [PREDICT, JOINT])
def test_halves_of_two_exports_are_refused(files: Path, tmp_path: Path, changed: str) -> None:
    folder = copied(files, tmp_path)
    model = onnx.load(str(folder / changed))
    model.doc_string = "another export"
    (folder / changed).write_bytes(model.SerializeToString())
    # Changed and not said so: the file is not its sidecar's.
    for name in (PREDICT, JOINT):
        with pytest.raises(ArtifactError, match="SHA-256 is"):
            open_artifact(folder / name)
    # Said in its own sidecar: it is not the file that the other one was made with.
    data = json.loads(sidecar_path(folder / changed).read_text("utf-8"))
    data |= {"sha256": sha256_of(folder / changed), "size_bytes": (folder / changed).stat().st_size}
    sidecar_path(folder / changed).write_text(json.dumps(data), "utf-8")
    for name in (PREDICT, JOINT):
        with pytest.raises(ArtifactError, match="is of another export; export both again"):
            open_artifact(folder / name)
    assert open_artifact(folder / BOTH)


def test_two_precisions_are_no_pair(files: Path, tmp_path: Path) -> None:
    folder = copied(files, tmp_path, [PREDICT])
    for source, target in ((files / "joint_int8.onnx", folder / JOINT),):
        target.write_bytes(source.read_bytes())
        sidecar_path(target).write_bytes(sidecar_path(source).read_bytes())
    with pytest.raises(ArtifactError, match="is of another export"):
        open_artifact(folder / PREDICT)


def test_a_file_that_claims_to_hold_parts_and_does_not(files: Path, tmp_path: Path) -> None:
    path = tmp_path / BOTH
    path.write_bytes((files / WHOLE["pte"]).read_bytes())
    sidecar = replace(read_sidecar(files / WHOLE["pte"]), variant=BOTH)
    sidecar_path(path).write_text(sidecar.to_json(), "utf-8")
    with pytest.raises(OpenError, match="no method 'predict', only forward"):
        open_artifact(path)
    # And the other way round: the step in one piece that is none.
    path = tmp_path / WHOLE["pte"]
    path.write_bytes((files / BOTH).read_bytes())
    sidecar = replace(read_sidecar(files / BOTH), variant=path.name)
    sidecar_path(path).write_text(sidecar.to_json(), "utf-8")
    with pytest.raises(OpenError, match="no method 'forward', only joint, predict"):
        open_artifact(path)


def test_a_prediction_under_another_name_is_a_mismatch_and_runs_nothing(
    files: Path, tmp_path: Path, spec: ModelSpec
) -> None:
    folder = copied(files, tmp_path)
    model = onnx.load(str(folder / PREDICT))
    for node in model.graph.node:
        node.output[:] = ["decoder_out" if name == "prediction" else name for name in node.output]
        node.input[:] = ["decoder_out" if name == "prediction" else name for name in node.input]
    model.graph.output[0].name = "decoder_out"
    (folder / PREDICT).write_bytes(model.SerializeToString())
    sealed(folder)
    step: Any = open_artifact(folder / PREDICT)
    wanted = parts_of(variant(PREDICT), spec)["predict"]
    found = audit.contract_mismatches(step.parts["predict"], wanted)
    assert found == ["output prediction: name is decoder_out, but should be prediction"]
    with pytest.raises(RunError, match="predict gives decoder_out, h1, c1, but should give pred"):
        step.run(feeds(spec, 1))


@pytest.mark.parametrize("name", OPENED)
def test_instructions_are_counted_of_what_is_in_the_file(files: Path, name: str) -> None:
    from exportgate.runtime.inputs import step_inputs
    from harness.measure.instructions.guest import open_onnx, open_pte

    given = step_inputs(read_sidecar(files / name).contract)
    run = (open_pte if name == BOTH else open_onnx)(str(files / name), given)
    found: Any = run()
    if name == BOTH:
        whole = open_artifact(files / WHOLE["pte"]).run(given)
        assert np.allclose(found[0].numpy(), whole["logits"], rtol=1e-5, atol=1e-6)


def timed(step: TimedSession, spec: ModelSpec) -> float:
    return step.elapsed([feeds(spec, 1)], 50).processor_s


def test_timing_hides_no_call(files: Path, spec: ModelSpec) -> None:
    """What is kept for a decoder would make a repeated input look free."""
    step: Any = open_artifact(files / BOTH)
    alone = step._joint.elapsed([joint_feeds(step, spec)], 50).processor_s
    assert timed(step, spec) > alone


def joint_feeds(step: SplitStep, spec: ModelSpec) -> dict[str, NDArray[Any]]:
    given = feeds(spec, 1)
    prediction = np.array(step.predict(given)["prediction"])
    return {"enc_t": given["enc_t"], "prediction": prediction}
