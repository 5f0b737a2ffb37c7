"""What reaches the matrices of a model while it runs: what their rounding is decided by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor

_ROWS_AT_ONCE = 2048
"""Rows of a layer's input that are kept before their product is added to its matrix: adding to a
wide layer's matrix costs more than the product of a few rows."""

_LARGEST_HESSIAN_BYTES = 128 << 20
"""Of one layer's sums (float64): a width of 4,096. Two more of this size are made of it while the
weights are rounded. A wider layer's inputs are rounded in blocks, each by its own sums; what
channels of different blocks have in common is not made up for."""

_WIDEST_BLOCK = 2048
"""Inputs of a block of such a layer; that many float64 sums take 32 MB."""


def block_width(inputs: int) -> int:
    """Return how many neighbouring inputs of a layer share a Hessian: all, but of a wide layer."""
    return inputs if inputs * inputs * 8 <= _LARGEST_HESSIAN_BYTES else _WIDEST_BLOCK


def observe_hessians(
    layers: Iterable[tuple[str, nn.Linear]], run: Callable[[], object]
) -> dict[str, list[Tensor]]:
    """Return the sum of ``x x^T`` over all rows of each layer's input, by the layer's name.

    Each is the blocks on its diagonal, float64: one (in, in), but of a wide layer several
    (``block_width``). What is kept does not grow with the number of swipes.

    Args:
        layers: Name and layer.
        run: Runs the model that they are part of on the calibration swipes.
    """
    observers = {name: _HessianSum(layer) for name, layer in layers}
    try:
        with torch.inference_mode():
            run()
    finally:
        for observer in observers.values():
            observer.handle.remove()
    return {name: observer.finish() for name, observer in observers.items()}


def matrix_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """Return name and layer of each linear, but for those of one output, which stand for a mean."""
    return [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features > 1
    ]


class _HessianSum:
    """Sums up what reaches one layer."""

    def __init__(self, layer: nn.Linear) -> None:
        self.handle = layer.register_forward_pre_hook(self._add)
        self._rows: list[Tensor] = []
        self._width = block_width(layer.in_features)
        widths = [
            min(self._width, layer.in_features - start)
            for start in range(0, layer.in_features, self._width)
        ]
        self._sums = [torch.zeros((width, width), dtype=torch.float64) for width in widths]

    def _add(self, _layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._rows.append(inputs[0].flatten(end_dim=-2))
        if sum(map(len, self._rows)) >= _ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        rows = torch.cat(self._rows)
        for total, part in zip(self._sums, torch.split(rows, self._width, dim=1), strict=True):
            total.add_(part.T @ part)
        self._rows.clear()

    def finish(self) -> list[Tensor]:
        if self._rows:
            self._flush()
        return self._sums
