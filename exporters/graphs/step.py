"""One decoding step of a NeMo RNN-T as a plain module: prediction network and joint, raw logits.

NeMo's own modules carry state handling, adapters and a log-softmax that depends on the device; an
application wants ``(y_prev, h0, c0, enc_t) -> (logits, h1, c1)`` and nothing else. The same graph
serves ONNX (any batch) and ExecuTorch (batch 1): the LSTM is written out as the two operations per
layer that it consists of, because a runtime may have no LSTM kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from exporters.graphs.folding import bias_of, linear_layer, stacked_linear, weight_of
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exportgate.contract import ModelSpec, Part

_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: torch.relu,
    nn.Tanh: torch.tanh,
    nn.Sigmoid: torch.sigmoid,
}

_FOLDING_MAY_COST = 1.25
"""What a folded table may take of the bytes of embedding and matrix in INT8: at each symbol it
saves the first layer half of its products."""


class UnsupportedDecoderError(ExportGateError, ValueError):
    """The prediction network or the joint does something that the step does not."""


def folding_pays(labels: int, width: int) -> bool:
    """Tell whether a table of gates should take the place of the embedding and the input's matrix.

    The table (V, 4H) stays FP32, because it is summed with what integer products give; embedding
    (V, H) and matrix (4H, H) would be INT8. The files of all precisions take one form, so that
    they can be compared layer by layer.

    Args:
        labels: V, the blank's row included.
        width: H.
    """
    folded_bytes = 4 * labels * 4 * width
    apart_bytes = labels * width + 4 * width * width
    return folded_bytes <= _FOLDING_MAY_COST * apart_bytes


class LogProbs(nn.Module):
    """A step whose first output is log-softmax of its logits."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return log-probabilities (B, V), and the states as they are."""
        logits, *states = self.step(*inputs)
        return torch.log_softmax(logits, dim=-1), *states


class LabelEmbedding(nn.Embedding):
    """An embedding that is looked up as it is; quantized, it is INT8 with a step per label."""


class LstmCell(nn.Module):
    """One layer of the LSTM for one symbol.

    Gates stand in the order input, forget, output, cell, not in torch's: one sigmoid takes three.

    Args:
        lstm: The whole LSTM.
        layer: Which of its layers.
        folded_input: The layer's input comes as gates already: the input matrix and both biases
            are in the table that it was looked up from.
    """

    def __init__(self, lstm: nn.LSTM, layer: int, *, folded_input: bool) -> None:
        super().__init__()
        self.width = lstm.hidden_size
        self.folded_input = folded_input
        recurrent = _gates(lstm, f"weight_hh_l{layer}")
        if folded_input:
            self.gates = linear_layer(recurrent)
        else:
            weight = torch.cat([_gates(lstm, f"weight_ih_l{layer}"), recurrent], dim=1)
            self.gates = linear_layer(weight, _gate_bias(lstm, layer))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new (1, B, H) states; ``x`` is (B, 4H) if folded, else (1, B, input)."""
        gates = self.gates(h) + x if self.folded_input else self.gates(torch.cat([x, h], dim=-1))
        size = self.width
        # Slices and not chunk(): XNNPACK takes the one and not the other.
        gates_open, new_cell = (
            torch.sigmoid(gates[..., : 3 * size]),
            torch.tanh(gates[..., 3 * size :]),
        )
        kept = gates_open[..., size : 2 * size] * c
        cell = gates_open[..., :size] * new_cell + kept
        return gates_open[..., 2 * size :] * torch.tanh(cell), cell


class PredictionNetwork(nn.Module):
    """Embedding and LSTM for one symbol.

    Args:
        decoder: NeMo's ``RNNTDecoder``; it is not changed.
        fold_embedding: Look up ``W_ih embedding[y] + b`` instead of ``embedding[y]``: a table of
            (V, 4H) for the matrix (4H, H) that is no longer needed. None: if ``folding_pays``.

    Attributes:
        folded: Which it is.
    """

    def __init__(self, decoder: Any, *, fold_embedding: bool | None) -> None:  # noqa: ANN401 - NeMo has no types
        super().__init__()
        lstm, embedding = decoder.prediction["dec_rnn"].lstm, decoder.prediction["embed"]
        _check_lstm(lstm)
        self.layers, self.width = lstm.num_layers, lstm.hidden_size
        table = embedding.weight.detach().double()
        folded = folding_pays(*table.shape) if fold_embedding is None else fold_embedding
        if folded:
            table = table @ _gates(lstm, "weight_ih_l0").T + _gate_bias(lstm, 0)
        self.folded = folded
        self.table = (nn.Embedding if folded else LabelEmbedding)(*table.shape)
        self.table.weight = nn.Parameter(table.float(), requires_grad=False)
        self.cells = nn.ModuleList(
            LstmCell(lstm, layer, folded_input=folded and layer == 0)
            for layer in range(self.layers)
        )

    def forward(self, y_prev: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output (B, H) and the new states (L, B, H)."""
        x = self.table(y_prev)
        if not self.folded:
            x = x.view(1, -1, self.width)
        states: list[Tensor] = []
        cells: list[Tensor] = []
        for layer, cell in enumerate(self.cells):
            x, c = cell(x, self._layer_of(h0, layer), self._layer_of(c0, layer))
            states.append(x)
            cells.append(c)
        return x.view(-1, self.width), _stacked(states), _stacked(cells)

    def _layer_of(self, states: Tensor, layer: int) -> Tensor:
        return states if self.layers == 1 else states[layer : layer + 1]


class Joint(nn.Module):
    """NeMo's joint of one encoder frame and one output of the prediction network, raw logits.

    Args:
        joint: NeMo's ``RNNTJoint``; it is not changed.
    """

    def __init__(self, joint: Any) -> None:  # noqa: ANN401 - NeMo has no types
        super().__init__()
        layers = [layer for layer in joint.joint_net if not isinstance(layer, nn.Dropout)]
        if len(layers) != 2 or type(layers[0]) not in _ACTIVATIONS:
            kinds = [type(layer).__name__ for layer in layers]
            msg = f"joint_net is {kinds}, but should be ReLU, Tanh or Sigmoid, then Linear"
            raise UnsupportedDecoderError(msg)
        self.activation = _ACTIVATIONS[type(layers[0])]
        self.enc = linear_layer(weight_of(joint.enc), bias_of(joint.enc))
        self.pred = linear_layer(weight_of(joint.pred), bias_of(joint.pred))
        self.out = stacked_linear(layers[1])

    def forward(self, enc_t: Tensor, predicted: Tensor) -> Tensor:
        """Return (B, V) logits of a frame (B, D) and an output of the prediction network (B, H)."""
        logits: Tensor = self.out(self.activation(self.enc(enc_t) + self.pred(predicted)))
        return logits


class StepGraph(nn.Module):
    """``(y_prev, h0, c0, enc_t) -> (logits, h1, c1)``, as ``contract.step_contract`` names them.

    Args:
        model: NeMo's ``EncDecRNNTModel``; it is not changed, and shares no tensor with this one.
        fold_embedding: See ``PredictionNetwork``.

    Raises:
        UnsupportedDecoderError: The model's decoder or joint is of another kind.
    """

    def __init__(self, model: Any, *, fold_embedding: bool | None = None) -> None:  # noqa: ANN401 - NeMo has no types
        super().__init__()
        self.prediction = PredictionNetwork(model.decoder, fold_embedding=fold_embedding)
        self.joint = Joint(model.joint)

    def forward(
        self, y_prev: Tensor, h0: Tensor, c0: Tensor, enc_t: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one step.

        Args:
            y_prev: (B,) int64: the last emitted label; the blank id at the start.
            h0: (L, B, H) float32, zeros at the start.
            c0: (L, B, H) float32, zeros at the start.
            enc_t: (B, D) float32: one frame of the encoder's output.

        Returns:
            Logits (B, V) before any softmax, and the states h1 and c1 (L, B, H), which a decoder
            keeps only if it emits a label.
        """
        predicted, h1, c1 = self.prediction(y_prev, h0, c0)
        return self.joint(enc_t, predicted), h1, c1


def example_step_inputs(spec: ModelSpec, *, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return seeded inputs to trace a step with, in the contract's order."""
    generator = torch.Generator().manual_seed(0)
    state = (spec.pred_layers, batch, spec.pred_hidden)
    return (
        torch.arange(batch, dtype=torch.int64) % spec.vocab_size,
        torch.randn(state, generator=generator),
        torch.randn(state, generator=generator),
        torch.randn((batch, spec.d_model), generator=generator),
    )


def part_graphs(step: StepGraph, spec: ModelSpec, *, batch: int) -> dict[Part, PartGraph]:
    """Return a step's parts, as ``contract.part_contracts`` names their inputs and outputs.

    Args:
        step: They are its own modules.
        spec: Dimensions.
        batch: Of the inputs to trace with.
    """
    *fed, frame = example_step_inputs(spec, batch=batch)
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn((batch, spec.pred_hidden), generator=generator)
    return {
        "predict": PartGraph("prediction", step.prediction, tuple(fed)),
        "joint": PartGraph("joint", step.joint, (frame, predicted)),
    }


class PartGraph(NamedTuple):
    """A step's prediction network or its joint.

    Attributes:
        name: Its place in the step.
        module: The part.
        inputs: Seeded ones, to trace with.
    """

    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]


def _check_lstm(lstm: nn.Module) -> None:
    plain = (
        isinstance(lstm, nn.LSTM)
        and lstm.proj_size == 0
        and not lstm.bidirectional
        and not lstm.batch_first
    )
    if not plain:
        msg = (
            f"the prediction network's RNN is {lstm}, but should be a plain one-directional "
            "torch LSTM without projection; train it with normalization_mode null and without "
            "rnn_hidden_size"
        )
        raise UnsupportedDecoderError(msg)


def _gates(lstm: nn.LSTM, name: str) -> Tensor:
    """Return a parameter in double precision, its rows in ``LstmCell``'s order."""
    tensor: Tensor = getattr(lstm, name).detach().double()
    input_gate, forget_gate, cell_gate, output_gate = tensor.chunk(4)
    return torch.cat([input_gate, forget_gate, output_gate, cell_gate])


def _gate_bias(lstm: nn.LSTM, layer: int) -> Tensor:
    if not lstm.bias:
        return torch.zeros(4 * lstm.hidden_size, dtype=torch.float64)
    return _gates(lstm, f"bias_ih_l{layer}") + _gates(lstm, f"bias_hh_l{layer}")


def _stacked(states: list[Tensor]) -> Tensor:
    return states[0] if len(states) == 1 else torch.cat(states, dim=0)
