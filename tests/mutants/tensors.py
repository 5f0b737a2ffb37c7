"""Operators on a constant: each takes an array and returns another of its shape and dtype.

Integers (codes of quantized weights) are rounded and stay within the range of values that the
constant has; real constants may take any value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tests.mutants.mutant import UnfitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    Change = Callable[[NDArray[Any], Generator], tuple[NDArray[Any], str]]

SCALES = (0.5, 0.8, 0.9, 0.95, 1.05, 1.1, 1.25, 2.0)
SHIFTS = (0.1, 0.3, 1.0)
PERTURBATIONS = (0.5, 2.0, 8.0)
SATURATIONS = (0.3, 0.6, 0.85)
_NOTHING_OF_ZERO = {
    "scale",
    "zero",
    "negate",
    "swap_rows",
    "permute_axes",
    "saturate",
    "only_label",
}
LABELS = 30
"""Symbols of the golden vocabulary: an axis of this size is one of labels."""


def change_tensor(operator: str, array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    """Apply an operator to a constant.

    Args:
        operator: A key of ``TENSOR_OPERATORS``.
        array: The constant.
        rng: Source of chance.

    Returns:
        The changed constant in the old one's dtype and shape, and what was done.

    Raises:
        UnfitError: Nothing changed.
    """
    # Bounds of slices are whole numbers that no double holds.
    is_index = array.dtype.kind in "iu" and array.dtype.itemsize == 8
    wide = array.copy() if is_index else array.astype(np.float64)
    changed, note = TENSOR_OPERATORS[operator](wide, rng)
    result = _narrow(changed.reshape(array.shape), array)
    if result.tobytes() == array.tobytes():
        msg = f"{operator} leaves the constant as it is"
        raise UnfitError(msg)
    return result, note


def fits(operator: str, array: NDArray[Any], bound: int) -> bool:
    """Tell whether an operator makes sense for a constant.

    Args:
        operator: A key of ``TENSOR_OPERATORS``.
        array: The constant.
        bound: Longest trace of the file, 0 for a step: an axis of half of it or more is positions.
    """
    if array.dtype.kind not in "fiu" or not array.size:
        return False
    is_integer = array.dtype.kind in "iu"
    is_index = is_integer and (array.size <= 8 or array.dtype.itemsize == 8)
    if operator == "off_by_one" or is_index:
        return operator == "off_by_one" and is_integer
    if not array.any() and operator in _NOTHING_OF_ZERO:
        return False
    demands = {
        "swap_rows": array.size > 1,
        "saturate": array.size > 1,
        "perturb_one": array.size > 1,
        "permute_axes": sum(size > 1 for size in array.shape) > 1,
        "only_label": LABELS in array.shape,
        "only_long": bound > 0 and any(bound // 2 <= size <= bound for size in array.shape),
    }
    return demands.get(operator, True)


def _narrow(changed: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    if like.dtype.kind in "iu" and changed.dtype.kind == "f":
        low, high = np.iinfo(like.dtype).min, np.iinfo(like.dtype).max
        if like.size > 8 and like.dtype.itemsize == 1:
            low, high = int(like.min()), int(like.max())
        changed = np.clip(np.rint(changed), low, high)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(changed.astype(like.dtype))


def _rms(array: NDArray[Any]) -> float:
    finite = array[np.isfinite(array)]
    return float(np.sqrt((finite**2).mean())) or 1.0 if finite.size else 1.0


def _part(array: NDArray[Any], rng: Generator) -> tuple[Any, str]:
    """Choose the whole constant, or as often one row along its longest axis."""
    if array.size == 1 or rng.random() < 0.5:
        return ..., "all"
    axis = int(np.argmax(array.shape))
    row = int(rng.integers(array.shape[axis]))
    return (*[slice(None)] * axis, row), f"row {row} of axis {axis}"


def _scale(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    factor = float(rng.choice(SCALES))
    part, name = _part(array, rng)
    array[part] = array[part] * factor
    return array, f"×{factor:g}, {name}"


def _shift(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    share = float(rng.choice(SHIFTS)) * (1 if rng.random() < 0.5 else -1)
    part, name = _part(array, rng)
    array[part] = array[part] + share * _rms(array)
    return array, f"{share:+g} RMS, {name}"


def _zero(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    part, name = _part(array, rng)
    array[part] = 0
    return array, f"0, {name}"


def _negate(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    part, name = _part(array, rng)
    array[part] = -array[part]
    return array, f"negated, {name}"


def _swap_rows(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    axis = int(rng.choice(axes))
    one, two = (int(i) for i in rng.choice(array.shape[axis], 2, replace=False))
    moved = np.moveaxis(array, axis, 0)
    moved[[one, two]] = moved[[two, one]]
    return array, f"{one} and {two} of axis {axis} exchanged"


def _permute_axes(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    """Take the numbers in another order of axes: a constant packed for another layout."""
    axes = [axis for axis, size in enumerate(array.shape) if size > 1]
    one, two = (int(i) for i in rng.choice(axes, 2, replace=False))
    return np.swapaxes(array, one, two), f"axes {one} and {two} exchanged"


def _off_by_one(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    step = 1 if rng.random() < 0.5 and array.max() < np.iinfo(np.int64).max else -1
    if array.size == 1 or rng.random() < 0.5:
        return array + step, f"{step:+d}, all"
    place = int(rng.integers(array.size))
    array.reshape(-1)[place] += step
    return array, f"{step:+d}, element {place}"


def _saturate(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    share = float(rng.choice(SATURATIONS))
    top = share * float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
    return np.clip(array, -top, top), f"clipped at {share:g} of its largest"


def _perturb_one(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    place = int(rng.integers(array.size))
    share = float(rng.choice(PERTURBATIONS)) * (1 if rng.random() < 0.5 else -1)
    array.reshape(-1)[place] += share * _rms(array)
    return array, f"element {place} {share:+g} RMS"


def _only_label(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    """Scale what belongs to one label."""
    axis, row = array.shape.index(LABELS), int(rng.integers(LABELS))
    factor = float(rng.choice(SCALES))
    moved = np.moveaxis(array, axis, 0)
    moved[row] = moved[row] * factor
    return array, f"×{factor:g}, label {row}"


def _only_long(array: NDArray[Any], rng: Generator) -> tuple[NDArray[Any], str]:
    """Exchange the last positions of a table, or repeat one: only long traces reach them."""
    axis = int(np.argmax(array.shape))
    moved = np.moveaxis(array, axis, 0)
    tail = int(rng.integers(1, max(2, len(moved) // 8)))
    if rng.random() < 0.5:
        moved[-tail:] = moved[-tail - 1]
        return array, f"last {tail} positions like the one before them"
    moved[-tail:] = moved[-tail:] * 0.5
    return array, f"last {tail} positions halved"


TENSOR_OPERATORS: dict[str, Change] = {
    "scale": _scale,
    "shift": _shift,
    "zero": _zero,
    "negate": _negate,
    "swap_rows": _swap_rows,
    "off_by_one": _off_by_one,
    "permute_axes": _permute_axes,
    "saturate": _saturate,
    "perturb_one": _perturb_one,
    "only_label": _only_label,
    "only_long": _only_long,
}
"""Operators on one constant; ``swap_tensors`` takes two and is the sources' own."""
