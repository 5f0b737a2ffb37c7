"""Train a checkpoint of the full-size architecture: ``python -m benchmarks.full_model --out FILE``.

For size, speed, fidelity and cost at the size that is shipped; some 20 minutes of one core, enough
for six words of ten. It is made where it is needed and never kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from nemo.collections.asr.models import EncDecRNNTModel

from exporters.nemo.checkpoint import quiet_nemo
from golden.config import model_config
from golden.train import Recipe, train

if TYPE_CHECKING:
    from omegaconf import DictConfig

PRED_HIDDEN, JOINT_HIDDEN, MAX_SYMBOLS = 320, 512, 15
RECIPE = Recipe(steps=900, batch=32, peak_lr=1e-3)


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


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.full_model", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the .nemo file to write")
    args = parser.parse_args()
    torch.manual_seed(RECIPE.seed)
    with quiet_nemo():
        model = EncDecRNNTModel(cfg=full_config())
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters", flush=True)
    train(model, RECIPE, args.out)


if __name__ == "__main__":
    main()
