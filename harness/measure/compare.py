"""Compare two lists of arrays. Statistics only: what is good enough, ``gates.toml`` says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Signal-to-noise of bit-equal arrays; infinity has no place in JSON or in a mean.
SQNR_OF_EQUAL_DB = 200.0


class CompareError(ExportGateError, ValueError):
    """The two sides cannot be compared."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far outputs are from their reference.

    Attributes:
        arrays: How many pairs were compared.
        max_abs_error: Largest absolute difference.
        sqnr_db: Signal to quantization noise over all arrays: 10 log10(Σ ref² / Σ (ref − out)²).
        worst_sqnr_db: The same for the worst array alone.
        worst_index: Which array that is.
        min_cosine: Smallest cosine between two frames (columns of the last axis).
        nonfinite: NaN and infinite values in the outputs.
        sqnr_each_db: The signal-to-noise of each array, in order.
    """

    arrays: int
    max_abs_error: float
    sqnr_db: float
    worst_sqnr_db: float
    worst_index: int
    min_cosine: float
    nonfinite: int
    sqnr_each_db: tuple[float, ...]


def compare(references: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]) -> Comparison:
    """Compare outputs with references, pair by pair.

    Args:
        references: Arrays of shape (…, frames).
        outputs: Arrays of the same shapes.

    Raises:
        CompareError: Nothing to compare, or shapes differ. A NaN in an output is no error: it
            counts in ``nonfinite`` and makes the other figures as bad as they can be.
    """
    if not references or len(references) != len(outputs):
        msg = f"{len(outputs)} outputs for {len(references)} references; need as many, at least 1"
        raise CompareError(msg)
    signal, noise, worst_error, cosine, nonfinite = 0.0, 0.0, 0.0, 1.0, 0
    each: list[float] = []
    for index, (reference, output) in enumerate(zip(references, outputs, strict=True)):
        if reference.shape != output.shape:
            msg = f"output {index} has shape {output.shape}, but should have {reference.shape}"
            raise CompareError(msg)
        bad = int(np.count_nonzero(~np.isfinite(output)))
        if bad or not output.size:
            nonfinite += bad
            each.append(-SQNR_OF_EQUAL_DB if bad else SQNR_OF_EQUAL_DB)
            continue
        wanted, got = reference.astype(np.float64), output.astype(np.float64)
        difference = wanted - got
        pair = float((wanted**2).sum()), float((difference**2).sum())
        signal, noise = signal + pair[0], noise + pair[1]
        each.append(_db(*pair))
        worst_error = max(worst_error, float(np.abs(difference).max()))
        cosine = min(cosine, _min_cosine(wanted, got))
    worst = int(np.argmin(each))
    return Comparison(
        arrays=len(each),
        max_abs_error=worst_error if not nonfinite else math.inf,
        sqnr_db=_db(signal, noise) if not nonfinite else -SQNR_OF_EQUAL_DB,
        worst_sqnr_db=each[worst],
        worst_index=worst,
        min_cosine=cosine if not nonfinite else -1.0,
        nonfinite=nonfinite,
        sqnr_each_db=tuple(each),
    )


def _db(signal: float, noise: float) -> float:
    if noise <= 0.0:
        return SQNR_OF_EQUAL_DB
    if signal <= 0.0:
        return -SQNR_OF_EQUAL_DB
    return float(np.clip(10.0 * math.log10(signal / noise), -SQNR_OF_EQUAL_DB, SQNR_OF_EQUAL_DB))


def _min_cosine(wanted: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    a = wanted.reshape(-1, wanted.shape[-1]) if wanted.ndim > 1 else wanted[:, None]
    b = got.reshape(a.shape)
    norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    usable = norms > 0
    if not usable.any():
        return 1.0
    return float(((a * b).sum(axis=0)[usable] / norms[usable]).min())
