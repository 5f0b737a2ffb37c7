"""Whole RNN-T models with random weights, small enough to export in a test."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from exporters.nemo.checkpoint import Checkpoint, quiet_nemo
from exportgate.contract import ModelSpec
from tests.nemo_encoders import nemo_encoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURES = 9


def random_checkpoint(
    *, labels: int = 6, hidden: int = 16, layers: int = 1, joint: int = 16, **encoder: Any
) -> Checkpoint:
    """Return a checkpoint of an encoder, a prediction network and a joint, random but seeded."""
    from nemo.collections.asr.modules import RNNTDecoder, RNNTJoint

    shape = {"feat_in": FEATURES, "n_layers": 1, "d_model": 32, "n_heads": 2} | encoder
    conformer = nemo_encoder(**shape)
    width: int = conformer.d_model
    torch.manual_seed(1)
    with quiet_nemo():
        decoder = RNNTDecoder(
            prednet={"pred_hidden": hidden, "pred_rnn_layers": layers}, vocab_size=labels
        ).eval()
        network = RNNTJoint(
            jointnet={
                "joint_hidden": joint,
                "encoder_hidden": width,
                "pred_hidden": hidden,
                "activation": "relu",
            },
            num_classes=labels,
            vocabulary=[f"{index} " for index in range(labels)],
            log_softmax=False,
        ).eval()

    def forward(processed_signal: torch.Tensor, processed_signal_length: torch.Tensor) -> Any:
        return conformer(audio_signal=processed_signal, length=processed_signal_length)

    model = SimpleNamespace(encoder=conformer, decoder=decoder, joint=network, forward=forward)
    spec = ModelSpec(
        feature_dim=int(shape["feat_in"]),
        d_model=width,
        encoder_layers=int(shape["n_layers"]),
        attention_heads=int(shape["n_heads"]),
        conv_kernel=7,
        subsampling="striding",
        subsampling_factor=conformer.subsampling_factor,
        pred_hidden=hidden,
        pred_layers=layers,
        joint_hidden=joint,
        labels=tuple(f"{index} " for index in range(labels)),
        max_symbols=3,
    )
    return Checkpoint(Path("random"), "0" * 64, model, spec)


def random_swipes(
    count: int, longest: int = 40, features: int = FEATURES
) -> list[NDArray[np.float32]]:
    """Return features whose last channels are as loud as accelerations."""
    generator = np.random.default_rng(0)
    lengths = generator.integers(longest // 2, longest, count, endpoint=True)
    swipes = [generator.standard_normal((features, n), dtype=np.float32) for n in lengths]
    for swipe in swipes:
        swipe[-3:] *= 1e3
    return swipes


def sqnr_db(reference: Any, other: Any) -> float:
    """Return the signal to noise of ``other`` in dB."""
    exact = np.asarray(reference, np.float64)
    noise = float(np.square(np.asarray(other, np.float64) - exact).sum())
    return float(10 * np.log10(np.square(exact).sum() / max(noise, 1e-300)))
