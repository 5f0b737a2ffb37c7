"""Files that are called otherwise, on their runtimes; and files that claim it and are not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from exporters.variants import VARIANTS, contract_of, variant
from exportgate.artifacts.sidecar import read_sidecar, sha256_of, sidecar_path
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from exportgate.runtime.canonical import CanonicalSession
from exportgate.runtime.executorch_runtime import PteSession
from exportgate.runtime.inputs import encoder_input
from exportgate.runtime.onnx_runtime import OrtSession
from exportgate.runtime.opening import open_artifact
from exportgate.runtime.session import InputError
from harness.decode.beam import beam_search
from harness.decode.greedy import greedy_decode
from harness.gate.gates import Status, judge, read_gates
from harness.inspect import audit
from harness.measure import coverage, parity
from harness.measure.expected.rollout import Rollout, log_softmax
from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from exportgate.runtime.session import TimedSession

pytestmark = pytest.mark.slow
GATES = REPOSITORY / "suites" / "gates.toml"
PLAIN = ("encoder_fp32.onnx", "encoder_fp32.pte", "step_fp32.onnx", "step_fp32.pte")
CALLED = (
    "encoder_fp32_int32.onnx",
    "encoder_fp32_int32.pte",
    "step_fp32_log_probs.onnx",
    "step_fp32_batch8_log_probs.pte",
)
OPTIONS = ["--lengths_dtype", "int32", "--step_batch", "8", "--log_probs"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, golden: Path) -> Path:
    """Export golden's files as ours are called, and otherwise."""
    from exporters import release

    folder = tmp_path_factory.mktemp("called")
    arguments = ["--checkpoint", str(golden / "golden.nemo"), "--out", str(folder)]
    arguments += [
        "--calibration",
        str(golden / "calib.jsonl"),
        "--cache",
        str(REPOSITORY / "build" / "gate" / "cache"),
    ]
    arguments += [part for name in PLAIN for part in ("--variant", name)]
    assert release.main(arguments) == 0
    assert release.main([*arguments, *OPTIONS]) == 0
    return folder


@pytest.fixture(scope="module")
def features(golden: Path) -> list[NDArray[np.float32]]:
    return [featurize(swipe.points).T for swipe in read_manifest(golden / "val.jsonl")[:12]]


def test_release_names_them(files: Path) -> None:
    assert {path.name for path in files.glob("*[xe]")} >= {*PLAIN, *CALLED}
    for name in CALLED:
        sidecar = read_sidecar(files / name)
        assert sidecar.variant == name
        assert sidecar.contract == contract_of(variant(name), sidecar.model)


def opened(path: Path) -> TimedSession:
    """Open a file without what makes it be called as ours are."""
    return OrtSession(path) if path.suffix == ".onnx" else PteSession(
        path, read_sidecar(path).contract
    )  # fmt: skip


@pytest.mark.parametrize("place", [0, 1])
def test_int32_lengths(files: Path, features: list[NDArray[np.float32]], place: int) -> None:
    ours, theirs = opened(files / PLAIN[place]), opened(files / CALLED[place])
    for item in features:
        given = encoder_input(np.ascontiguousarray(item))
        with pytest.raises(InputError, match="int64, but should be int32"):
            theirs.run(given)
        wanted = ours.run(given)
        found = theirs.run({**given, "lengths": given["lengths"].astype(np.int32)})
        assert found["encoded_lengths"].dtype == np.int32
        assert found["encoded_lengths"].tolist() == wanted["encoded_lengths"].tolist()
        assert np.array_equal(found["encoded_bdt"], wanted["encoded_bdt"])


def step_feeds(files: Path, rows: int) -> dict[str, NDArray[Any]]:
    model, rng = read_sidecar(files / PLAIN[2]).model, np.random.default_rng(0)
    state = (model.pred_layers, rows, model.pred_hidden)
    return {
        "y_prev": rng.integers(0, model.vocab_size, rows),
        "h0": rng.normal(size=state).astype(np.float32),
        "c0": rng.normal(size=state).astype(np.float32),
        "enc_t": rng.normal(size=(rows, model.d_model)).astype(np.float32),
    }


def row(feeds: dict[str, NDArray[Any]], index: int) -> dict[str, NDArray[Any]]:
    axes = {"y_prev": 0, "h0": 1, "c0": 1, "enc_t": 0}
    return {n: np.ascontiguousarray(v.take([index], axis=axes[n])) for n, v in feeds.items()}


@pytest.mark.parametrize("place", [2, 3])
def test_a_step_gives_log_probabilities_of_each_row(files: Path, place: int) -> None:
    ours, theirs = opened(files / PLAIN[place]), opened(files / CALLED[place])
    feeds = step_feeds(files, 8)
    found = theirs.run(feeds)
    assert list(found) == ["log_probs", "h1", "c1"]
    for index in range(8):
        wanted = ours.run(row(feeds, index))
        assert np.allclose(found["log_probs"][index], log_softmax(wanted["logits"])[0], atol=1e-5)
        assert np.allclose(found["h1"][:, index], wanted["h1"][:, 0], atol=1e-6)
    if place == 3:
        with pytest.raises(InputError, match=r"shape \(1,\), but should have \(8,\)"):
            theirs.run(row(feeds, 0))


@pytest.mark.parametrize("rows", [1, 3, 8, 19])
def test_any_number_of_hypotheses_goes_through_a_fixed_batch(files: Path, rows: int) -> None:
    session = open_artifact(files / CALLED[3])
    assert isinstance(session, CanonicalSession)
    feeds, ours = step_feeds(files, rows), open_artifact(files / PLAIN[3])
    found = session.run(feeds)
    assert found["logits"].shape[0] == found["h1"].shape[1] == rows
    for index in range(rows):
        wanted = log_softmax(ours.run(row(feeds, index))["logits"])
        assert np.allclose(found["logits"][index], wanted[0], atol=1e-5)
    assert session.elapsed([feeds], 2).wall_s > 0


@pytest.mark.parametrize("pair", [(0, 2), (1, 3)])
def test_words_are_the_same(
    files: Path, features: list[NDArray[np.float32]], pair: tuple[int, int]
) -> None:
    model = read_sidecar(files / PLAIN[0]).model
    sides = [
        [open_artifact(files / names[place]) for place in pair] for names in (PLAIN, CALLED)
    ]  # fmt: skip
    for item in features[:6]:
        found = []
        for encoder, step in sides:
            outputs = encoder.run(encoder_input(np.ascontiguousarray(item)))
            assert outputs["encoded_lengths"].dtype == np.int64
            encoded = np.array(outputs["encoded_bdt"][0, :, : int(outputs["encoded_lengths"][0])])
            greedy = greedy_decode(step, encoded, model)
            best = beam_search(step, encoded, model)[0]
            found.append((greedy.tokens, best.tokens))
            found[-1] += (round(greedy.score, 3), round(best.score, 3))
        assert found[0] == found[1]


# --- files that claim one interface and have another ---------------------------------------------


def claimed(source: Path, name: str, folder: Path, payload: bytes | None = None) -> Path:
    """Put a file under another name, with a sidecar that says what the name says."""
    path = folder / name
    path.write_bytes(source.read_bytes() if payload is None else payload)
    sidecar = read_sidecar(source)
    sidecar = replace(
        sidecar,
        variant=name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        contract=contract_of(variant(name), sidecar.model),
    )
    sidecar_path(path).write_text(sidecar.to_json(), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("source", "name", "problem"),
    [
        (PLAIN[0], CALLED[0], "lengths: dtype is int64, but should be int32"),
        (PLAIN[1], CALLED[1], "lengths: dtype is int64, but should be int32"),
        (CALLED[1], PLAIN[1], "lengths: dtype is int32, but should be int64"),
        (PLAIN[2], CALLED[2], "log_probs: name is logits, but should be log_probs"),
        (CALLED[2], PLAIN[2], "logits: name is log_probs, but should be logits"),
        (PLAIN[3], "step_fp32_batch8.pte", "y_prev: shape is (1), but should be (8)"),
        (CALLED[3], "step_fp32_log_probs.pte", "y_prev: shape is (8), but should be (1)"),
    ],
)
def test_a_claim_that_the_file_contradicts_is_a_mismatch(
    files: Path, tmp_path: Path, source: str, name: str, problem: str
) -> None:
    path = claimed(files / source, name, tmp_path)
    wanted = contract_of(variant(name), read_sidecar(path).model)
    found = audit.contract_mismatches(open_artifact(path).contract, wanted)
    assert any(problem in line.replace(",)", ")") for line in found), found


def rollout(step: TimedSession, feeds: dict[str, NDArray[Any]]) -> Rollout:
    """Return calls of a step as those of NeMo's, whose states are never kept."""
    rows = len(feeds["y_prev"])
    zero = np.zeros_like(feeds["h0"])
    outputs = [
        step.run(row({**feeds, "h0": zero, "c0": zero}, index)) for index in range(rows)
    ]  # fmt: skip
    stacked = {
        name: np.concatenate([np.array(found[name]) for found in outputs], axis=axis)
        for name, axis in (("logits", 0), ("h1", 1), ("c1", 1))
    }
    return Rollout(
        feeds["y_prev"],
        feeds["enc_t"],
        np.zeros(rows, bool),
        stacked["logits"],
        np.moveaxis(stacked["h1"], 1, 0),
        np.moveaxis(stacked["c1"], 1, 0),
    )


def red(name: str, found: parity.StepComparison) -> set[str]:
    values = {
        "normalised_logits": found.normalised,
        "sqnr_db": found.logits.sqnr_db,
    }
    book = read_gates([GATES], [*(item.name for item in VARIANTS), "checkpoint", name])
    return {
        gate.metric
        for gate in book.of(name)
        if gate.metric in values and judge(gate, values[gate.metric]).status is not Status.PASS
    }


def identity(path: Path) -> bytes:
    """Return a file whose log_probs are the logits."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type == "LogSoftmax":
            node.op_type = "Identity"
            del node.attribute[:]
    return model.SerializeToString()


def test_raw_logits_that_are_called_log_probabilities_are_red(files: Path, tmp_path: Path) -> None:
    feeds = step_feeds(files, 40)
    nemo = rollout(open_artifact(files / PLAIN[2]), feeds).with_log_probs()
    honest = parity.compare_rollouts(open_artifact(files / CALLED[2]), [nemo])
    assert red(CALLED[2], honest) == set()
    # Of a .pte the names are the sidecar's: only what comes out can tell.
    lies = [
        claimed(files / CALLED[2], CALLED[2], tmp_path, identity(files / CALLED[2])),
        claimed(files / PLAIN[3], "step_fp32_log_probs.pte", tmp_path),
    ]
    for path in lies:
        found = parity.compare_rollouts(open_artifact(path), [nemo])
        assert red(path.name, found) == {"normalised_logits", "sqnr_db"}
    # And the other way round.
    raw = rollout(open_artifact(files / PLAIN[2]), feeds)
    hidden = claimed(files / CALLED[3], "step_fp32_batch8.pte", tmp_path)
    found = parity.compare_rollouts(open_artifact(hidden), [raw])
    assert red(hidden.name, found) == {"normalised_logits", "sqnr_db"}


def test_what_a_file_is_compared_with_is_log_probabilities_too(files: Path) -> None:
    symbols = read_sidecar(files / PLAIN[2]).model.vocab_size
    drive = coverage.LabelDrive(
        **{**step_feeds(files, symbols), "y_prev": np.arange(symbols, dtype=np.int64)}
    )
    nemo = coverage.drive_labels(open_artifact(files / PLAIN[2]), drive)
    ours = coverage.drive_labels(open_artifact(files / CALLED[3]), drive)
    assert coverage.label_errors(drive, nemo.with_log_probs(), ours).logits_db > 100
    assert coverage.label_errors(drive, nemo, ours).logits_db < 20


def test_a_bundle_says_it_to_clients(files: Path, tmp_path: Path) -> None:
    from exporters.pipeline.bundle import write_bundle
    from harness.client.specify import specify

    write_bundle(tmp_path / "bundle", [files / CALLED[1], files / CALLED[3]], lexicon=None)
    words = tmp_path / "words.txt"
    manifest = REPOSITORY / "golden" / "val.jsonl"
    words.write_text("\n".join(sorted({s.word for s in read_manifest(manifest)})), "utf-8")
    specify(tmp_path / "bundle", manifest, lexicon=words)
    document = json.loads((tmp_path / "bundle" / "decode.json").read_text("utf-8"))
    assert document["files"][CALLED[3]]["scores"] == "log_probs"
    known = json.loads((tmp_path / "bundle" / "known_answers.json").read_text("utf-8"))
    (pair,) = known["pairs"]
    steps: Sequence[dict[str, Any]] = pair["answers"][0]["steps"]
    sums = [np.logaddexp.reduce(step["logits"]) for step in steps]
    assert np.allclose(sums, 0, atol=1e-5)
