"""Programs for ExecuTorch: lowered once per precision, then run in the real runtime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from exporters.graphs.step import StepGraph, UnsupportedDecoderError
from exporters.nemo.checkpoint import load_checkpoint
from exporters.xnnpack.time_axis import LoweringError, TimeAxis
from exporters.xnnpack.to_pte import (
    _export,
    encoder_to_pte,
    plan_encoder,
    step_to_pte,
)
from exportgate.artifacts.contents.pte_file import PteContents, PteTensor, inspect_pte, read_weights
from exportgate.data.features import featurize
from exportgate.data.manifest import read_manifest
from tests.nemo_encoders import random_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.variants import Precision
    from exportgate.artifacts.sidecar import Program

pytestmark = pytest.mark.slow

BOUND = 200
"""Above the longest golden swipe."""
ENCODERS = {
    "fp32": ("fp32", "pt2e"),
    "int8": ("int8", "pt2e"),
    "ultra": ("int8", "eager"),
    "fp16": ("fp16", "pt2e"),
}
SQNR_DB = {"fp32": 100.0, "int8": 44.0, "ultra": 44.0, "fp16": 50.0}


@dataclass(frozen=True)
class Exported:
    """A program, its file, what the file holds, and the loaded method."""

    kind: str
    program: Program
    path: Path
    contents: PteContents
    method: Any
    owner: Any  # the runtime's program: dropping it while its method lives crashes


@pytest.fixture(scope="module")
def checkpoint(golden: Path) -> Checkpoint:
    return load_checkpoint(golden / "golden.nemo")


@pytest.fixture(scope="module")
def calibration(golden: Path) -> list[np.ndarray]:
    return [featurize(s.points).T.copy() for s in read_manifest(golden / "calib.jsonl")[:64]]


@pytest.fixture(scope="module")
def swipes(golden: Path) -> list[Tensor]:
    swipes = read_manifest(golden / "val.jsonl")[:20]
    return [torch.from_numpy(featurize(swipe.points).T.copy())[None] for swipe in swipes]


@pytest.fixture(scope="module", params=ENCODERS)
def encoder(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    calibration: list[np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    precision, quantizer = ENCODERS[request.param]
    program = encoder_to_pte(
        checkpoint,
        precision=precision,
        calibration=calibration if precision == "int8" else None,
        max_trace_len=BOUND,
        quantizer=quantizer,
    )
    return loaded(request.param, program, tmp_path_factory.mktemp("pte"))


@pytest.fixture(scope="module", params=["fp32", "int8"])
def step(
    request: pytest.FixtureRequest,
    checkpoint: Checkpoint,
    calibration: list[np.ndarray],
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    program = step_to_pte(checkpoint, precision=request.param, calibration=calibration)
    return loaded(request.param, program, tmp_path_factory.mktemp("pte"))


def loaded(kind: str, program: Program, folder: Path) -> Exported:
    from executorch.runtime import Runtime

    path = folder / f"{kind}.pte"
    path.write_bytes(program.payload)
    owner = Runtime.get().load_program(path)
    return Exported(kind, program, path, inspect_pte(path), owner.load_method("forward"), owner)


def reference(checkpoint: Checkpoint, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        encoded, valid = checkpoint.model.encoder(audio_signal=features, length=lengths)
    return encoded, valid


def sqnr_db(pairs: list[tuple[Tensor, Tensor]]) -> float:
    signal = sum(float(wanted.double().square().sum()) for wanted, _ in pairs)
    error = sum(float((wanted.double() - got.double()).square().sum()) for wanted, got in pairs)
    return float(10 * np.log10(signal / max(error, 1e-300)))


def test_encoder_computes_what_nemo_does_on_real_swipes(
    encoder: Exported, checkpoint: Checkpoint, swipes: list[Tensor]
) -> None:
    pairs = []
    for features in swipes:
        lengths = torch.tensor([features.shape[2]])
        wanted, valid = reference(checkpoint, features, lengths)
        got, got_valid = encoder.method.execute((features, lengths))
        assert got_valid.tolist() == valid.tolist()
        pairs.append((wanted, got))

    assert sqnr_db(pairs) >= SQNR_DB[encoder.kind]
    if encoder.kind == "fp32":
        assert max(float((wanted - got).abs().max()) for wanted, got in pairs) <= 1e-3


def test_encoder_takes_every_length_up_to_the_bound(
    encoder: Exported, checkpoint: Checkpoint
) -> None:
    generator = torch.Generator().manual_seed(3)
    for frames in (1, 2, 3, 4, 5, 7, 8, 9, 30, 31, BOUND):
        features = torch.rand((1, 37, frames), generator=generator)
        lengths = torch.tensor([max(1, frames - 2)])
        wanted, valid = reference(checkpoint, features, lengths)
        got, got_valid = encoder.method.execute((features, lengths))
        count = int(valid)

        assert got.shape == wanted.shape, f"T={frames}"
        assert got_valid.tolist() == [count], f"T={frames}"
        limit = 100.0 if encoder.kind == "fp32" else 25.0
        assert sqnr_db([(wanted[:, :, :count], got[:, :, :count])]) >= limit, f"T={frames}"


def test_encoder_ignores_what_stands_in_the_padding(encoder: Exported) -> None:
    features, lengths = torch.rand((1, 37, 50)), torch.tensor([41])
    padded = features.clone()
    padded[:, :, 41:] = 1e4
    clean, _ = encoder.method.execute((features, lengths))
    dirty, _ = encoder.method.execute((padded, lengths))
    torch.testing.assert_close(clean[:, :, :11], dirty[:, :, :11], atol=1e-5, rtol=0)


def test_encoder_refuses_what_is_longer_than_the_bound(encoder: Exported) -> None:
    with pytest.raises(RuntimeError):
        encoder.method.execute((torch.rand((1, 37, BOUND + 1)), torch.tensor([BOUND])))


def test_encoder_stays_finite_at_the_largest_accelerations(encoder: Exported) -> None:
    features, lengths = torch.rand((1, 37, 60)), torch.tensor([60])
    features[:, 6:9] *= 1e6
    assert bool(torch.isfinite(encoder.method.execute((features, lengths))[0]).all())


def test_encoder_is_one_delegate_and_a_few_shape_operators(encoder: Exported) -> None:
    lowering = encoder.program.lowering
    most = 3 if encoder.kind == "fp16" else 1  # a cast between precisions cuts
    assert lowering["delegates"] == encoder.contents.delegates <= most
    assert lowering["node_ratio"] >= 0.97
    assert lowering["compute_ratio"] >= 0.99
    assert lowering["quantize_ops"]["outside_delegates"] == 0
    assert lowering["dequantize_ops"]["outside_delegates"] == 0
    assert sum(encoder.contents.undelegated_ops.values()) == lowering["undelegated_nodes"]
    assert lowering["planned_memory_bytes"] == encoder.contents.planned_memory_bytes


def test_encoder_file_holds_the_precision_that_it_promises(encoder: Exported) -> None:
    held = encoder.contents.weight_bytes_by_dtype
    total = sum(held.values())
    fully_connected = encoder.contents.weighted_ops["XNNFullyConnected"]
    quantized = encoder.program.lowering["dequantize_ops"]["inside_delegates"]
    if encoder.program.precision == "int8":
        assert held["qcint8"] / total > 0.8
        assert fully_connected["qcint8"] == 34
        assert quantized > 0
        # 3 blocks, sines and cosines, 96 channels of the query, 20 frequencies
        assert held["int8"] == (3 * 2 * 96 * 20 if encoder.kind == "ultra" else 0)
    elif encoder.program.precision == "fp16":
        assert held["float16"] / total > 0.8
    else:
        assert set(held) == {"float32"}
        assert set(fully_connected) == {"float32"}
        assert quantized == 0


def test_encoder_keeps_the_contract_in_order(encoder: Exported) -> None:
    (method,) = encoder.contents.methods
    assert method.name == "forward"
    assert method.inputs == (
        PteTensor("float32", (1, 37, BOUND), dynamic=True),
        PteTensor("int64", (1,), dynamic=False),
    )
    assert method.outputs == (
        PteTensor("float32", (1, 96, BOUND // 4), dynamic=True),
        PteTensor("int64", (1,), dynamic=False),
    )


def test_lowering_twice_gives_the_same_bytes(
    checkpoint: Checkpoint, calibration: list[np.ndarray]
) -> None:
    first, second = (
        step_to_pte(checkpoint, precision="int8", calibration=calibration).payload for _ in range(2)
    )
    assert first == second


def test_lowering_leaves_the_checkpoint_as_it_was(
    encoder: Exported, checkpoint: Checkpoint, golden: Path
) -> None:
    assert encoder.program.payload
    assert step_to_pte(checkpoint, precision="fp32").payload
    fresh = load_checkpoint(golden / "golden.nemo")
    assert fingerprint(checkpoint) == fingerprint(fresh)
    features, lengths = torch.rand((1, 37, 40)), torch.tensor([33])
    ours, theirs = (reference(c, features, lengths)[0] for c in (checkpoint, fresh))
    assert torch.equal(ours, theirs)
    assert checkpoint.model.joint.log_softmax == fresh.model.joint.log_softmax


def test_a_bound_that_leaves_no_dynamic_axis_is_an_error(checkpoint: Checkpoint) -> None:
    with pytest.raises(LoweringError, match="max_trace_len is 5"):
        encoder_to_pte(checkpoint, precision="fp32", calibration=None, max_trace_len=5)


class _HalfOfTheFrames(torch.nn.Module):
    def forward(self, features_bft: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        return features_bft[..., : features_bft.shape[2] // 2] + lengths


def test_a_graph_that_computes_lengths_is_refused() -> None:
    axis = TimeAxis(bound=40, factor=4)
    inputs = (torch.rand(1, 37, 40), torch.tensor([40]))
    with pytest.raises(LoweringError, match="the graph computes lengths in floordiv"):
        _export(_HalfOfTheFrames(), inputs, axis)


@pytest.mark.parametrize(
    "changes",
    [
        {"subsampling_factor": 2, "conv_kernel_size": 31},
        {"subsampling_factor": 8, "subsampling": "dw_striding"},
    ],
    ids=str,
)
def test_other_subsamplings_take_every_length_too(
    changes: dict[str, object], tmp_path: Path
) -> None:
    small = random_checkpoint(tmp_path, **changes)
    program = encoder_to_pte(small, precision="fp32", calibration=None, max_trace_len=35)
    exported = loaded("small", program, tmp_path)
    assert exported.contents.delegates == 1
    for frames in range(1, 36):
        features, lengths = torch.rand((1, 37, frames)), torch.tensor([frames - frames // 3])
        wanted, valid = reference(small, features, lengths)
        got, got_valid = exported.method.execute((features, lengths))
        count = int(valid)
        assert got.shape == wanted.shape, f"T={frames}"
        assert got_valid.tolist() == [count], f"T={frames}"
        assert sqnr_db([(wanted[:, :, :count], got[:, :, :count])]) >= 100.0, f"T={frames}"


def test_four_bits_go_everywhere_by_block_or_by_channel(tmp_path: Path) -> None:
    small = random_checkpoint(tmp_path, d_model=32, subsampling_conv_channels=9)
    swipes = [np.random.default_rng(0).random((37, 30), dtype=np.float32)]
    program = encoder_to_pte(
        small, precision="int4", calibration=swipes, max_trace_len=40, quantizer="eager"
    )
    exported = loaded("int4", program, tmp_path)
    assert exported.contents.delegates == 1
    kinds = exported.contents.weighted_ops["XNNFullyConnected"]
    assert (kinds["qbint4"], kinds["qcint4"]) == (11, 1), "32 does not divide one layer's inputs"
    features, lengths = torch.from_numpy(swipes[0])[None], torch.tensor([30])
    wanted, _ = reference(small, features, lengths)
    assert sqnr_db([(wanted, exported.method.execute((features, lengths))[0])]) >= 20.0


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_plan_for_several_files_gives_the_file_that_is_made_alone(
    precision: Precision, tmp_path: Path
) -> None:
    small = random_checkpoint(tmp_path, d_model=32, subsampling_conv_channels=9)
    swipes = [np.random.default_rng(0).random((37, 30), dtype=np.float32)]
    plan = plan_encoder(small, ["int4", "int8"], calibration=swipes, max_trace_len=40)
    alone, shared = (
        encoder_to_pte(
            small,
            precision=precision,
            calibration=swipes,
            max_trace_len=40,
            quantizer="eager",
            plan=made,
        )
        for made in (None, plan)
    )
    assert alone.payload == shared.payload


def test_both_quantizers_keep_to_the_plan_however_small_the_weights_are(tmp_path: Path) -> None:
    small = random_checkpoint(tmp_path, d_model=32)
    for layer in small.model.encoder.layers:
        layer.feed_forward1.linear1.weight.data *= 1e-3
    swipes = [np.random.default_rng(0).random((37, 30), dtype=np.float32)]
    plan = plan_encoder(small, ["int8"], calibration=swipes, max_trace_len=40)
    planned = {name: code.codes * code.scales for name, code in plan.codes["int8"].items()}
    for quantizer in ("pt2e", "eager"):
        program = encoder_to_pte(
            small,
            precision="int8",
            calibration=swipes,
            max_trace_len=40,
            quantizer=quantizer,
            plan=plan,
        )
        exported = loaded(quantizer, program, tmp_path)
        held = [weight for _, weight in read_weights(exported.path)]
        for name, weight in planned.items():
            same = [w.shape == weight.shape and np.allclose(w, weight, 1e-6, 0.0) for w in held]
            assert any(same), f"{quantizer}: {name}"


def test_four_bits_are_not_asked_of_pt2e(checkpoint: Checkpoint) -> None:
    with pytest.raises(LoweringError, match="with eager"):
        encoder_to_pte(checkpoint, precision="int4", calibration=None, max_trace_len=BOUND)


def test_there_is_no_half_precision_step(checkpoint: Checkpoint) -> None:
    with pytest.raises(
        LoweringError,
        match=r"precision of a \.pte step is 'fp16', but should be one of: fp32, int8",
    ):
        step_to_pte(checkpoint, precision="fp16")


def test_step_rolls_out_like_the_model(step: Exported, checkpoint: Checkpoint) -> None:
    spec = checkpoint.spec
    generator = torch.Generator().manual_seed(7)
    h = c = torch.zeros((spec.pred_layers, 1, spec.pred_hidden))
    wanted_h, wanted_c, pairs = h, c, []
    label = torch.tensor([spec.blank_id])
    for _ in range(50):
        frame = torch.randn((1, spec.d_model), generator=generator)
        logits, h, c = step.method.execute((label, h, c, frame))
        wanted, wanted_h, wanted_c = nemo_step(checkpoint, label, wanted_h, wanted_c, frame)
        pairs += [(wanted, logits), (wanted_h, h), (wanted_c, c)]
        label = torch.randint(0, spec.blank_id, (1,), generator=generator)

    assert sqnr_db(pairs) >= (100.0 if step.kind == "fp32" else 35.0)


def test_step_is_one_delegate_and_a_lookup(step: Exported) -> None:
    assert step.contents.delegates == 1
    assert dict(step.contents.undelegated_ops) == {"aten::embedding.out": 1}
    dtype = {"fp32": "float32", "int8": "qcint8"}[step.kind]
    assert dict(step.contents.weighted_ops["XNNFullyConnected"]) == {dtype: 4}


@pytest.mark.parametrize("fold_embedding", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_step_graph_is_the_models_own_step(
    checkpoint: Checkpoint, batch: int, fold_embedding: bool
) -> None:
    spec = checkpoint.spec
    state = (spec.pred_layers, batch, spec.pred_hidden)
    labels = torch.tensor([spec.blank_id, 3, 7])[:batch]
    h, c, frame = torch.randn(state), torch.randn(state), torch.randn(batch, spec.d_model)
    graph = StepGraph(checkpoint.model, fold_embedding=fold_embedding).eval()
    with torch.no_grad():
        ours = graph(labels, h, c, frame)
    theirs = nemo_step(checkpoint, labels, h, c, frame)
    for name, got, wanted in zip(("logits", "h1", "c1"), ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5, msg=name)


def test_a_projected_lstm_is_refused(checkpoint: Checkpoint) -> None:
    other = load_checkpoint(checkpoint.path)
    width = checkpoint.spec.pred_hidden
    other.model.decoder.prediction["dec_rnn"].lstm = torch.nn.LSTM(width, width, proj_size=8)
    with pytest.raises(UnsupportedDecoderError, match="plain one-directional"):
        step_to_pte(other, precision="fp32")


def nemo_step(
    checkpoint: Checkpoint, labels: Tensor, h: Tensor, c: Tensor, frame: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return NeMo's logits before its softmax, and its states."""
    model = checkpoint.model
    with torch.no_grad():
        predicted, (h1, c1) = model.decoder.predict(labels[:, None], state=[h, c], add_sos=False)
        projected = model.joint.enc(frame[:, None, None]) + model.joint.pred(predicted[:, None])
        return model.joint.joint_net(projected)[:, 0, 0], h1, c1


def fingerprint(checkpoint: Checkpoint) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
