"""Weights to integer codes, each input channel making up for the rounding of those before it.

GPTQ (arXiv:2210.17323): what is to be small is the error of the layer's *output* over the
calibration swipes, not of its weights. On swipe models it lowers the noise of 8-bit weights by 5 to
7 dB against rounding to the nearest, that of 4-bit weights by 5 to 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from exporters.recipes import MixedRecipe

_DAMPING = 0.01
"""Share of the mean diagonal added to it: the paper's; some channels are always zero."""

_BLOCK = 128


class Codes(NamedTuple):
    """Which codes a weight may take.

    Attributes:
        lowest: The smallest.
        highest: The largest.
        pair: The largest magnitude of the sum of two neighbouring weights of one sign, those of
            the inputs 2 k and 2 k + 1; None for any.
    """

    lowest: int
    highest: int
    pair: int | None = None


S4 = Codes(-8, 7)
S8 = Codes(-127, 127)
S8_PAIRS = Codes(-127, 127, pair=128)
"""An x86 without VNNI adds the u8 x s8 products of two neighbouring inputs in 16 bits, saturating
(vpmaddubsw), and then the result depends on the machine. 255 * 128 fits. Codes of 7 bits keep to it
as well, but their steps are coarser, measured by a quarter to a half: few pairs hold two large
weights of one sign."""


@dataclass(frozen=True, slots=True)
class MatrixCodes:
    """A layer's weights as integers.

    Attributes:
        codes: (out, in) int8, ``weight ~ codes * scales``.
        scales: (out, groups) float32: a step for each ``in / groups`` neighbouring inputs.
        range: What the codes may be.
        group: Neighbouring inputs that share a step; None for all.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    range: Codes
    group: int | None = None


@dataclass(frozen=True, slots=True)
class EncoderPlan:
    """What calibration decided about an encoder's weights; files of several precisions share it.

    It stands here because processes pass it on: reading it must not import torchao.

    Attributes:
        smoothing: (in,) float32: what the front end's linear has its input channels divided by.
        codes: By precision, the integers of each layer's weights, by its name.
        mixed: What was asked for, where not all layers are stored alike.
    """

    smoothing: NDArray[np.float32]
    codes: Mapping[str, Mapping[str, MatrixCodes]]
    mixed: MixedRecipe | None = None


def channel_scales(weight: Tensor, codes: Codes, *, group: int | None = None) -> Tensor:
    """Return (out, groups) float32: the step with which the largest weight gets the largest code.

    With S4 it lies half a step beyond the largest code, which gives all others finer steps.

    Args:
        weight: (out, in) float32.
        codes: Those that its weights may take.
        group: Neighbouring inputs that share a step, a divisor of ``in``; None for all.
    """
    by_group = weight.reshape(len(weight), -1, group or weight.shape[1])
    scales = by_group.abs().amax(dim=2) / ((codes.highest - codes.lowest) / 2)
    if codes.pair is not None:
        # Both of a pair may be rounded up.
        scales = scales.maximum(pair_sums(weight).amax(dim=1, keepdim=True) / (codes.pair - 1))
    return torch.where(scales > 0, scales, 1.0)


def pair_sums(weight: Tensor) -> Tensor:
    """Return what ``Codes.pair`` bounds, (out, ceil(in / 2)) of (out, in)."""
    even = nn.functional.pad(weight, (0, weight.shape[1] % 2))
    first, second = even[:, 0::2], even[:, 1::2]
    positive = first.clamp(min=0) + second.clamp(min=0)
    return positive.maximum((-first).clamp(min=0) + (-second).clamp(min=0))


def rows_to_int8(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 codes (rows, columns) of a table to look up, and a float32 step per row.

    Rounded to the nearest: each row is read by itself, so that none can make up for another.
    """
    steps = table.abs().amax(dim=1) / S8.highest
    steps = torch.where(steps > 0, steps, 1.0)
    codes = (table / steps[:, None]).round().clamp(S8.lowest, S8.highest)
    return codes.to(torch.int8), steps.float()


class Gptq:
    """Rounds the weights of layers that read one input.

    Args:
        hessian: (in, in) float64: sum over calibration frames of ``x x^T``; of a wide layer the
            blocks on its diagonal, in order (``hessians.block_width``). The list is emptied.
    """

    def __init__(self, hessian: Tensor | list[Tensor]) -> None:
        blocks = hessian if isinstance(hessian, list) else [hessian]
        self._blocks: list[_BlockGptq] = []
        while blocks:
            self._blocks.append(_BlockGptq.of(blocks.pop(0)))

    @property
    def size_bytes(self) -> int:
        """Memory of what it was made from."""
        return 8 * sum(block.inputs**2 for block in self._blocks)

    def to_plain(self) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return order and factor of each block; of a factor what is not zero, row by row."""
        return [block.to_plain() for block in self._blocks]

    @classmethod
    def from_plain(cls, blocks: list[tuple[NDArray[np.int64], NDArray[np.float64]]]) -> Gptq:
        """Make what ``to_plain`` described."""
        found = cls([])
        found._blocks = [_BlockGptq.from_plain(*block) for block in blocks]
        return found

    def round(self, weight: Tensor, codes: Codes, *, group: int | None = None) -> MatrixCodes:
        """Return integers for a weight (out, in) float32; ``group`` as for ``channel_scales``."""
        scales = channel_scales(weight, codes, group=group)
        steps = _spread(scales, weight)
        parts = zip(self._blocks, self._split(weight), self._split(steps), strict=True)
        found = torch.cat([block.round(part, step, codes) for block, part, step in parts], dim=1)
        return MatrixCodes(found.numpy(), scales.numpy(), codes, group)

    def strays(
        self, weight: Tensor, given: Tensor, codes: Codes, *, group: int | None = None
    ) -> Tensor:
        """Tell how far numbers are from those that ``round`` would have chosen, one by one.

        Each is judged beside what was given before it: the first one that is wrong does not make
        those behind it wrong.

        Args:
            weight: (out, in) float32.
            given: (out, in) float64 real numbers that a file holds in the weight's place.
            codes: As for ``round``.
            group: As for ``round``.

        Returns:
            (out, in) float64, in steps: how far a number is from the grid, or, if that is more,
            how much farther than half a step it is from what was to be rounded.
        """
        steps = _spread(channel_scales(weight, codes, group=group), weight)
        parts = zip(
            self._blocks,
            self._split(weight),
            self._split(steps),
            self._split(given / steps),
            strict=True,
        )
        return torch.cat(
            [block.strays(part, step, codes, found) for block, part, step, found in parts], dim=1
        )

    def _split(self, matrix: Tensor) -> tuple[Tensor, ...]:
        return torch.split(matrix, [block.inputs for block in self._blocks], dim=1)


def _spread(scales: Tensor, weight: Tensor) -> Tensor:
    """Return each weight's step, (out, in) float64."""
    return scales.double().repeat_interleave(weight.shape[1] // scales.shape[1], dim=1)


class _BlockGptq:
    """Rounds the weights of neighbouring inputs; blocks begin at even ones, so that pairs fit."""

    def __init__(self, order: Tensor, factor: Tensor) -> None:
        self.inputs = len(order)
        self._order = order
        self._factor = factor

    @classmethod
    def of(cls, hessian: Tensor) -> _BlockGptq:
        # Channels that carry most go first, while there are many left to make up for them.
        order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
        hessian = hessian[order[:, None], order]  # the caller's may be dropped here
        return cls(order, _inverse_factor(hessian))

    def to_plain(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        rows, columns = torch.triu_indices(self.inputs, self.inputs)
        return self._order.numpy(), self._factor[rows, columns].numpy()

    @classmethod
    def from_plain(cls, order: NDArray[np.int64], upper: NDArray[np.float64]) -> _BlockGptq:
        factor = torch.zeros(len(order), len(order), dtype=torch.float64)
        rows, columns = torch.triu_indices(len(order), len(order))
        factor[rows, columns] = torch.from_numpy(upper)
        return cls(torch.from_numpy(order), factor)

    def round(self, weight: Tensor, steps: Tensor, codes: Codes) -> Tensor:
        """Return int8 codes (out, in) of a weight (out, in) float32 with these steps."""
        order = self._order
        found = torch.empty_like(weight, dtype=torch.int8)
        rounded, _ = _round_columns(
            weight.double()[:, order], self._factor, steps[:, order], codes, order
        )
        found[:, order] = rounded.to(torch.int8)
        return found

    def strays(self, weight: Tensor, steps: Tensor, codes: Codes, given: Tensor) -> Tensor:
        """See ``Gptq.strays``; ``given`` in steps."""
        order, found = self._order, torch.empty_like(given)
        _, found[:, order] = _round_columns(
            weight.double()[:, order],
            self._factor,
            steps[:, order],
            codes,
            order,
            given[:, order].round(),
        )
        return found.maximum((given - given.round()).abs())


def noisiest(noise: Mapping[str, float], sqnr_db: float) -> frozenset[str]:
    """Return the layers without which the others' noise, summed, is ``sqnr_db`` below the signal.

    Args:
        noise: Noise-to-signal power at the model's output, by layer.
        sqnr_db: In dB.
    """
    allowed = 10.0 ** (-sqnr_db / 10.0)
    total = sum(noise.values())
    chosen = []
    for name in sorted(noise, key=lambda name: -noise[name]):
        if total <= allowed:
            break
        chosen.append(name)
        total -= noise[name]
    return frozenset(chosen)


def _inverse_factor(hessian: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the damped matrix, which is overwritten.

    A wide layer's matrix takes 200 MB: each is dropped as soon as the next is made from it.
    """
    hessian.diagonal().add_(max(_DAMPING * float(hessian.diagonal().mean()), 1e-12))
    lower = torch.linalg.cholesky(hessian, out=hessian)
    inverse = torch.cholesky_inverse(lower)
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True, out=hessian)
    return upper


def _round_columns(
    weight: Tensor,
    factor: Tensor,
    steps: Tensor,
    codes: Codes,
    order: Tensor,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Round column by column; errors reach the columns behind, those of other blocks in one go.

    Returns:
        The codes, or those that were given; and how much farther than half a step each is from
        what was to be rounded, where it is not the nearest that there was room for.
    """
    remaining, rounded, strays = weight.clone(), torch.empty_like(weight), torch.zeros_like(weight)
    room = _Room(weight, codes, order)
    for start in range(0, weight.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[1])
        block = remaining[:, start:stop]
        errors = torch.empty_like(block)
        for column in range(stop - start):
            diagonal = start + column
            step = steps[:, diagonal]
            code = room.nearest(diagonal, (block[:, column] / step).round())
            if given is not None:
                wanted, code = code, given[:, diagonal]
                beyond = (block[:, column] / step - code).abs() - 0.5
                strays[:, diagonal] = torch.where(code == wanted, 0.0, beyond)
            room.take(diagonal, code)
            rounded[:, diagonal] = code
            errors[:, column] = (block[:, column] - code * step) / factor[diagonal, diagonal]
            following = factor[diagonal, diagonal + 1 : stop]
            block[:, column + 1 :] -= errors[:, column : column + 1] * following
        remaining[:, stop:] -= errors @ factor[start:stop, stop:]
    return rounded, strays


class _Room:
    """The codes that are left for a column, given those of its neighbour."""

    def __init__(self, weight: Tensor, codes: Codes, order: Tensor) -> None:
        self._codes = codes
        if codes.pair is not None:
            self._inputs = order.tolist()
            self._found = weight.new_zeros(len(weight), len(order) + len(order) % 2)

    def nearest(self, column: int, code: Tensor) -> Tensor:
        """Return the nearest codes (out,) that the column may take."""
        code = code.clamp(self._codes.lowest, self._codes.highest)
        if self._codes.pair is not None:
            pair = self._codes.pair
            neighbour = self._found[:, self._inputs[column] ^ 1]
            code = code.clamp(-pair - neighbour.clamp(max=0), pair - neighbour.clamp(min=0))
        return code

    def take(self, column: int, code: Tensor) -> None:
        """Remember the codes (out,) of a column."""
        if self._codes.pair is not None:
            self._found[:, self._inputs[column]] = code
