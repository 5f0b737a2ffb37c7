"""Constants that happen to be equal stay apart: each is found by its own name and quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporters.ort.to_onnx import encoder_to_onnx, step_to_onnx
from tests.random_checkpoints import random_checkpoint, random_swipes, sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from exporters.nemo.checkpoint import Checkpoint
    from exporters.ort.to_onnx import Flavour
    from exporters.variants import Precision

pytestmark = pytest.mark.slow

BOUND = 40
LEAST_DB = {"fp32": 90.0, "fp16": 50.0, "int8": 20.0}


def zero_biases(model: Any) -> None:
    for name, tensor in model.named_parameters():
        if "bias" in name:
            tensor.data.zero_()


def equal_biases(model: Any) -> None:
    for name, tensor in model.named_parameters():
        if "bias" in name:
            tensor.data.fill_(0.25)


def equal_by_shape(model: Any) -> None:
    """Give every parameter the values of the first one of its shape: matrices, norms and all."""
    first: dict[tuple[int, ...], torch.Tensor] = {}
    for tensor in model.parameters():
        tensor.data = first.setdefault(tuple(tensor.shape), tensor.data).clone()


def shared_storage(model: Any) -> None:
    """Let parameters of a shape be one tensor in memory too."""
    first: dict[tuple[int, ...], torch.Tensor] = {}
    for tensor in model.parameters():
        tensor.data = first.setdefault(tuple(tensor.shape), tensor.data)


CHANGES: list[Callable[[Any], None]] = [zero_biases, equal_biases, equal_by_shape, shared_storage]


def changed(change: Callable[[Any], None], **shape: Any) -> Checkpoint:
    checkpoint = random_checkpoint(**shape)
    for part in ("encoder", "decoder", "joint"):
        change(getattr(checkpoint.model, part))
    return checkpoint


def run(payload: bytes, feeds: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(payload, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(
    change=st.sampled_from(CHANGES),
    use_bias=st.booleans(),
    untie=st.booleans(),
    kind=st.sampled_from(
        [("fp32", "standard"), ("fp16", "standard"), ("int8", "standard"), ("int8", "web")]
    ),
)
@example(change=zero_biases, use_bias=False, untie=True, kind=("int8", "standard"))
@example(change=zero_biases, use_bias=False, untie=False, kind=("int8", "web"))
@example(change=shared_storage, use_bias=True, untie=False, kind=("int8", "standard"))
def test_an_encoder_of_equal_constants_is_exported(
    change: Callable[[Any], None],
    kind: tuple[Precision, Flavour],
    *,
    use_bias: bool,
    untie: bool,
) -> None:
    checkpoint = changed(change, n_layers=2, use_bias=use_bias, untie_biases=untie)
    precision, flavour = kind
    program = encoder_to_onnx(
        checkpoint,
        precision=precision,
        calibration=random_swipes(4, BOUND),
        max_trace_len=BOUND,
        flavour=flavour,
    )
    (swipe,) = random_swipes(1, BOUND)
    lengths = np.array([swipe.shape[1]], np.int64)
    found = run(program.payload, {"features_bft": swipe[None], "lengths": lengths})[0]
    with torch.inference_mode():
        wanted = checkpoint.model.forward(torch.from_numpy(swipe)[None], torch.from_numpy(lengths))
    assert sqnr_db(wanted[0], found) >= LEAST_DB[precision]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_step_of_equal_constants_is_exported(
    change: Callable[[Any], None], precision: Precision
) -> None:
    # Widths are alike, so that matrices and biases of different layers are.
    checkpoint = changed(change, hidden=32, layers=2, joint=32, d_model=32)
    program = step_to_onnx(checkpoint, precision=precision, calibration=random_swipes(4, BOUND))
    state = np.random.default_rng(0).standard_normal((2, 3, 32), np.float32)
    frame = np.random.default_rng(1).standard_normal((3, 32), np.float32)
    labels = np.array([0, 3, 6])
    found = run(program.payload, {"y_prev": labels, "h0": state, "c0": state, "enc_t": frame})
    model = checkpoint.model
    with torch.inference_mode():
        states = (torch.from_numpy(state), torch.from_numpy(state))
        predicted, new = model.decoder.predict(
            torch.from_numpy(labels)[:, None], states, add_sos=False
        )
        mixed = model.joint.enc(torch.from_numpy(frame)) + model.joint.pred(predicted[:, 0])
        wanted = (model.joint.joint_net(mixed), *new)
    for got, expected in zip(found, wanted, strict=True):
        assert sqnr_db(expected, got) >= LEAST_DB[precision]


def test_each_parameter_is_a_constant_of_its_own() -> None:
    checkpoint = changed(equal_by_shape, n_layers=2)
    program = encoder_to_onnx(
        checkpoint, precision="fp32", calibration=None, max_trace_len=BOUND, flavour="standard"
    )
    graph = onnx.load_from_string(program.payload).graph
    names = {tensor.name for tensor in graph.initializer}
    assert {f"blocks.{n}.ff{m}_out.bias" for n in (0, 1) for m in (1, 2)} <= names
    assert [value.name for value in graph.input] == ["features_bft", "lengths"]
