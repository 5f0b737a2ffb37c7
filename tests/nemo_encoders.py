"""NeMo encoders with random weights, for tests that vary the architecture."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from exporters.nemo.checkpoint import Checkpoint, quiet_nemo
from exportgate.contract import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path


def nemo_encoder(**changes: object) -> Any:
    """Build an encoder with random weights, and with statistics that a folding cannot ignore."""
    from nemo.collections.asr.modules import ConformerEncoder

    config = {
        "feat_in": 37,
        "n_layers": 1,
        "d_model": 16,
        "n_heads": 2,
        "subsampling": "striding",
        "subsampling_factor": 4,
        "subsampling_conv_channels": 4,
        "conv_kernel_size": 7,
        "pos_emb_max_len": 64,
        "dropout": 0.0,
        "dropout_pre_encoder": 0.0,
        "dropout_emb": 0.0,
        "dropout_att": 0.0,
    } | changes
    torch.manual_seed(0)
    with quiet_nemo():
        encoder = ConformerEncoder(**config).eval()
    for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]:
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.2, 2.0)
        elif tensor.is_floating_point() and ("pos_bias" in name or "norm" in name):
            nn.init.normal_(tensor, 1.0 if name.endswith("weight") else 0.0, 0.3)
    return encoder


def random_checkpoint(path: Path, **changes: object) -> Checkpoint:
    """Return a checkpoint of an encoder alone, with random weights."""
    encoder = nemo_encoder(**changes)
    spec = ModelSpec(
        feature_dim=37,
        d_model=encoder.d_model,
        encoder_layers=1,
        attention_heads=2,
        conv_kernel=7,
        subsampling="striding",
        subsampling_factor=encoder.subsampling_factor,
        pred_hidden=1,
        pred_layers=1,
        joint_hidden=1,
        labels=("a",),
        max_symbols=1,
    )
    return Checkpoint(path, "0" * 64, SimpleNamespace(encoder=encoder), spec)
