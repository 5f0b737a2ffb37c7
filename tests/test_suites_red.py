"""Gates whose faults need no real file: the suites' own functions on a context that is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from exporters.nemo.checkpoint import LoadReport
from exporters.variants import VARIANTS, variant
from exportgate.artifacts.contents.reading import Contents
from exportgate.contract import IoContract, ModelSpec, encoder_contract, step_contract
from exportgate.runtime.session import InputError
from harness.decode.greedy import Hypothesis
from harness.gate.gates import Status, judge, read_gates
from harness.gate.pytest_plugin import CHECKPOINT
from harness.measure import coverage, parity
from harness.measure.compare import compare
from harness.measure.instructions import Count
from harness.run.outputs import Outputs
from suites import (
    test_contract,
    test_coverage,
    test_decode,
    test_delegation,
    test_load,
    test_parity,
    test_regression,
)

if TYPE_CHECKING:
    from collections.abc import Callable

GATES = Path(__file__).resolve().parent.parent / "suites" / "gates.toml"
BOOK = read_gates([GATES], [CHECKPOINT, *(row.name for row in VARIANTS)])


def red(artifact: str, suite: Callable[..., None], context: Any, *args: Any) -> set[str]:
    """Return the metrics of a suite's test that break a gate of the artifact."""
    values: dict[str, float] = {}

    def record(metric: str, value: float, *_: Any, **__: Any) -> None:
        values[metric] = value

    suite(artifact, context, record, *args)
    verdicts = [judge(g, values[g.metric]) for g in BOOK.of(artifact) if g.metric in values]
    assert verdicts
    return {v.gate.metric for v in verdicts if v.status is not Status.PASS}


def allowed(artifact: str, key: str) -> tuple[str, ...]:
    return BOOK.settings[artifact][key]


def hypothesis(tokens: tuple[int, ...], margin: float = 1.0) -> Hypothesis:
    return Hypothesis(tokens, (), -1.0, margin, 1)


def decoded(nemo: list[Hypothesis], ours: list[Hypothesis], right: tuple[float, float]) -> Any:
    spec = SimpleNamespace(labels=tuple("abc"))
    return SimpleNamespace(
        nemo=SimpleNamespace(reference=lambda: SimpleNamespace(spec=spec, hypotheses=nemo)),
        words=SimpleNamespace(
            hypotheses=lambda _: ours,
            nemo_accuracy=lambda: right[0],
            accuracy=lambda _: right[1],
        ),
    )


@pytest.mark.parametrize(("row", "broken"), [(0.0, set()), (1e-6, {"blank_row_max_abs"})])
def test_a_blank_row_that_is_not_zero(row: float, broken: set[str]) -> None:
    reference = SimpleNamespace(
        load=LoadReport((), (), ()), blank_row_max_abs=row, spec=SimpleNamespace(blank_id=29)
    )
    context = SimpleNamespace(nemo=SimpleNamespace(reference=lambda: reference))
    assert red(CHECKPOINT, test_load.test_blank_row, context) == broken


@pytest.mark.parametrize(
    ("margin", "error", "broken"),
    [
        (1e-4, 2e-4, set()),
        (1e-4, 0.9e-4, {"token_mismatches"}),
        (0.5, 0.6, {"token_mismatches"}),  # no rounding of FP32 moves a margin so far
    ],
)
def test_a_near_tie_is_one_within_the_files_own_error(
    margin: float, error: float, broken: set[str]
) -> None:
    nemo = [hypothesis((0,), margin), *[hypothesis((2,))] * 9]
    context = decoded(nemo, [hypothesis((1,)), *nemo[1:]], (1.0, 1.0))
    context.words.margin_error = lambda *_: error
    assert red("encoder_fp32.pte", test_decode.test_tokens, context) == broken


@pytest.mark.parametrize("artifact", ["encoder_int8.onnx", "encoder_int4.pte", "step_int8.pte"])
@pytest.mark.parametrize(("margin", "broken"), [(0.5, set()), (0.7, {"token_mismatches"})])
def test_integers_may_turn_what_they_move_far_enough(
    artifact: str, margin: float, broken: set[str]
) -> None:
    nemo = [hypothesis((0,), margin), *[hypothesis((2,))] * 9]
    context = decoded(nemo, [hypothesis((1,)), *nemo[1:]], (1.0, 1.0))
    context.words.margin_error = lambda *_: 0.6
    assert red(artifact, test_decode.test_tokens, context) == broken


@pytest.mark.parametrize(
    ("ops", "delegates", "broken"),
    [
        ({"aten::sym_size.int": 1}, 1, set()),
        ({}, 76, {"delegates"}),
        ({"aten::native_layer_norm.out": 40}, 1, {"unexpected_fallback_ops"}),
        (
            {"quantized_decomposed::dequantize_per_tensor.out": 2},
            1,
            {"undelegated_qdq_ops", "unexpected_fallback_ops"},
        ),
    ],
)
def test_fallbacks(ops: dict[str, int], delegates: int, broken: set[str]) -> None:
    contents = Contents({"qcint8": 100}, ops, 1, 0, delegates)
    context = SimpleNamespace(files=SimpleNamespace(contents=lambda _: contents))
    assert red("encoder_int8.pte", test_delegation.test_fallbacks, context, allowed) == broken


@pytest.mark.parametrize(
    ("nodes", "compute", "broken"),
    [
        (0.98, 1.0, set()),
        (0.76, 1.0, set()),  # bookkeeping: the share falls with the number of layers
        (0.98, 0.81, {"delegated_compute_ratio"}),
    ],
)
def test_delegation_ratios(nodes: float, compute: float, broken: set[str]) -> None:
    lowering = {"node_ratio": nodes, "compute_ratio": compute, "mac_ratio": 1.0}
    context = SimpleNamespace(
        files=SimpleNamespace(sidecar=lambda _: SimpleNamespace(lowering=lowering))
    )
    assert red("encoder_int8.pte", test_delegation.test_ratios, context) == broken


@pytest.mark.parametrize("artifact", ["step_int8.onnx", "step_fp32.pte", "encoder_int8.onnx"])
@pytest.mark.parametrize(
    ("sqnr", "broken"), [(48.0, False), (44.0, False), (43.9, True), (math.nan, True)]
)
def test_less_faithful_than_released(artifact: str, sqnr: float, *, broken: bool) -> None:
    context = SimpleNamespace(
        outputs=SimpleNamespace(comparison=lambda _: SimpleNamespace(sqnr_db=sqnr))
    )
    released = SimpleNamespace(sidecar=lambda _: None, value=lambda *_: 47.0)
    found = red(artifact, test_regression.test_fidelity, context, released)
    assert ("baseline_sqnr_drop_db" in found) == broken


@pytest.mark.parametrize(
    ("instructions", "broken"), [(1010, set()), (1011, {"baseline_instruction_ratio"})]
)
def test_more_instructions_than_released(
    instructions: int, broken: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Count("guest", (instructions,)), Count("guest", (1000,))
    monkeypatch.setattr(test_regression, "counted_cost", lambda *_: counts)
    assert red("step_fp32.onnx", test_regression.test_instructions, None, None) == broken


@pytest.mark.parametrize(("noise", "broken"), [(0.001, set()), (0.1, {"worst_bucket_sqnr_db"})])
def test_one_bad_length_bucket(noise: float, broken: set[str]) -> None:
    rng = np.random.default_rng(0)
    wanted = [rng.normal(size=(4, 8)).astype(np.float32) for _ in range(4)]
    found = [*wanted[:3], wanted[3] * (1 + noise)]
    lines = [SimpleNamespace(points=[0] * n) for n in (20, 50, 90, 120)]
    context = SimpleNamespace(
        nemo=SimpleNamespace(reference=lambda: SimpleNamespace(encoded=wanted)),
        outputs=SimpleNamespace(encoder=lambda _: SimpleNamespace(encoded=found)),
        swipes=SimpleNamespace(all=lambda: lines),
    )
    assert red("encoder_int8.pte", test_parity.test_length_buckets, context) == broken


SPEC = ModelSpec(8, 96, 3, 4, 15, "striding", 2, 96, 1, 128, tuple("abc"), 10)


def stated(artifact: str, place: tuple[Any, ...] = (), value: Any = None) -> Any:
    """Return a context whose sidecar of an artifact states something else at one place."""
    row = variant(artifact)
    implied = encoder_contract if row.graph == "encoder" else step_contract
    claims: Any = {
        "contract": implied(SPEC, batch=1 if row.format == "pte" else "B").to_json(),
        "max_trace_len": 200 if row.graph == "encoder" else None,
    }
    # As a sidecar is read: from JSON, whose lists can be changed.
    claims = json.loads(json.dumps(claims))
    inner = claims
    for key in place[:-1]:
        inner = inner[key]
    if place:
        inner[place[-1]] = value
    sidecar = SimpleNamespace(
        contract=IoContract.from_json(claims["contract"]), max_trace_len=claims["max_trace_len"]
    )
    reference = SimpleNamespace(spec=SPEC)
    return SimpleNamespace(
        request=SimpleNamespace(max_trace_len=200),
        nemo=SimpleNamespace(reference=lambda: reference),
        files=SimpleNamespace(sidecar=lambda _: sidecar, is_third_party=lambda _: False),
    )


@pytest.mark.parametrize("artifact", [row.name for row in VARIANTS])
def test_a_sidecar_that_states_what_is_implied(artifact: str) -> None:
    assert red(artifact, test_contract.test_sidecar, stated(artifact)) == set()


@pytest.mark.parametrize(
    ("artifact", "place", "value"),
    [
        ("encoder_int8.pte", ("max_trace_len",), 0),
        ("encoder_fp16.onnx", ("max_trace_len",), 199),
        ("encoder_fp32.onnx", ("max_trace_len",), None),
        ("encoder_int4.pte", ("max_trace_len",), 200.0),
        ("step_int8.onnx", ("max_trace_len",), 200),
        ("step_fp32.onnx", ("contract", "outputs", 1, "name"), "H1"),
        ("encoder_fp32.onnx", ("contract", "inputs", 1, "dtype"), "float32"),
        ("step_fp32.pte", ("contract", "inputs", 1, "shape", 2), 97),
        ("encoder_int8_ultra.pte", ("contract", "outputs", 0, "shape", 0), "B"),
        ("encoder_fp16.pte", ("contract", "inputs", 1, "shape", 0), "1"),
        ("step_int8.pte", ("contract", "inputs", 2, "shape", 1), True),
        ("encoder_int8.onnx", ("contract", "outputs"), []),
    ],
)
def test_a_sidecar_that_states_something_else(
    artifact: str, place: tuple[Any, ...], value: Any
) -> None:
    context = stated(artifact, place, value)
    assert red(artifact, test_contract.test_sidecar, context) == {"sidecar_mismatches"}


def noise_at(decibels: float, count: int = 40, length: int = 7) -> Any:
    """Return a context whose encoder's noise stands out by so much at one trace length."""
    rng = np.random.default_rng(0)
    inputs = [np.zeros((8, n), np.float32) for n in range(1, count + 1)]
    wanted = [rng.normal(size=(96, n)).astype(np.float32) for n in range(1, count + 1)]
    usual = 1e-5 * 10 ** (decibels / 20 * (np.arange(1, count + 1) == length))
    given = [
        item + (noise * rng.normal(size=item.shape)).astype(np.float32)
        for item, noise in zip(wanted, usual, strict=True)
    ]

    class Encoder:
        def run(self, inputs: Any) -> Any:
            frames = inputs["features_bft"].shape[2]
            if frames > count:
                msg = "too long"
                raise InputError(msg)
            return {
                "encoded_bdt": given[frames - 1][None],
                "encoded_lengths": np.array([frames]),
            }

    sweep = parity.sweep_shapes(Encoder(), inputs, wanted, count, 90.0)  # type: ignore[arg-type]
    swipes = [rng.normal(size=(96, n)) for n in rng.integers(5, 30, 300)]
    noisy = [item + 1e-5 * rng.normal(size=item.shape) for item in swipes]
    found = Outputs.farthest_length(
        SimpleNamespace(  # type: ignore[arg-type]
            memo={},
            shape_sweep=lambda _: sweep,
            nemo=SimpleNamespace(reference=lambda: SimpleNamespace(encoded=swipes)),
            swipes=SimpleNamespace(all=lambda: [SimpleNamespace(points=[0] * count)]),
            _encoder_comparison=lambda _: compare(swipes, noisy),
        ),
        "encoder_fp32.onnx",
    )
    return SimpleNamespace(
        request=SimpleNamespace(max_trace_len=count),
        outputs=SimpleNamespace(shape_sweep=lambda _: sweep, farthest_length=lambda _: found),
    )


@pytest.mark.parametrize(
    ("decibels", "broken"),
    [
        (0, set()),
        (0.2, set()),
        (8, {"length_noise_p"}),
        (15, {"shape_failures", "length_noise_p"}),
        (60, {"shape_failures", "length_noise_p"}),
    ],
)
def test_one_length_that_is_farther_from_nemo(decibels: float, broken: set[str]) -> None:
    context = noise_at(decibels)
    assert red("encoder_fp32.onnx", test_parity.test_shapes, context) == broken


def test_every_length_up_to_the_bound_is_run() -> None:
    swipes = [np.ones((8, n), np.float32) for n in (20, 31)]
    found = [item.shape[1] for item in parity.sweep_inputs(swipes, 200)]
    assert found == list(range(1, 201))
    large = set(parity.sweep_lengths(1000))
    assert large >= {*range(1, 41), *range(971, 1001)}
    assert max(large) == 1000


LABELS = tuple("abcdefghijklmnopqrstuvw")
SYMBOLS = len(LABELS) + 1
CALLS = 8 * SYMBOLS


@pytest.mark.parametrize(
    ("artifact", "noise", "harm", "broken"),
    [
        ("step_int8.onnx", 1e-3, 1, set()),
        ("step_int8.pte", 1e-3, 1.3, set()),
        ("step_int8.pte", 1e-3, 3, {"label_noise_p"}),
        ("step_int8.onnx", 1e-3, 12, {"label_noise_p"}),
        ("step_int8.pte", 1e-3, math.nan, {"label_noise_p", "worst_label_sqnr_db"}),
        ("step_fp32.onnx", 1e-6, 12, {"label_noise_p"}),
    ],
)
def test_one_label_that_is_embedded_wrongly(
    artifact: str, noise: float, harm: float, broken: set[str]
) -> None:
    rng = np.random.default_rng(0)
    fed = np.tile(np.arange(SYMBOLS), 8)
    drive = coverage.LabelDrive(
        fed, *[np.zeros((1, CALLS, 96), np.float32)] * 2, np.zeros((CALLS, 96))
    )

    def outputs(scale: float) -> coverage.StepOutputs:
        moved = (np.where(fed == 2, harm, 1.0) * scale)[:, None]
        logits, h1, c1 = (
            (item + moved * rng.normal(size=item.shape)).astype(np.float32) for item in truth
        )
        return coverage.StepOutputs(logits, h1[None], c1[None])

    truth = [rng.normal(size=(CALLS, n)) for n in (SYMBOLS, 96, 96)]
    nemo = coverage.StepOutputs(
        truth[0].astype(np.float32), *[t[None].astype(np.float32) for t in truth[1:]]
    )
    found = coverage.label_errors(drive, nemo, outputs(noise))
    reference = SimpleNamespace(spec=SimpleNamespace(labels=LABELS))
    context = SimpleNamespace(
        nemo=SimpleNamespace(reference=lambda: reference),
        outputs=SimpleNamespace(labels=lambda _: found),
    )
    broke = red(artifact, test_coverage.test_every_symbol, context)
    assert broke - {"worst_symbol_sqnr_db", "symbol_noise_p"} == broken


@pytest.mark.parametrize(
    ("louder", "shift", "broken"),
    [
        (1.0, 0.0, set()),
        (1.2, 0.0, set()),
        (6.0, 0.0, {"symbol_noise_p"}),
        (1.0, 0.05, {"symbol_noise_p"}),  # a bias that is 0.05 nats off
        (2.0, 0.0, set()),
        (2.0, 0.05, {"symbol_noise_p"}),  # and where the symbol is noisier than others
    ],
)
def test_one_symbol_that_is_scored_wrongly(louder: float, shift: float, broken: set[str]) -> None:
    rng = np.random.default_rng(0)
    drive = coverage.LabelDrive(
        np.tile(np.arange(SYMBOLS), 8),
        *[np.zeros((1, CALLS, 96), np.float32)] * 2,
        np.zeros((CALLS, 96)),
    )
    states = rng.normal(size=(1, CALLS, 96)).astype(np.float32)
    wanted = rng.normal(size=(CALLS, SYMBOLS)).astype(np.float32)
    noise = (
        0.003 * rng.normal(size=(CALLS, SYMBOLS)) * np.where(np.arange(SYMBOLS) == 2, louder, 1.0)
    )
    noise += np.where(np.arange(SYMBOLS) == 2, shift, 0.0)
    near = states + np.float32(1e-3) * rng.normal(size=states.shape).astype(np.float32)
    found = coverage.label_errors(
        drive,
        coverage.StepOutputs(wanted, states, states),
        coverage.StepOutputs((wanted + noise).astype(np.float32), near, near),
    )
    reference = SimpleNamespace(spec=SimpleNamespace(labels=LABELS))
    context = SimpleNamespace(
        nemo=SimpleNamespace(reference=lambda: reference),
        outputs=SimpleNamespace(labels=lambda _: found),
    )
    assert red("step_int8.onnx", test_coverage.test_every_symbol, context) == broken
