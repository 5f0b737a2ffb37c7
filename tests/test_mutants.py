"""The generator of mutants: what it changes, what counts, and that its verdicts can be repeated."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exportgate.artifacts.contents import flatbuffer
from tests.mutants.claims_source import ClaimsSource
from tests.mutants.flatbuffer import Walker, read_schema
from tests.mutants.judge import BELOW, KILLED, SURVIVED, Judged
from tests.mutants.log import Log
from tests.mutants.mutant import Mutant, MutantError, UnfitError, parse_name
from tests.mutants.noise import Noise
from tests.mutants.probes import Case
from tests.mutants.table import page_lines, report_lines, score, score_otherwise
from tests.mutants.tensors import TENSOR_OPERATORS, change_tensor, fits

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = """
enum Kind : short { none = 0, some = 1 }
table Node { id: uint; low: float; }
table Pair { first: int; second: int; }
union Either { Node, Alias: Pair }
table Holder {
  either: Either; kind: Kind; sizes: [long]; nodes: [Node]; raw: [ubyte]; big: double;
}
root_type Holder;
"""
CONTENT = {
    "either_type": "Alias", "either": {"first": -5, "second": 7}, "kind": "some",
    "sizes": [3, -(2**40)], "nodes": [{"id": 9, "low": 0.5}, {"low": -2.0}], "raw": [1, 2],
    "big": 1e100,
}  # fmt: skip


@pytest.mark.parametrize("place", ["const onnx::MatMul_82", "value /a/b_output_0", "blank_id"])
def test_a_name_stands_for_its_mutant(place: str) -> None:
    mutant = Mutant("step_fp32.onnx", "scale", place, 12)
    assert parse_name(mutant.name) == mutant
    assert mutant.rng().integers(1 << 62) == parse_name(mutant.name).rng().integers(1 << 62)


@pytest.mark.parametrize("name", ["", "a:b:c:1", "a:scale::1", "a:scale:b:x", "a:scale:b"])
def test_other_names_are_refused_with_the_form(name: str) -> None:
    with pytest.raises(MutantError, match="expected FILE:OPERATOR:PLACE:DRAW"):
        parse_name(name)


NUMBERS = st.one_of(
    arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=31))
    for dtype in (np.int8, np.uint8, np.int64)
) | st.one_of(
    arrays.arrays(
        dtype,
        arrays.array_shapes(max_dims=3, max_side=31),
        elements=st.floats(-100, 100, width=16),
    )
    for dtype in (np.float16, np.float32)
)


@given(NUMBERS, st.sampled_from(sorted(TENSOR_OPERATORS)), st.integers(0, 99))
def test_an_operator_changes_numbers_and_nothing_else(
    array: np.ndarray, operator: str, seed: int
) -> None:
    if not fits(operator, array, bound=40):
        return
    before = array.tobytes()
    try:
        changed, note = change_tensor(operator, array, np.random.default_rng(seed))
    except UnfitError:
        return
    assert array.tobytes() == before
    assert (changed.shape, changed.dtype) == (array.shape, array.dtype)
    assert changed.tobytes() != before
    assert note


def test_codes_stay_within_the_range_that_the_constant_has() -> None:
    codes = np.arange(-60, 61, dtype=np.int8)
    for seed in range(20):
        changed, _ = change_tensor("shift", codes, np.random.default_rng(seed))
        assert np.abs(changed.astype(int)).max() <= 60


@pytest.fixture
def holder(tmp_path: Path) -> bytes:
    flatc, _ = flatbuffer._flatc_and_schemas()
    (tmp_path / "s.fbs").write_text(SCHEMA, encoding="utf-8")
    (tmp_path / "s.json").write_text(json.dumps(CONTENT), encoding="utf-8")
    subprocess.run(
        [flatc, "-b", "-o", tmp_path, tmp_path / "s.fbs", tmp_path / "s.json"], check=True
    )
    return (tmp_path / "s.bin").read_bytes()


def test_every_scalar_of_a_flatbuffer_is_found_where_it_stands(holder: bytes) -> None:
    padding = b"\0" * 24
    walker = Walker(padding + holder, len(padding), read_schema(SCHEMA))
    found = {scalar.path: scalar for scalar in walker.scalars()}
    assert {path: scalar.value for path, scalar in found.items()} == {
        "either.Alias.type": 2, "either.Alias.first": -5, "either.Alias.second": 7, "kind": 1,
        "sizes[0]": 3, "sizes[1]": -(2**40), "nodes[0].id": 9, "nodes[0].low": 0.5,
        "nodes[1].low": -2.0, "big": 1e100,
    }  # fmt: skip
    place = found["nodes[1].low"].offset
    assert np.frombuffer((padding + holder)[place : place + 4], "<f4") == -2.0


def noise_of(errors: np.ndarray, labels: tuple[int, ...] = ()) -> tuple[Noise, list[list]]:
    """Return the noise of a file that errs by (probes, channels, frames), and its outputs."""
    cases = [
        Case({"lengths": [9], "features_bft": np.zeros((1, 1, 9))}, (n,))
        for n in range(len(errors))
    ]
    references = [np.ones_like(error) for error in errors]
    unharmed = [[1.0 + error] for error in errors]
    return Noise(cases, references, unharmed, labels), unharmed


@pytest.fixture
def errors() -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, 0.01, (20, 5, 40))


def test_other_roundings_of_the_same_size_do_not_count(errors: np.ndarray) -> None:
    noise, _ = noise_of(errors)
    for seed in range(20):
        channels = errors.swapaxes(0, 1).reshape(5, -1)
        other = np.random.default_rng(seed + 1).permuted(channels, axis=1)
        other = other.reshape(5, 20, 40).swapaxes(0, 1)
        assert not noise.effect([[1.0 + error] for error in other]).counts


def test_one_value_beyond_twice_the_largest_error_counts(errors: np.ndarray) -> None:
    noise, outputs = noise_of(errors)
    for factor, counts in ((1.9, False), (2.1, True)):
        harmed = [[rows[0].copy()] for rows in outputs]
        harmed[7][0][3, 11] += factor * np.abs(errors[:, 3]).max()
        found = noise.effect(harmed)
        assert found.counts is counts
    assert "channel 3" in found.where


def test_a_channel_shifted_by_more_than_its_noise_counts_in_one_swipe(errors: np.ndarray) -> None:
    noise, outputs = noise_of(errors)
    harmed = [[rows[0].copy()] for rows in outputs]
    harmed[4][0][2] += 0.04
    # No value moves by more than the largest error, the swipe as a whole does.
    noise.largest[:] = 1.0
    assert noise.effect(harmed).counts
    assert not noise.effect(outputs).counts


def test_calls_of_one_label_are_judged_together() -> None:
    errors = np.random.default_rng(0).normal(0.0, 0.01, (60, 4, 1))
    labels = tuple(number % 3 for number in range(60))
    noise, outputs = noise_of(errors, labels)
    noise.largest[:] = 1.0
    harmed = [[rows[0] + 0.04 * (label == 1)] for rows, label in zip(outputs, labels, strict=True)]
    found = noise.effect(harmed)
    assert found.counts
    assert found.where.startswith("symbol 1, all calls")


@pytest.mark.parametrize("broken", [np.full((5, 40), np.nan), np.ones((5, 39)), "no such input"])
def test_what_breaks_on_one_probe_counts(errors: np.ndarray, broken: object) -> None:
    noise, outputs = noise_of(errors)
    harmed = [*outputs[:-1], broken if isinstance(broken, str) else [broken]]
    assert noise.effect(harmed).counts


def test_what_runs_on_no_probe_is_told_apart(errors: np.ndarray) -> None:
    noise, outputs = noise_of(errors)
    found = noise.effect(["does not load"] * len(outputs))
    assert found.fails
    assert not found.counts


def test_float32_itself_is_no_fault() -> None:
    exact = np.zeros((3, 2, 20))
    noise, outputs = noise_of(exact)
    assert not noise.effect([[rows[0] + 1e-6] for rows in outputs]).counts
    assert noise.effect([[rows[0] + 1e-4] for rows in outputs]).counts


SIDECAR = {
    "variant": "step_fp32.onnx", "precision": "fp32", "sha256": "0a", "size_bytes": 3,
    "checkpoint_sha256": "bb", "blank_id": 2, "max_trace_len": None,
    "model": {"labels": ["a", "b"], "max_symbols": 10, "feature_dim": 37, "d_model": 96,
              "pred_hidden": 96, "pred_layers": 1, "subsampling_factor": 4},
    "feature_spec": {"version": "v1", "sha256": "cc"}, "recipe": {},
    "contract": {"inputs": [{"name": "y_prev", "dtype": "int64", "shape": ["B"]}],
                 "outputs": [{"name": "logits", "dtype": "float32", "shape": ["B", 3]}]},
}  # fmt: skip


def leaves(data: object, path: str = "") -> dict[str, object]:
    if isinstance(data, dict):
        pairs = data.items()
    elif isinstance(data, list) and path != "model.labels":
        pairs = enumerate(data)
    else:
        return {path: data}
    return {
        k: v for key, item in pairs for k, v in leaves(item, f"{path}.{key}".strip(".")).items()
    }


def test_a_claim_changes_its_own_field_only() -> None:
    source = ClaimsSource("step_fp32.onnx", json.dumps(SIDECAR))
    places = source.places()["claim"]
    assert {"blank_id", "model.labels", "contract.outputs.0.shape.1"} <= set(places)
    assert "max_trace_len" not in places
    for place in places:
        for draw in range(5):
            harm = source.harm(Mutant("step_fp32.onnx", "claim", place, draw))
            after, before = leaves(json.loads(harm.claims)), leaves(SIDECAR)
            assert [key for key in before if after[key] != before[key]] == [place]


def test_a_log_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "seed1.jsonl"
    log = Log(path, "today")
    log.add(Judged("a:scale:const b:1", "×2", KILLED, float("inf"), "everywhere", "sqnr_db 3", 0.5))
    log.add(Judged("a:scale:const c:1", "×2", SURVIVED, 3.0))
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + whole.splitlines()[-1][:20], encoding="utf-8")
    assert set(Log(path, "today").known) == {"a:scale:const b:1", "a:scale:const c:1"}
    assert not Log(path, "another gate").known
    assert path.with_suffix(".old").is_file()


def test_the_report_counts_what_counts() -> None:
    rows = [
        Judged("a.pte:scale:const b:1", "×2", KILLED, 9.0, "T 3", "sqnr_db 3, ≥ 36 dB", 0.5, "b"),
        Judged("a.pte:scale:const c:1", "×1.05", SURVIVED, 2.0, "T 4", "min_cosine 1, ≥ 0.9", 0.5),
        Judged("a.pte:zero:const d:1", "0", BELOW, 0.1),
    ]
    text = "\n".join(report_lines(rows))
    assert score(rows) == 0.5
    assert "score 0.5000: 1 of 2 counted mutants killed, 1 survived" in text
    assert "--only 'a.pte:scale:const c:1'" in text
    assert "| scale | 1/2 | 1/2 |" in text
    assert "| zero | · | · |" in text


def test_what_only_constants_see_is_said() -> None:
    killed = "constant_mismatches 1, ≤ 0"
    rows = [
        Judged("a.pte:scale:const b:1", "×2", KILLED, 9.0, "T 3", killed, 0.5, "sqnr_db 3, ≥ 36"),
        Judged("a.pte:scale:const c:1", "×2", KILLED, 9.0, "T 3", killed, 0.5),
        Judged("a.pte:claim:blank_id:1", "2 → 3", KILLED, 9.0, "T 3", "x 1", 0.5, "x 1"),
        Judged("a.pte:zero:const c:1", "0", SURVIVED, 9.0, "T 3", "sqnr_db 40, ≥ 36", 0.5),
    ]
    assert (score(rows), score_otherwise(rows)) == (0.75, 0.5)
    text = "\n".join(page_lines(rows, 5))
    assert "by seed 5" in text
    assert "without constant_mismatches: 0.5000, 2 of 4 survive" in text
    assert "| scale | 2/2 (1) | 2/2 (1) |" in text
    assert "| a.pte | scale | 1 |" in text
    assert "survivor: a.pte:zero:const c:1" in text
    assert "None." in "\n".join(page_lines(rows[:3], 5))
