"""The golden model's NeMo configuration: the reference architecture, small."""

from __future__ import annotations

import string
from typing import Any

from omegaconf import DictConfig, OmegaConf

from exportgate.data.features import FEATURE_DIM

LABELS: tuple[str, ...] = ("<blank>", "'", *string.ascii_lowercase, "<unk>")
"""As in the reference vocabulary. ``<blank>`` is a label that nothing emits: NeMo's own blank
comes after the last label, and a consumer that takes 0 for it must be caught."""

D_MODEL = 96
PRED_HIDDEN = 96
JOINT_HIDDEN = 128
SUBSAMPLING_CHANNELS = 24
MAX_SYMBOLS = 10


def model_config() -> DictConfig:
    """Return the configuration of an EncDecRNNTModel of some 812 thousand parameters."""
    config: dict[str, Any] = {
        "labels": list(LABELS),
        "sample_rate": 16000,
        "model_defaults": {"enc_hidden": D_MODEL, "pred_hidden": PRED_HIDDEN},
        "preprocessor": _unused_preprocessor(),
        "encoder": _encoder(),
        "decoder": {
            "_target_": "nemo.collections.asr.modules.rnnt.RNNTDecoder",
            "prednet": {
                "pred_hidden": PRED_HIDDEN,
                "pred_rnn_layers": 1,
                "forget_gate_bias": 1.0,
                "t_max": None,
                "dropout": 0.0,
            },
            "vocab_size": len(LABELS),
            "blank_as_pad": True,
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.rnnt.RNNTJoint",
            "fuse_loss_wer": False,
            "jointnet": {"joint_hidden": JOINT_HIDDEN, "activation": "relu", "dropout": 0.0},
            "num_classes": len(LABELS),
            "vocabulary": list(LABELS),
            # As in the reference: an exporter must take the logits from before it.
            "log_softmax": True,
            "preserve_memory": False,
        },
        # The batched strategy takes its limit from decoding.greedy too, so only that one is set.
        "decoding": {"strategy": "greedy", "greedy": {"max_symbols": MAX_SYMBOLS}},
        "optim": {"name": "adamw", "lr": 2.5e-3, "betas": [0.9, 0.98], "weight_decay": 1e-3},
        "loss": {"_target_": "nemo.collections.asr.losses.rnnt.RNNTLoss", "loss_name": "pytorch"},
        "train_ds": None,
        "validation_ds": None,
        "spec_augment": None,
    }
    return OmegaConf.create(config)


def _encoder() -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": FEATURE_DIM,
        "feat_out": -1,
        "n_layers": 3,
        "d_model": D_MODEL,
        "subsampling": "striding",
        "subsampling_factor": 4,
        "subsampling_conv_channels": SUBSAMPLING_CHANNELS,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": 4,
        "att_context_size": [-1, -1],
        "xscaling": True,
        "untie_biases": True,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 15,
        "conv_norm_type": "batch_norm",
        "dropout": 0.0,
        "dropout_pre_encoder": 0.0,
        "dropout_emb": 0.0,
        "dropout_att": 0.0,
    }


def _unused_preprocessor() -> dict[str, Any]:
    """Return the audio front end that NeMo insists on; features go past it."""
    return {
        "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
        "sample_rate": 16000,
        "normalize": "per_feature",
        "window_size": 0.025,
        "window_stride": 0.01,
        "features": FEATURE_DIM,
        "n_fft": 512,
        "frame_splicing": 1,
        "dither": 1e-5,
    }
