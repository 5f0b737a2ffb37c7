"""A file of ours beside what the checkpoint says that it must hold: every number and every node.

Outputs cannot show it: a bias that is 1 % off is below the rounding of an INT8 matrix. Only codes
of matrices may be one or another; they are judged by how they were rounded
(``exporters.quantize.expected``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.contents.pte_file import read_constants, read_structure
from exportgate.levels import level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from exporters.quantize.expected import ExpectedFile, Rounding


def onnx_findings(path: Path, expected: ExpectedFile) -> list[str]:
    """Describe each constant and each node of an ONNX file that is not what it must be."""
    import onnx  # noqa: PLC0415 - seconds

    found, wanted = onnx.load(str(path)), onnx.load_from_string(expected.payload)
    ours, theirs = _onnx_constants(wanted), _onnx_constants(found)
    rounded = _onnx_roundings(expected.roundings, theirs)
    findings = [f"{name} is missing" for name in ours if name not in theirs]
    findings += [f"{name} is not one of its constants" for name in theirs if name not in ours]
    for name in ours:
        if name in theirs and name not in rounded:
            findings += _array_findings(name, theirs[name], ours[name])
    for name, (rounding, real) in rounded.items():
        findings += rounding_findings(name, rounding, real)
    return [*findings, *_node_findings(found, wanted)]


def pte_findings(path: Path, expected_path: Path, expected: ExpectedFile) -> list[str]:
    """Describe each constant and each node of a .pte that is not what it must be.

    Args:
        path: The file.
        expected_path: Where the expected payload lies.
        expected: What the file must hold.

    Raises:
        PteFileError: The file cannot be read.
    """
    found, wanted = read_constants(path), read_constants(expected_path)
    heads = [[(c.node, c.role, c.dtype, c.values.shape) for c in side] for side in (found, wanted)]
    if heads[0] != heads[1]:
        pairs = zip(heads[0], heads[1], strict=False)
        first = next((f"{a}, but should be {b}" for a, b in pairs if a != b), "their number")
        return [f"its {len(found)} constants are not the {len(wanted)} expected ones: {first}"]
    findings, left = [], dict(expected.roundings)
    for number, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
        name = f"constant {number} ({ours.role} of {ours.node or 'a delegate'})"
        layer = _layer_of(theirs.values, left) if theirs.dtype.startswith("q") else None
        if layer is not None:
            findings += rounding_findings(layer, left.pop(layer), ours.values)
        elif np.issubdtype(_plain_type(ours.dtype), np.integer):
            findings += _code_findings(name, ours.values, theirs.values)
        else:
            findings += _number_findings(name, ours.values, theirs.values)
    findings += [f"{layer}: no matrix of the file is this layer's" for layer in left]
    return [*findings, *tree_findings(read_structure(path), read_structure(expected_path))]


def rounding_findings(layer: str, rounding: Rounding, real: NDArray[np.float64]) -> list[str]:
    """Describe the weights of a layer that are no right rounding of the checkpoint's."""
    if real.shape != tuple(rounding.weight.shape):
        return [f"{layer}: shape {real.shape}, should be {tuple(rounding.weight.shape)}"]
    strays = rounding.strays(real)
    wrong = ~(strays <= level("constant_stray_steps"))
    if not wrong.any():
        return []
    row, column = np.unravel_index(int(np.nan_to_num(strays, nan=np.inf).argmax()), strays.shape)
    line = (
        f"{layer}: {wrong.sum()} of {wrong.size} codes are no rounding of the checkpoint's "
        f"weights, the worst, output {row} of input {column}, by {strays[row, column]:.2g} steps"
    )
    return [line]


def tree_findings(found: Any, wanted: Any, place: str = "graph") -> list[str]:  # noqa: ANN401 - JSON
    """Describe where two trees of plain values differ; numbers with a fraction may by a little."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        keys = sorted({*found, *wanted})
        return [
            line
            for key in keys
            for line in tree_findings(found.get(key), wanted.get(key), f"{place}.{key}")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(found) == len(wanted):
        return [
            line
            for number, pair in enumerate(zip(found, wanted, strict=True))
            for line in tree_findings(*pair, f"{place}[{number}]")
        ]
    if isinstance(wanted, float) and isinstance(found, float):
        return _number_findings(place, np.array(found), np.array(wanted))
    if found != wanted:
        return [f"{place} is {str(found)[:80]}, but should be {str(wanted)[:80]}"]
    return []


def _onnx_constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return initialisers, and what Constant nodes give, by name."""
    from onnx import numpy_helper  # noqa: PLC0415 - seconds

    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def _onnx_roundings(
    roundings: Mapping[str, Rounding], found: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[Rounding, NDArray[np.float64]]]:
    """Return, by the name of its codes, each layer's rounding and the real numbers in the file."""
    rounded = {}
    for layer, rounding in roundings.items():
        if f"{layer}.weight.codes" in found:
            codes = found[f"{layer}.weight.codes"].astype(np.float64)
            scale = found.get(f"{layer}.weight.scale", np.zeros(1)).astype(np.float64)
            rounded[f"{layer}.weight.codes"] = (rounding, codes * scale.reshape(-1, 1))
        elif f"{layer}.codes" in found:  # a step's: (in, out), a share of one step for each output
            codes = found[f"{layer}.codes"].astype(np.float64).T
            step = found.get(f"{layer}.scale", np.zeros(1)).astype(np.float64)
            shares = found.get(f"{layer}.shares", np.zeros(1)).astype(np.float64)
            rounded[f"{layer}.codes"] = (rounding, codes * (step * shares).reshape(-1, 1))
    return rounded


def _node_findings(found: onnx.ModelProto, wanted: onnx.ModelProto) -> list[str]:
    """Describe nodes that one side has and the other has not, and graphs of another face."""
    ours, theirs = _nodes(found), _nodes(wanted)
    lines = [f"node {node[0]} is missing or changed" for node in (theirs - ours).elements()]
    lines += [f"node {node[0]} is none of the graph's" for node in (ours - theirs).elements()]
    for field in ("input", "output"):
        sides = [[v.SerializeToString() for v in getattr(m.graph, field)] for m in (found, wanted)]
        if sides[0] != sides[1]:
            lines.append(f"the graph's {field}s are not the expected ones")
    return lines


def _nodes(model: onnx.ModelProto) -> Counter[tuple[str, bytes]]:
    return Counter(
        (f"{node.name or node.output[0]} ({node.op_type})", node.SerializeToString(True))  # noqa: FBT003 - protobuf's deterministic
        for node in model.graph.node
        if node.op_type != "Constant"
    )


def _layer_of(values: NDArray[np.float64], left: Mapping[str, Rounding]) -> str | None:
    """Return the layer whose codes next to the weights a matrix of the expected file holds."""
    for name, rounding in left.items():
        nearest = rounding.nearest()
        if nearest.codes.shape != values.shape:
            continue
        steps = nearest.scales.astype(np.float64)
        steps = steps.repeat(nearest.codes.shape[1] // steps.shape[1], axis=1)
        if float(np.abs(values / steps - nearest.codes).max()) <= level("constant_stray_steps"):
            return name
    return None


def _plain_type(dtype: str) -> np.dtype[Any]:
    known = {"bfloat16": "float32"}.get(dtype, dtype)
    return np.dtype("int8") if known.startswith("q") else np.dtype(known)


def _array_findings(name: str, found: NDArray[Any], wanted: NDArray[Any]) -> list[str]:
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        have, want = (f"{side.dtype} {side.shape}" for side in (found, wanted))
        return [f"{name} is {have}, but should be {want}"]
    if wanted.dtype.kind == "f":
        half = 2.0**-11 if wanted.dtype == np.float16 else 0.0
        real = (side.astype(np.float64) for side in (found, wanted))
        return _number_findings(name, *real, half_ulp=half)
    if wanted.dtype in (np.int8, np.int32):
        return _code_findings(name, found.astype(np.float64), wanted.astype(np.float64))
    return [] if np.array_equal(found, wanted) else [f"{name} holds other integers than expected"]


def _code_findings(name: str, found: NDArray[np.float64], wanted: NDArray[np.float64]) -> list[str]:
    """Describe integers that were rounded to the nearest, and are not."""
    off = np.abs(found - wanted)
    allowed = max(1, int(level("constant_turned_share") * off.size))
    # A bias is thousands of steps of its layer's products: float32 moves it by some of them.
    wrong = off > np.maximum(1.0, level("constant_relative") * np.abs(wanted))
    turned = int(((off > 0) & (np.abs(wanted) * level("constant_relative") < 1.0)).sum())
    if wrong.any() or turned > allowed:
        return [f"{name}: {int((off > 0).sum())} of {off.size} codes are not the nearest ones"]
    return []


def _number_findings(
    name: str,
    found: NDArray[np.float64],
    wanted: NDArray[np.float64],
    *,
    half_ulp: float = 0.0,
) -> list[str]:
    """Describe real numbers that are off by more than sums and the format itself round."""
    relative = max(level("constant_relative"), half_ulp)
    found, wanted = np.atleast_1d(found), np.atleast_1d(wanted)
    finite = np.isfinite(wanted)
    size = float(np.sqrt((wanted[finite] ** 2).mean())) if finite.any() else 0.0
    with np.errstate(invalid="ignore"):
        close = np.abs(found - wanted) <= relative * (np.abs(wanted) + size / 100)
    wrong = ~np.where(finite, close, found == wanted)
    if not wrong.any():
        return []
    worst = tuple(int(axis[0]) for axis in np.nonzero(wrong))
    line = (
        f"{name}: {int(wrong.sum())} of {wrong.size} numbers are not the checkpoint's; "
        f"{float(found[worst]):.6g} at {list(worst)} should be {float(wanted[worst]):.6g}"
    )
    return [line]


def all_lines(findings: Iterator[str] | list[str], most: int = 5) -> str:
    """Join the first findings, and count the others."""
    listed = list(findings)
    rest = len(listed) - most
    return "; ".join(listed[:most]) + (f"; and {rest} more" if rest > 0 else "")
