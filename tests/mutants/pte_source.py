"""Mutants of a .pte: its constants, and the scalars of its program and its XNNPACK graphs.

A node cannot be put into a flatbuffer in place, but it can become another of its kind (Sigmoid to
Copy, Add to Subtract), read another value, lose its bias, pad or slice otherwise, or be clamped.
Places are named ``const NAME``, ``const NAME~OTHER`` and ``scalar PATH``.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from tests.mutants.mutant import Harm, MutantError, UnfitError
from tests.mutants.pte_layout import Constant, Layout
from tests.mutants.tensors import TENSOR_OPERATORS, change_tensor, fits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from tests.mutants.flatbuffer import Scalar
    from tests.mutants.mutant import Mutant

_ONE_TO_ONE = {
    "Softmax": 3, "Sigmoid": 4, "Clamp": 6, "Floor": 17, "SquareRoot": 22, "Negate": 27, "Abs": 30,
    "ReciprocalSquareRoot": 40, "Tanh": 43, "Exp": 44, "Sin": 45, "Copy": 46, "Cos": 47,
}  # fmt: skip
_TWO_TO_ONE = {"Add": 1, "Div": 8, "Minimum": 12, "Multiply": 15, "Subtract": 16, "Maximum": 26}
"""Nodes whose tables are alike, with their numbers in the schema's union."""
_KIND = re.compile(r"xnodes\[\d+\]\.xnode_union\.XNN(\w+)\.type$")
_COUNTS = re.compile(
    r"(padding_\w+|subsampling_\w+|dilation_\w+|zero_point|int_val"
    r"|(offsets|sizes|new_shape|items)\[\d+\])$"
)
_CLAMP = re.compile(r"output_min_max\.output_(min|max)$")
_ABSENT = 0xFFFFFFFF


class PteSource:
    """See ``mutant.Source``."""

    def __init__(self, name: str, data: bytes, bound: int) -> None:
        """Read a file.

        Args:
            name: The file's name.
            data: Its bytes.
            bound: Longest trace that it takes.
        """
        self.name, self._data, self._bound = name, data, bound

    @cached_property
    def _layout(self) -> Layout:
        return Layout(self._data)

    def places(self) -> dict[str, list[str]]:
        """See ``mutant.Source.places``."""
        found: dict[str, list[str]] = defaultdict(list)
        for constant in self._layout.constants.values():
            array = constant.read(self._data)
            for operator in TENSOR_OPERATORS:
                if fits(operator, array, self._bound):
                    found[operator].append(f"const {constant.name}")
        found["swap_tensors"] += list(self._twins())
        for path, scalar in self._layout.scalars.items():
            for operator in _scalar_operators(path, scalar):
                found[operator].append(f"scalar {path}")
        return dict(found)

    def harm(self, mutant: Mutant) -> Harm:
        """See ``mutant.Source.harm``."""
        kind, _, where = mutant.place.partition(" ")
        data, rng = bytearray(self._data), mutant.rng()
        if kind == "const" and mutant.operator == "swap_tensors":
            note = self._exchange(data, *where.split("~"))
        elif kind == "const":
            constant = self._layout.constants[where]
            changed, note = change_tensor(mutant.operator, constant.read(self._data), rng)
            constant.write(data, changed)
            note = f"{note}; {constant.dtype} {constant.shape}"
        elif kind == "scalar":
            note = self._change_scalar(data, mutant.operator, where, rng)
        else:
            msg = f"{mutant.name}: {kind!r} is no kind of place; known: const, scalar"
            raise MutantError(msg)
        if data == self._data:
            msg = f"{mutant.name} leaves the file as it is"
            raise UnfitError(msg)
        return Harm(note, payload=bytes(data))

    def _twins(self) -> Iterator[str]:
        groups: dict[tuple[object, ...], list[Constant]] = defaultdict(list)
        for constant in self._layout.constants.values():
            groups[constant.dtype, constant.shape].append(constant)
        for group in groups.values():
            for one, two in pairwise(group):
                yield f"const {one.name}~{two.name}"

    def _exchange(self, data: bytearray, one: str, two: str) -> str:
        first, second = self._layout.constants[one], self._layout.constants[two]
        first.write(data, second.read(self._data))
        second.write(data, first.read(self._data))
        return f"exchanged; {first.dtype} {first.shape}"

    def _change_scalar(self, data: bytearray, operator: str, path: str, rng: Generator) -> str:
        scalar = self._layout.scalars[path]
        if operator == "swap_rows":
            other = self._layout.scalars[path.replace("input1_id", "input2_id")]
            _put(data, scalar, other.value)
            _put(data, other, scalar.value)
            return "inputs exchanged"
        if operator == "permute_axes":
            return self._permute(data, path, rng)
        value = _other_value(operator, path, scalar, rng)
        _put(data, scalar, value)
        return f"{scalar.value:g} → {value:g}"

    def _permute(self, data: bytearray, path: str, rng: Generator) -> str:
        prefix = path.rpartition("[")[0]
        axes = [s for p, s in self._layout.scalars.items() if p.startswith(f"{prefix}[")]
        one, two = (axes[int(i)] for i in rng.choice(len(axes), 2, replace=False))
        _put(data, one, two.value)
        _put(data, two, one.value)
        return f"axes {one.value:g} and {two.value:g} exchanged"


def _scalar_operators(path: str, scalar: Scalar) -> Iterator[str]:
    kind = _KIND.search(path)
    if kind and kind[1] in _ONE_TO_ONE:
        yield from ("identity", "negate", "drop_node")
    elif kind and kind[1] in _TWO_TO_ONE:
        yield from ("negate", "drop_node", "saturate")
    elif _CLAMP.search(path) or path.endswith(("double_val", "PerTensorQuant.scale")):
        yield from ("scale", "saturate") if _CLAMP.search(path) else ("scale",)
    elif path.endswith("bias_id") and scalar.value != _ABSENT:
        yield "drop_node"
    elif path.endswith("input1_id") and "BatchMatrix" not in path and "Fully" not in path:
        if ".XNNSubtract." in path or ".XNNDiv." in path:
            yield "swap_rows"
    elif path.endswith(".perm[0]"):
        yield "permute_axes"
    elif _COUNTS.search(path) and ".Tensor." not in path:
        yield "off_by_one"


def _other_value(operator: str, path: str, scalar: Scalar, rng: Generator) -> float:
    kind = _KIND.search(path)
    if kind:
        return _other_kind(operator, kind[1], rng)
    if operator == "drop_node":
        return _ABSENT
    if operator == "off_by_one":
        step = 1 if rng.random() < 0.5 or scalar.value == 0 else -1
        return scalar.value + step
    if operator == "saturate":
        return float(rng.choice([0.5, 1.0, 3.0])) * (-1 if "output_min" in path else 1)
    if not np.isfinite(scalar.value) or scalar.value == 0:
        msg = f"{path} is {scalar.value}: no factor changes it"
        raise UnfitError(msg)
    return scalar.value * float(rng.choice([0.5, 0.9, 1.1, 2.0]))


def _other_kind(operator: str, kind: str, rng: Generator) -> int:
    """Return the number of the node that this one becomes."""
    if operator == "identity":
        return _ONE_TO_ONE["Copy"]
    if operator == "negate":
        return _ONE_TO_ONE["Negate"] if kind in _ONE_TO_ONE else _TWO_TO_ONE["Subtract"]
    if operator == "saturate":
        return _TWO_TO_ONE["Minimum"]
    alike = _ONE_TO_ONE if kind in _ONE_TO_ONE else _TWO_TO_ONE
    others = [number for name, number in alike.items() if name not in {kind, "Softmax"}]
    return int(rng.choice(others))


def _put(data: bytearray, scalar: Scalar, value: float) -> None:
    number = value if scalar.format in "fd" else int(value)
    try:
        struct.pack_into(f"<{scalar.format}", data, scalar.offset, number)
    except (struct.error, OverflowError) as error:
        msg = f"{scalar.path} cannot be {value:g} ({error})"
        raise UnfitError(msg) from error
