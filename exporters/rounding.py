"""Weights to integer codes, each input channel making up for the rounding of those before it.

GPTQ (arXiv:2210.17323): what is to be small is the error of the layer's *output* over the
calibration swipes, not of its weights. On swipe models it lowers the noise of 7-bit weights by
5 to 7 dB against rounding to the nearest, which more than pays for the eighth bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

LARGEST_CODE = 64
"""Weights keep to 7 bits. An x86 without VNNI adds two u8 x s8 products in 16 bits, saturating
(vpmaddubsw): 2 * 255 * 64 fits, 2 * 255 * 127 does not, and the result depends on the machine."""

_DAMPING = 0.01
"""Share of the mean diagonal added to it: the paper's; some channels are always zero."""

_BLOCK = 128


def round_weights(weight: Tensor, gram: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return codes and scales with ``weight ~ codes * scales[:, None]``.

    Args:
        weight: (out, in) float32.
        gram: (in, in) float64: sum over calibration frames of ``x x^T``.

    Returns:
        (out, in) int8 within +-LARGEST_CODE, and (out,) float32: one scale per output channel.
    """
    scales = weight.abs().amax(dim=1) / LARGEST_CODE
    scales = torch.where(scales > 0, scales, 1.0)
    # Channels that carry most go first, while there are many left to make up for them.
    order = torch.argsort(gram.diagonal(), descending=True, stable=True)
    factor = _inverse_factor(gram[order][:, order])
    codes = torch.empty_like(weight, dtype=torch.float64)
    codes[:, order] = _round_columns(weight.double()[:, order] / scales.double()[:, None], factor)
    return codes.to(torch.int8).numpy(), scales.numpy()


def _inverse_factor(gram: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse of the damped matrix."""
    damping = max(_DAMPING * float(gram.diagonal().mean()), 1e-12)
    damped = gram + damping * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper


def _round_columns(weight: Tensor, factor: Tensor) -> Tensor:
    """Round column by column; errors reach the columns behind, those of other blocks in one go."""
    remaining, codes = weight.clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[1])
        block = remaining[:, start:stop]
        errors = torch.empty_like(block)
        for column in range(stop - start):
            diagonal = start + column
            code = block[:, column].round().clamp(-LARGEST_CODE, LARGEST_CODE)
            codes[:, diagonal] = code
            errors[:, column] = (block[:, column] - code) / factor[diagonal, diagonal]
            behind = factor[diagonal, diagonal + 1 : stop]
            block[:, column + 1 :] -= errors[:, column : column + 1] * behind
        remaining[:, stop:] -= errors @ factor[start:stop, stop:]
    return codes
