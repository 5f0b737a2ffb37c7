"""Gates are read strictly, and nothing but a kept limit passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.variants import VARIANTS
from harness.gate.gates import Gate, GateError, Status, Verdict, judge, read_gates, waive
from harness.gate.pytest_plugin import CHECKPOINT
from harness.metrics import METRICS, Role

ARTIFACTS = ["encoder_int8.pte", CHECKPOINT]


def write(tmp_path: Path, text: str, name: str = "gates.toml") -> Path:
    path = tmp_path / name
    path.write_text("schema = 1\n" + text, encoding="utf-8")
    return path


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_limit_is_kept_or_broken(value: float, limit: float) -> None:
    least = judge(Gate("a", "sqnr_db", "min", limit), value)
    most = judge(Gate("a", "sqnr_db", "max", limit), value)
    assert (least.status is Status.PASS) == (value >= limit)
    assert (most.status is Status.PASS) == (value <= limit)


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_was_not_measured_does_not_pass(value: float | None) -> None:
    for direction in ("min", "max"):
        verdict = judge(Gate("a", "sqnr_db", direction, 0.0), value)
        assert verdict.status is Status.NOT_MEASURED
        assert verdict.detail


def test_a_verdict_survives_json() -> None:
    verdict = judge(Gate("a", "sqnr_db", "min", 40.0), 12.5, "worst: swipe 3")
    assert Verdict.from_json(verdict.to_json()) == verdict
    waived = waive(Gate("a", "baseline_instruction_ratio", "max", 1.01), "no emulator")
    assert Verdict.from_json(waived.to_json()) == waived


@pytest.mark.parametrize("metric", METRICS)
def test_only_what_needs_an_optional_tool_may_be_waived(metric: str) -> None:
    gate = Gate("a", metric, "max", 1.0)
    if METRICS[metric].role is Role.OPTIONAL:
        assert metric in {
            "baseline_instruction_ratio",
            "constant_mismatches",
            "delegated_node_ratio",
            "delegated_compute_ratio",
        }
        assert (waive(gate, "why").status, waive(gate, "why").good) == (Status.NOT_MEASURED, True)
    else:
        with pytest.raises(GateError, match="cannot be waived"):
            waive(gate, "why")


@pytest.mark.parametrize(
    "metric", [name for name, metric in METRICS.items() if metric.role is Role.INFORMATIONAL]
)
def test_what_is_informational_takes_no_gate(metric: str, tmp_path: Path) -> None:
    path = write(tmp_path, f'["encoder_int8.pte"]\n{metric}_max = 5\n')
    with pytest.raises(GateError, match=f"limits {metric}, which is informational"):
        read_gates([path], ARTIFACTS)


@pytest.mark.parametrize("status", [Status.PASS, Status.FAIL])
def test_what_was_measured_is_not_waived(status: Status) -> None:
    gate = Gate("a", "baseline_instruction_ratio", "max", 1.01)
    with pytest.raises(GateError, match="cannot be waived"):
        Verdict(gate, 1.0, status, waived=True)


def test_profiles_are_shared_and_overridden(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[profile.int8]\nsqnr_db_min = 26\ndelegates_max = 10\n"
        '["encoder_int8.pte"]\nprofiles = ["int8"]\nsqnr_db_min = 40\n'
        'allowed_fallback_ops = ["aten::add"]\n',
    )
    book = read_gates([path], ARTIFACTS)
    assert {gate.key: gate.limit for gate in book.of("encoder_int8.pte")} == {
        "sqnr_db_min": 40.0,
        "delegates_max": 10.0,
    }
    assert book.settings["encoder_int8.pte"]["allowed_fallback_ops"] == ("aten::add",)


def test_a_user_lays_single_keys_over(tmp_path: Path) -> None:
    base = write(
        tmp_path,
        "[profile.int8]\nsqnr_db_min = 26\ndelegates_max = 10\n"
        '["encoder_int8.pte"]\nprofiles = ["int8"]\n',
    )
    over = write(tmp_path, "[profile.int8]\ndelegates_max = 2\n", "over.toml")
    book = read_gates([base, over], ARTIFACTS)
    assert {gate.key: gate.limit for gate in book.of("encoder_int8.pte")} == {
        "sqnr_db_min": 26.0,
        "delegates_max": 2.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('["encoder_int8.pte"]\nsqnr_min = 1\n', "unknown key 'sqnr_min'"),
        ('["encoder_int8.pte"]\nsqnr_db = 1\n', "unknown key 'sqnr_db'"),
        ('["encoder_int8.pte"]\nsqnr_min = 1\n', "most like it: .*sqnr_db_min"),
        ('["encoder_int8.pte"]\nxyz = 1\n', "most like it: see harness/metrics.py"),
        ('["encoder_int8.pte"]\nsqnr_db_min = "40"\n', "should be a number"),
        ('["encoder_int8.pte"]\nsqnr_db_min = true\n', "should be a number"),
        ('["encoder_int8.pte"]\nsqnr_db_min = nan\n', "should be a number"),
        ('["encoder_int8.pte"]\nprofiles = ["x"]\n', "unknown profile 'x'"),
        ('["encoder_int4.pte"]\nsqnr_db_min = 1\n', "is no artifact"),
        ("sqnr_db_min = 1\n", "stands outside every section"),
        ('["encoder_int8.pte"\n', "cannot read the gates"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(GateError, match=message):
        read_gates([write(tmp_path, text)], ARTIFACTS)


def test_another_schema_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text("schema = 2\n", encoding="utf-8")
    with pytest.raises(GateError, match="schema is 2, but should be 1"):
        read_gates([path], ARTIFACTS)


def test_a_artifact_without_a_gate_is_an_error(tmp_path: Path) -> None:
    book = read_gates([write(tmp_path, "[checkpoint]\nswipes_min = 1\n")], ARTIFACTS)
    with pytest.raises(GateError, match=r"encoder_int8\.pte has no gate"):
        book.of("encoder_int8.pte")


def test_every_row_of_the_table_is_gated() -> None:
    path = Path(__file__).parent.parent / "suites" / "gates.toml"
    names = [row.name for row in VARIANTS]
    book = read_gates([path], [CHECKPOINT, *names])
    for name in names:
        metrics = {gate.metric for gate in book.of(name)}
        assert "contract_mismatches" in metrics, name
        assert "provenance_mismatches" in metrics, name
