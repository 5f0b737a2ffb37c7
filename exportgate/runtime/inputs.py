"""Inputs of one run, under the names of our contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exportgate.contract import IoContract
    from exportgate.runtime.session import Arrays

_GARBAGE = 37.0
"""What padding is filled with: large enough that a mask which lets it through is seen."""


def encoder_input(features: NDArray[np.float32], *, padded_to: int = 0) -> dict[str, NDArray[Any]]:
    """Return the encoder's inputs for one swipe.

    Args:
        features: (F, T).
        padded_to: Frames to pad to, with large garbage that a mask must keep out.
    """
    length = features.shape[1]
    if padded_to > length:
        garbage = np.full((features.shape[0], padded_to - length), _GARBAGE, np.float32)
        features = np.concatenate([features, garbage], axis=1)
    return {
        "features_bft": np.ascontiguousarray(features[None]),
        "lengths": np.array([length], np.int64),
    }


def as_declared(contract: IoContract, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Return inputs with whole numbers in the type that a file declares for them."""
    declared = {spec.name: np.dtype(spec.dtype) for spec in contract.inputs}
    return {
        name: value.astype(declared.get(name, value.dtype)) if value.dtype.kind == "i" else value
        for name, value in inputs.items()
    }


def step_inputs(contract: IoContract) -> dict[str, NDArray[Any]]:
    """Return inputs of one call of a step: zero states, an encoded frame of ones, label 1."""
    found = {}
    for spec in contract.inputs:
        shape = tuple(1 if isinstance(axis, str) else axis for axis in spec.shape)
        found[spec.name] = np.full(shape, spec.name in {"enc_t", "y_prev"}, spec.dtype)
    return found
