"""Signal to noise in decibels: the one formula behind every figure in dB."""

from __future__ import annotations

import math

EQUAL_DB = 200.0
"""What is said of equal arrays; beyond what float32 can tell apart (about 150 dB)."""


def ratio_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal ÷ noise), kept within ±``EQUAL_DB``.

    Args:
        signal: Sum of squares of the reference.
        noise: Sum of squares of the error. 0 gives ``EQUAL_DB``; NaN or infinity its negative.
    """
    if not math.isfinite(noise):
        return -EQUAL_DB
    if noise <= 0.0:
        return EQUAL_DB
    if signal <= 0.0:
        return -EQUAL_DB
    return min(max(10.0 * math.log10(signal / noise), -EQUAL_DB), EQUAL_DB)
