"""A checkpoint of the full-size architecture with random weights: for size, speed and cost only.

It is built where it is needed and never kept. Its decoder emits symbols without end, so words and
the signal-to-noise of INT8 are judged on the golden model, which is trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from nemo.collections.asr.models import EncDecRNNTModel

from exporters.checkpoint import quiet_nemo
from golden.checkpoint_io import save
from golden.config import model_config

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

PRED_HIDDEN, JOINT_HIDDEN, MAX_SYMBOLS = 320, 512, 15


def full_config() -> DictConfig:
    """Return the configuration of some 15.9 million parameters."""
    config = model_config()
    config.encoder.update(
        n_layers=8,
        d_model=256,
        subsampling_factor=2,
        subsampling_conv_channels=-1,
        conv_kernel_size=31,
    )
    config.model_defaults.update(enc_hidden=256, pred_hidden=PRED_HIDDEN)
    config.decoder.prednet.update(pred_hidden=PRED_HIDDEN, pred_rnn_layers=2)
    config.joint.jointnet.update(joint_hidden=JOINT_HIDDEN)
    config.decoding.greedy.max_symbols = MAX_SYMBOLS
    return config


def write_full_model(path: Path) -> int:
    """Write the checkpoint; the same bytes each time.

    Returns:
        Its number of parameters.
    """
    torch.manual_seed(0)
    with quiet_nemo():
        model = EncDecRNNTModel(cfg=full_config()).eval()
    _perturb(model)
    save(model, path)
    return sum(parameter.numel() for parameter in model.parameters())


def _perturb(model: torch.nn.Module) -> None:
    """Draw what starts at 0 or 1: else a rewrite that drops it would go unnoticed."""
    generator = torch.Generator().manual_seed(1)

    def normal(tensor: torch.Tensor, mean: float, deviation: float) -> None:
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(mean + deviation * noise)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                normal(module.running_mean, 0.0, 0.3)
                module.running_var.copy_(
                    torch.rand(module.running_var.shape, generator=generator) * 1.5 + 0.25
                )
                normal(module.weight, 1.0, 0.2)
                normal(module.bias, 0.0, 0.1)
        for name, parameter in model.named_parameters():
            if "pos_bias" in name:
                normal(parameter, 0.0, 0.1)
