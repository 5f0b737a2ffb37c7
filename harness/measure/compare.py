"""Compare two lists of arrays. Statistics only: what is good enough, ``gates.toml`` says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.decibel import EQUAL_DB, ratio_db
from exportgate.errors import ExportGateError
from harness.measure.outliers import Farthest, farthest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Signal-to-noise of bit-equal arrays; infinity has no place in JSON or in a mean.
SQNR_OF_EQUAL_DB = EQUAL_DB


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
        low_cosine: Cosine between two frames (columns of the last axis) that 99 of 100 exceed: a
            single frame of a small signal says little.
        nonfinite: NaN and infinite values in the outputs.
        sqnr_each_db: The signal-to-noise of each array, in order.
        rms: Root mean square of the references.
        channel_db: Signal-to-noise of each channel (row) over all arrays, NaN for one that is zero
            in all references; empty where they have no channels in common.
    """

    arrays: int
    max_abs_error: float
    sqnr_db: float
    worst_sqnr_db: float
    worst_index: int
    low_cosine: float
    nonfinite: int
    sqnr_each_db: tuple[float, ...]
    rms: float = 0.0
    channel_db: tuple[float, ...] = ()

    @property
    def max_error_ratio(self) -> float:
        """Largest absolute difference ÷ the references' RMS."""
        return self.max_abs_error / max(self.rms, 1e-30)

    @property
    def farthest_channel(self) -> Farthest:
        """The channel that is least like the others; of broken outputs none is like another."""
        if self.nonfinite:
            return Farthest(0, 2 * SQNR_OF_EQUAL_DB, 0.0, 0.0)
        return farthest(-np.array(self.channel_db), self.arrays, normal=True)


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
    signal, noise, worst_error, nonfinite = 0.0, 0.0, 0.0, 0
    cosines: list[NDArray[np.float64]] = []
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
        each.append(ratio_db(*pair))
        worst_error = max(worst_error, float(np.abs(difference).max()))
        cosines.append(_cosines(wanted, got))
    worst = int(np.argmin(each))
    return Comparison(
        arrays=len(each),
        max_abs_error=worst_error if not nonfinite else math.inf,
        sqnr_db=ratio_db(signal, noise) if not nonfinite else -SQNR_OF_EQUAL_DB,
        worst_sqnr_db=each[worst],
        worst_index=worst,
        low_cosine=_low_quantile(cosines) if not nonfinite else -1.0,
        nonfinite=nonfinite,
        sqnr_each_db=tuple(each),
        rms=_rms(references),
        channel_db=() if nonfinite else _channel_db(references, outputs),
    )


def _rms(arrays: Sequence[NDArray[Any]]) -> float:
    size = sum(array.size for array in arrays)
    return math.sqrt(sum(float((a.astype(np.float64) ** 2).sum()) for a in arrays) / max(size, 1))


def _channel_db(
    references: Sequence[NDArray[Any]], outputs: Sequence[NDArray[Any]]
) -> tuple[float, ...]:
    """Return each row's signal-to-noise; NaN for a row that is zero in all references."""
    rows = {array.shape[0] for array in references if array.ndim == 2}
    if len(rows) != 1 or any(array.ndim != 2 for array in references):
        return ()
    signal, noise = np.zeros(rows.copy().pop()), np.zeros(rows.pop())
    for reference, output in zip(references, outputs, strict=True):
        wanted = reference.astype(np.float64)
        signal += (wanted**2).sum(axis=1)
        noise += ((output.astype(np.float64) - wanted) ** 2).sum(axis=1)
    pairs = zip(signal, noise, strict=True)
    return tuple(ratio_db(s, n) if s > 0 else math.nan for s, n in pairs)


def _cosines(wanted: NDArray[np.float64], got: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cosine of each frame that is not zero on a side."""
    a = wanted.reshape(-1, wanted.shape[-1]) if wanted.ndim > 1 else wanted[:, None]
    b = got.reshape(a.shape)
    norms = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    usable = norms > 0
    found: NDArray[np.float64] = (a * b).sum(axis=0)[usable] / norms[usable]
    return found


def _low_quantile(cosines: Sequence[NDArray[np.float64]]) -> float:
    together = np.concatenate([*cosines, np.empty(0)])
    return float(np.quantile(together, 0.01)) if len(together) else 1.0
