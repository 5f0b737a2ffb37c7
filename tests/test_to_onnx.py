"""ONNX programs: numbers, contracts, bounds, determinism, and what their quantisation really is."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from exporters.nemo.checkpoint import Checkpoint, load_checkpoint
from exporters.ort import to_onnx
from exporters.ort.encoder_graph import OrtRewriteOptions
from exporters.ort.to_onnx import encoder_to_onnx, ort_optimized, step_to_onnx
from exporters.ort.trace import OnnxExportError
from exporters.quantize.gptq import pair_sums
from exportgate.contract import encoder_contract, step_contract
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.ort.to_onnx import Flavour
    from exporters.variants import Precision
    from exportgate.artifacts.sidecar import Program
    from exportgate.contract import TensorSpec

    Swipes = tuple[NDArray[np.float32], ...]
    Encoders = dict[tuple[Precision, Flavour], Program]

pytestmark = pytest.mark.slow

BOUND = 200
# Name of an encoder's export: precision and flavour.
ENCODERS: tuple[tuple[Precision, Flavour], ...] = (
    ("fp32", "standard"),
    ("fp16", "standard"),
    ("int8", "standard"),
    ("int8", "web"),
)


@pytest.fixture(scope="module")
def checkpoint(golden: Path) -> Checkpoint:
    return load_checkpoint(golden / "golden.nemo")


@pytest.fixture(scope="module")
def calibration(golden: Path) -> Swipes:
    return _swipes(golden / "calib.jsonl", 32)


@pytest.fixture(scope="module")
def swipes(golden: Path) -> Swipes:
    return _swipes(golden / "val.jsonl", 40)


@pytest.fixture(scope="module")
def encoders(checkpoint: Checkpoint, calibration: Swipes) -> Encoders:
    return {
        (precision, flavour): _export(checkpoint, precision, flavour, calibration)
        for precision, flavour in ENCODERS
    }


def _swipes(path: Path, count: int) -> Swipes:
    swipes = read_manifest(path)[:count]
    return tuple(np.ascontiguousarray(featurize(swipe.points).T) for swipe in swipes)


def _export(
    checkpoint: Checkpoint,
    precision: Precision,
    flavour: Flavour,
    calibration: Swipes | None = None,
) -> Program:
    return encoder_to_onnx(
        checkpoint,
        precision=precision,
        calibration=calibration,
        max_trace_len=BOUND,
        flavour=flavour,
    )


def _session(payload: bytes, *, optimise: bool = True) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(payload, options, providers=["CPUExecutionProvider"])


def _encode(
    session: onnxruntime.InferenceSession, features: NDArray[np.float32], lengths: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    feed = {"features_bft": features, "lengths": np.array(lengths, dtype=np.int64)}
    encoded, encoded_lengths = session.run(None, feed)
    return encoded, encoded_lengths


def _nemo(
    checkpoint: Checkpoint, features: NDArray[np.float32], lengths: list[int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    with torch.no_grad():
        encoded, encoded_lengths = checkpoint.model.encoder(
            audio_signal=torch.from_numpy(features), length=torch.tensor(lengths)
        )
    return encoded.numpy(), encoded_lengths.numpy()


def _sqnr_db(reference: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    error = np.square(reference.astype(np.float64) - other).sum()
    return float(10 * np.log10(np.square(reference, dtype=np.float64).sum() / max(error, 1e-300)))


def _sqnr_on(program: Program, checkpoint: Checkpoint, swipes: Swipes) -> float:
    session = _session(program.payload)
    pairs = [
        (
            _nemo(checkpoint, swipe[None], [swipe.shape[1]])[0],
            _encode(session, swipe[None], [swipe.shape[1]])[0],
        )
        for swipe in swipes
    ]
    reference, encoded = (
        np.concatenate([a[0] for a in side], axis=1) for side in zip(*pairs, strict=True)
    )
    return _sqnr_db(reference, encoded)


def _declared(values: Iterable[onnx.ValueInfoProto]) -> list[tuple[str, int, list[int | str]]]:
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]


def _expected(specs: Iterable[TensorSpec]) -> list[tuple[str, int, list[int | str]]]:
    types = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}
    return [(spec.name, types[spec.dtype], list(spec.shape)) for spec in specs]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 5, 30, 31, BOUND])
def test_fp32_encoder_is_nemos(
    encoders: Encoders, checkpoint: Checkpoint, frames: int, batch: int
) -> None:
    generator = np.random.default_rng(frames)
    features = generator.standard_normal((batch, 37, frames), dtype=np.float32)
    lengths = [frames, *generator.integers(1, frames + 1, batch - 1).tolist()]
    encoded, encoded_lengths = _encode(
        _session(encoders["fp32", "standard"].payload), features, lengths
    )
    reference, valid = _nemo(checkpoint, features, lengths)
    assert encoded.shape == reference.shape
    assert encoded_lengths.tolist() == valid.tolist()
    for row, count in enumerate(valid.tolist()):
        difference = np.abs(encoded[row, :, :count] - reference[row, :, :count]).max()
        assert difference <= 1e-4


@pytest.mark.parametrize("name", ENCODERS, ids="_".join)
def test_a_longer_trace_than_the_bound_is_an_error_that_says_so(
    encoders: Encoders, name: tuple[Precision, Flavour]
) -> None:
    session = _session(encoders[name].payload)
    _encode(session, np.zeros((1, 37, BOUND), dtype=np.float32), [BOUND])
    for frames in (BOUND + 1, BOUND + 2, 3 * BOUND):
        features = np.zeros((2, 37, frames), dtype=np.float32)
        with pytest.raises(Exception, match=f"trace_longer_than_{BOUND}_points"):
            _encode(session, features, [frames, 5])


@pytest.mark.parametrize("name", ENCODERS, ids="_".join)
def test_encoder_declares_its_contract(
    encoders: Encoders, checkpoint: Checkpoint, name: tuple[Precision, Flavour]
) -> None:
    graph = onnx.load_from_string(encoders[name].payload).graph
    contract = encoder_contract(checkpoint.spec)
    assert encoders[name].contract == contract
    assert _declared(graph.input) == _expected(contract.inputs)
    assert _declared(graph.output) == _expected(contract.outputs)


@pytest.mark.parametrize(
    ("name", "least_db"),
    [(("fp16", "standard"), 74.0), (("int8", "standard"), 42.0), (("int8", "web"), 42.0)],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else "",
)
def test_noise_of_an_encoder_on_real_swipes(
    encoders: Encoders,
    checkpoint: Checkpoint,
    swipes: Swipes,
    name: tuple[Precision, Flavour],
    least_db: float,
) -> None:
    assert _sqnr_on(encoders[name], checkpoint, swipes) >= least_db


@pytest.mark.parametrize("name", ENCODERS, ids="_".join)
def test_huge_accelerations_give_finite_numbers(
    encoders: Encoders, name: tuple[Precision, Flavour]
) -> None:
    features = np.full((1, 37, 20), 1e6, dtype=np.float32)
    assert np.isfinite(_encode(_session(encoders[name].payload), features, [20])[0]).all()


def test_int8_depends_neither_on_batch_nor_on_padding(encoders: Encoders, swipes: Swipes) -> None:
    session = _session(encoders["int8", "standard"].payload)
    batch = sorted(swipes[:3], key=lambda swipe: swipe.shape[1])
    longest = batch[-1].shape[1]
    features = np.stack(
        [
            np.pad(swipe, ((0, 0), (0, longest - swipe.shape[1])), constant_values=9)
            for swipe in batch
        ]
    )
    together, valid = _encode(session, features, [swipe.shape[1] for swipe in batch])
    for row, swipe in enumerate(batch):
        alone, _ = _encode(session, swipe[None], [swipe.shape[1]])
        assert _sqnr_db(alone[0], together[row, :, : valid[row]]) >= 60.0


def test_no_constant_is_stated_twice(encoders: Encoders) -> None:
    graph = onnx.load_from_string(encoders["fp32", "standard"].payload).graph
    values = [n.attribute[0].SerializeToString() for n in graph.node if n.op_type == "Constant"]
    assert 1 < len(values) == len(set(values))


def test_int8_holds_its_matrices_in_eight_bits_that_do_not_saturate(encoders: Encoders) -> None:
    graph = onnx.load_from_string(encoders["int8", "standard"].payload).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {name: array for name, array in arrays.items() if name.endswith(".weight.codes")}
    assert len(weights) == 1 + 8 * 3
    assert all(array.dtype == np.int8 for array in weights.values())
    # Two products in the 16 bits of an x86 without VNNI.
    pairs = max(int(pair_sums(torch.tensor(codes.astype(int))).max()) for codes in weights.values())
    assert 255 * pairs <= np.iinfo(np.int16).max
    assert max(int(np.abs(codes.astype(int)).max()) for codes in weights.values()) > 64
    in_int8 = sum(array.size for array in arrays.values() if array.dtype == np.int8)
    assert in_int8 >= 0.95 * sum(array.size for array in arrays.values())


def test_only_the_layers_that_need_it_are_computed_twice(encoders: Encoders) -> None:
    twice = encoders["int8", "standard"].recipe["residual_layers"]
    assert "front_end.out" in twice  # raw accelerations beside positions
    assert len(twice) <= 12  # of 25: a second code costs time, and most layers do without


def test_int8_executes_every_matrix_as_integers(encoders: Encoders) -> None:
    graph = onnx.load_from_string(encoders["int8", "web"].payload).graph
    arrays = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type in {"Gemm", "QGemm", "FusedGemm"}]
    assert {node.op_type for node in products} == {"QGemm"}
    assert {arrays[node.input[3]] for node in products} == {onnx.TensorProto.INT8}


def test_fp16_stores_every_matrix_in_two_bytes(encoders: Encoders) -> None:
    graph = onnx.load_from_string(encoders["fp16", "standard"].payload).graph
    wide = [t.name for t in graph.initializer if t.data_type == 1 and np.prod(t.dims) >= 9216]
    assert wide == []
    assert len(encoders["fp16", "standard"].payload) <= 0.53 * len(
        encoders["fp32", "standard"].payload
    )


def test_fp16_stays_small_when_optimised_ahead(encoders: Encoders) -> None:
    program = encoders["fp16", "standard"]
    assert len(ort_optimized(program).payload) <= 1.01 * len(program.payload)


def test_android_file_has_standard_operators_and_web_file_is_fused(
    encoders: Encoders, swipes: Swipes
) -> None:
    android, web = encoders["int8", "standard"].payload, encoders["int8", "web"].payload
    domains = {node.domain for node in onnx.load_from_string(android).graph.node}
    assert domains <= {"", "ai.onnx"}
    operators = {node.op_type for node in onnx.load_from_string(web).graph.node}
    assert "QGemm" in operators
    # A page may switch the optimiser off: the file is fused already.
    sessions = _session(android), _session(web, optimise=False)
    results = [
        np.concatenate([_encode(s, x[None], [x.shape[1]])[0] for x in swipes[:8]], axis=2)
        for s in sessions
    ]
    # Fused sums differ in their last bits, and one between two u8 codes rounds to the other: on
    # most swipes none does, and together such steps are 10 dB below the noise of all (45 dB).
    assert _sqnr_db(*results) >= 55.0


def test_ahead_optimised_program_computes_the_same(encoders: Encoders, swipes: Swipes) -> None:
    program = encoders["fp32", "standard"]
    optimised = ort_optimized(program)
    assert optimised.payload != program.payload
    assert optimised.contract == program.contract
    results = [
        _encode(_session(p.payload), swipes[0][None], [swipes[0].shape[1]])[0]
        for p in (program, optimised)
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=1e-4)


def test_ahead_optimised_file_is_for_every_machine(encoders: Encoders) -> None:
    for program in (encoders["fp32", "standard"], encoders["int8", "standard"]):
        nodes = onnx.load_from_string(ort_optimized(program).payload).graph.node
        assert {node.domain for node in nodes} <= {"", "ai.onnx", "com.microsoft"}


@pytest.mark.parametrize("name", ENCODERS, ids="_".join)
def test_encoder_exports_are_deterministic(
    encoders: Encoders,
    checkpoint: Checkpoint,
    calibration: Swipes,
    name: tuple[Precision, Flavour],
) -> None:
    assert _export(checkpoint, *name, calibration).payload == encoders[name].payload


def test_no_two_exports_are_the_same_bytes(encoders: Encoders) -> None:
    for one, other in itertools.combinations(encoders.values(), 2):
        assert one.payload != other.payload


def test_files_do_not_name_the_machine_that_made_them(
    encoders: Encoders, checkpoint: Checkpoint, calibration: Swipes, golden: Path
) -> None:
    step = step_to_onnx(checkpoint, precision="int8", calibration=calibration[:3])
    programs = [*encoders.values(), step]
    for program in programs:
        assert str(golden.parent).encode() not in program.payload
        assert b"site-packages" not in program.payload
        assert b".py" not in program.payload


def test_exports_leave_the_reference_as_it_was(checkpoint: Checkpoint, calibration: Swipes) -> None:
    before = _fingerprint(checkpoint.model)
    for precision, flavour in ENCODERS:
        _export(checkpoint, precision, flavour, calibration[:3])
    step_to_onnx(checkpoint, precision="int8", calibration=calibration[:3])
    assert _fingerprint(checkpoint.model) == before


def _fingerprint(model: torch.nn.Module) -> str:
    digest = hashlib.sha256(str([m.training for m in model.modules()]).encode())
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.requires_grad}".encode())
        digest.update(tensor.detach().numpy().tobytes())
    digest.update(str(model.joint.log_softmax).encode())
    return digest.hexdigest()


@pytest.mark.slow
def test_int8_takes_the_whole_rewrite_only(checkpoint: Checkpoint, calibration: Swipes) -> None:
    with pytest.raises(OnnxExportError, match="in fp32 or fp16"):
        encoder_to_onnx(
            checkpoint,
            precision="int8",
            calibration=calibration,
            max_trace_len=200,
            flavour="standard",
            options=OrtRewriteOptions(stacked=False),
        )


def test_a_bound_below_two_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(OnnxExportError, match="max_trace_len is 1"):
        encoder_to_onnx(
            checkpoint, precision="fp32", calibration=None, max_trace_len=1, flavour="standard"
        )


def _step_inputs(checkpoint: Checkpoint, batch: int) -> dict[str, torch.Tensor]:
    spec, generator = checkpoint.spec, torch.Generator().manual_seed(batch)
    state = (spec.pred_layers, batch, spec.pred_hidden)
    return {
        "y_prev": torch.randint(0, spec.vocab_size, (batch,), generator=generator),
        "h0": torch.randn(state, generator=generator).tanh(),
        "c0": torch.randn(state, generator=generator),
        "enc_t": torch.randn(batch, spec.d_model, generator=generator),
    }


def _nemo_step(checkpoint: Checkpoint, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    model, batch = checkpoint.model, len(inputs["y_prev"])
    with torch.no_grad():
        predicted, states = model.decoder.predict(
            inputs["y_prev"][:, None], (inputs["h0"], inputs["c0"]), add_sos=False, batch_size=batch
        )
        joint = model.joint.enc(inputs["enc_t"]) + model.joint.pred(predicted[:, 0])
        return [model.joint.joint_net(joint), *states]


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_fp32_step_is_nemos(checkpoint: Checkpoint, batch: int) -> None:
    program = step_to_onnx(checkpoint, precision="fp32")
    inputs = _step_inputs(checkpoint, batch)
    results = _session(program.payload).run(None, {k: v.numpy() for k, v in inputs.items()})
    for name, result, expected in zip(
        ("logits", "h1", "c1"), results, _nemo_step(checkpoint, inputs), strict=True
    ):
        np.testing.assert_allclose(result, expected.numpy(), rtol=0, atol=2e-5, err_msg=name)


def test_int8_step_is_close_and_small(checkpoint: Checkpoint, calibration: Swipes) -> None:
    fp32, int8 = (
        step_to_onnx(checkpoint, precision=p, calibration=calibration) for p in ("fp32", "int8")
    )
    assert int8.recipe["residual_layers"] == []
    assert len(int8.payload) <= 0.45 * len(fp32.payload)
    inputs = _step_inputs(checkpoint, 64)
    results = _session(int8.payload).run(None, {k: v.numpy() for k, v in inputs.items()})
    for result, expected in zip(results, _nemo_step(checkpoint, inputs), strict=True):
        assert _sqnr_db(expected.numpy(), result) >= 32.0


def test_noisy_layers_of_a_step_get_a_second_code_and_small_ones_stay_fp32(
    checkpoint: Checkpoint, calibration: Swipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "noisy_inputs", lambda *_: {"joint.enc", "joint.out"})
    monkeypatch.setattr(to_onnx, "_SMALL_SHARE", 0.1)
    program = step_to_onnx(checkpoint, precision="int8", calibration=calibration)
    assert program.recipe["residual_layers"] == ["joint.enc"]
    constants = {t.name for t in onnx.load_from_string(program.payload).graph.initializer}
    assert {"joint.enc.codes", "joint.out.weight"} <= constants
    assert not {"joint.enc.weight", "joint.out.codes"} & constants


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_step_declares_its_contract_and_is_deterministic(
    checkpoint: Checkpoint, calibration: Swipes, precision: Precision
) -> None:
    program, again = (
        step_to_onnx(checkpoint, precision=precision, calibration=calibration[:3]) for _ in range(2)
    )
    graph = onnx.load_from_string(program.payload).graph
    contract = step_contract(checkpoint.spec)
    assert _declared(graph.input) == _expected(contract.inputs)
    assert _declared(graph.output) == _expected(contract.outputs)
    assert again.payload == program.payload


def test_a_step_in_fp16_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(
        OnnxExportError,
        match="precision of an ONNX step is 'fp16', but should be one of: fp32, int8",
    ):
        step_to_onnx(checkpoint, precision="fp16")
