"""The plain step computes what NeMo's prediction network and joint do, whatever their sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.graphs.step import StepGraph
from exporters.nemo.checkpoint import quiet_nemo
from exporters.quantize.step_calibration import Steps, noisy_inputs


def nemo_halves(
    *, labels: int, width: int, layers: int, joint: int, frame: int, activation: str
) -> SimpleNamespace:
    """Build a decoder and a joint with random weights."""
    from nemo.collections.asr.modules import RNNTDecoder, RNNTJoint

    with quiet_nemo():
        decoder = RNNTDecoder(
            prednet={"pred_hidden": width, "pred_rnn_layers": layers}, vocab_size=labels
        )
        network = RNNTJoint(
            jointnet={
                "joint_hidden": joint,
                "encoder_hidden": frame,
                "pred_hidden": width,
                "activation": activation,
            },
            num_classes=labels,
            vocabulary=[chr(97 + index) for index in range(labels)],
            log_softmax=False,
        )
    return SimpleNamespace(decoder=decoder.eval(), joint=network.eval())


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    labels=st.integers(1, 40),
    width=st.integers(1, 24),
    layers=st.integers(1, 2),
    joint=st.integers(1, 24),
    frame=st.integers(1, 24),
    activation=st.sampled_from(["relu", "tanh", "sigmoid"]),
    fold=st.booleans(),
    batch=st.integers(1, 3),
)
def test_any_decoder_and_joint_step_as_nemos_do(
    labels: int,
    width: int,
    layers: int,
    joint: int,
    frame: int,
    activation: str,
    *,
    fold: bool,
    batch: int,
) -> None:
    torch.manual_seed(labels + 100 * width)
    model: Any = nemo_halves(
        labels=labels, width=width, layers=layers, joint=joint, frame=frame, activation=activation
    )
    step = StepGraph(model, fold_embedding=fold).eval()
    y = torch.randint(0, labels + 1, (batch,))
    h, c = torch.randn(layers, batch, width), torch.randn(layers, batch, width)
    enc = torch.randn(batch, frame)
    with torch.no_grad():
        ours = step(y, h, c, enc)
        predicted, states = model.decoder.predict(y[:, None], (h, c), add_sos=False)
        mixed = model.joint.enc(enc) + model.joint.pred(predicted[:, 0])
        theirs = (model.joint.joint_net(mixed), *states)
    for name, got, wanted in zip(("logits", "h1", "c1"), ours, theirs, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize(("share", "needed"), [(1.0, True), (1e-4, False)])
def test_a_layer_that_carries_the_logits_needs_a_second_code(share: float, *, needed: bool) -> None:
    torch.manual_seed(0)
    model: Any = nemo_halves(labels=9, width=16, layers=1, joint=24, frame=32, activation="tanh")
    step = StepGraph(model).eval()
    with torch.no_grad():
        step.joint.enc.weight *= share
    steps = Steps(
        y_prev=torch.randint(0, 9, (200,)),
        h0=torch.rand(1, 200, 16) - 0.5,
        c0=torch.randn(1, 200, 16),
        enc_t=torch.randn(200, 32),
    )
    assert ("joint.enc" in noisy_inputs(step, steps)) is needed
    assert not step.joint.enc._forward_pre_hooks
