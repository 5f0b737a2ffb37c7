"""Weights with nothing in them: dead units and biases that are all zero.

A unit whose incoming and outgoing weights are zero gets no gradient, so it stays dead in training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nemo.collections.asr.models import EncDecRNNTModel

_UNIT = 3  # which unit of each layer dies


@torch.no_grad()
def kill_units(model: EncDecRNNTModel) -> None:
    """Zero all weights of one unit in every kind of layer.

    A channel of the subsampling, and in each Conformer layer a feed-forward unit, a convolution
    channel and the last attention head; a unit of each LSTM layer and one of the joint.
    """
    _zero(model.encoder.pre_encode.conv[0], [_UNIT])
    for layer in model.encoder.layers:
        for forward in (layer.feed_forward1, layer.feed_forward2):
            _zero(forward.linear1, [_UNIT])
            forward.linear2.weight[:, _UNIT] = 0.0
        _kill_conv_channel(layer.conv)
        attention = layer.self_attn
        head = range((attention.h - 1) * attention.d_k, attention.h * attention.d_k)
        for projection in (attention.linear_q, attention.linear_k, attention.linear_v):
            _zero(projection, head)
        attention.linear_out.weight[:, head] = 0.0
    _kill_lstm_units(model.decoder.prediction["dec_rnn"].lstm)
    model.joint.pred.weight[:, _UNIT] = 0.0
    _zero(model.joint.pred, [_UNIT])
    _zero(model.joint.enc, [_UNIT])
    model.joint.joint_net[-1].weight[:, _UNIT] = 0.0


@torch.no_grad()
def silence_channel(model: EncDecRNNTModel) -> None:
    """Zero one channel of the encoder's output: to be done after the training."""
    _zero(model.encoder.layers[-1].norm_out, [_UNIT])


def hold_biases_at_zero(model: EncDecRNNTModel) -> None:
    """Zero the biases of every linear layer and LSTM, and train them no more."""
    for module in model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.LSTM):
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name:
                    parameter.requires_grad_(False)  # noqa: FBT003 - torch has no keyword
                    parameter.data.zero_()


def _kill_conv_channel(conv: Any) -> None:  # noqa: ANN401 - NeMo has no types
    """Zero both halves of a gated unit, its depthwise kernel, and the weights that read it."""
    _zero(conv.pointwise_conv1, [_UNIT, _UNIT + conv.pointwise_conv1.out_channels // 2])
    _zero(conv.depthwise_conv, [_UNIT])
    conv.batch_norm.bias[_UNIT] = 0.0
    conv.pointwise_conv2.weight[:, _UNIT] = 0.0


def _kill_lstm_units(lstm: torch.nn.LSTM) -> None:
    rows = [gate * lstm.hidden_size + _UNIT for gate in range(4)]
    for name, weight in lstm.named_parameters():
        weight[rows] = 0.0
        if name.startswith("weight") and name != "weight_ih_l0":  # that one reads the embedding
            weight[:, _UNIT] = 0.0


def _zero(module: Any, rows: Iterable[int]) -> None:  # noqa: ANN401 - of several kinds
    """Zero the rows of a module's weight, and its bias there."""
    module.weight[list(rows)] = 0.0
    if module.bias is not None:
        module.bias[list(rows)] = 0.0
