"""Read what is inside a .pte: methods, delegates, operators left out, weights by their stored type.

An exporter's word about its own file proves nothing: an "INT8" program can hold FP32 weights. This
reads the file itself, down to the XNNPACK graphs that the runtime will build, with the flatc
compiler and the schemas that ExecuTorch's wheel ships. It imports no torch and runs no program.

Layout of a .pte, from ``exir/_serialize/_program.py``: a flatbuffer (identifier ET12) with an
extended header at byte 8 that says where the segments begin; weights lie in segments, by name. For
a delegate's payload see ``xnn_graph``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.contents.flatbuffer import cut, decompile, unsigned
from exportgate.artifacts.contents.xnn_graph import Constant, XnnGraph, widened
from exportgate.errors import ExportGateError
from exportgate.reading import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_XNNPACK = "XnnpackBackend"
_SCALAR_TYPES = {
    "BYTE": ("uint8", 1),
    "CHAR": ("int8", 1),
    "SHORT": ("int16", 2),
    "INT": ("int32", 4),
    "LONG": ("int64", 8),
    "HALF": ("float16", 2),
    "FLOAT": ("float32", 4),
    "DOUBLE": ("float64", 8),
    "BOOL": ("bool", 1),
    "BFLOAT16": ("bfloat16", 2),
}

_DAMAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading a damaged file can end in: flatc takes it, but its values are of other kinds."""


class PteFileError(ExportGateError, ValueError):
    """The file is damaged, or is not a .pte of the kind that this reads."""


@dataclass(frozen=True, slots=True)
class PteTensor:
    """An input or output of a method.

    Attributes:
        dtype: Its element type, as in ``contract.DType``.
        shape: Its sizes; of a dynamic tensor the largest.
        dynamic: The runtime accepts smaller sizes too.
    """

    dtype: str
    shape: tuple[int, ...]
    dynamic: bool


@dataclass(frozen=True, slots=True)
class PteMethod:
    """A method's name, inputs and outputs; a .pte holds no names of tensors."""

    name: str
    inputs: tuple[PteTensor, ...]
    outputs: tuple[PteTensor, ...]


@dataclass(frozen=True, slots=True)
class PteContents:
    """What a .pte holds.

    Attributes:
        methods: Entry points.
        delegates: Number of delegated subgraphs.
        backends: Names of the backends that they ask for.
        undelegated_ops: Count of each operator that a portable kernel runs, ``aten::sub.out``.
        xnn_ops: Count of each XNNPACK node.
        weighted_ops: Count of the XNNPACK nodes that have weights, by node and type of the
            weights: ``{"XNNFullyConnected": {"qcint8": 34}}``.
        weight_bytes_by_dtype: Bytes of constants in the file by stored type, each constant once:
            ``qcint8`` is INT8 per channel. Scales of quantized weights are left out.
        matrix_weights_by_dtype: Number of weights of XNNPACK's matrices by stored type, those of
            one output left out, which stand for a mean.
        macs_by_dtype: Multiply-accumulates inside XNNPACK by the stored type of the weights, at
            the largest input; products of two activations count as their own type.
        scale_bytes: Bytes of those scales.
        planned_memory_bytes: Arena that the runtime allocates for activations.
        size_bytes: Of the file.
    """

    methods: tuple[PteMethod, ...]
    delegates: int
    backends: frozenset[str]
    undelegated_ops: Mapping[str, int]
    xnn_ops: Mapping[str, int]
    weighted_ops: Mapping[str, Mapping[str, int]]
    weight_bytes_by_dtype: Mapping[str, int]
    matrix_weights_by_dtype: Mapping[str, int]
    macs_by_dtype: Mapping[str, int]
    scale_bytes: int
    planned_memory_bytes: int
    size_bytes: int


def inspect_pte(path: Path) -> PteContents:
    """Read a .pte.

    Raises:
        PteFileError: Missing, damaged or cut off, or a structure that this does not know.
    """
    if not path.is_file():
        msg = f"{path}: no such file"
        raise PteFileError(msg)
    data = path.read_bytes()
    try:
        container = _Container.parse(data)
        graphs = [XnnGraph.parse(payload) for payload in container.xnnpack_payloads()]
        return _contents(container, graphs, len(data))
    except _DAMAGE as error:
        msg = (
            f"{path}: damaged, or not a .pte that this can read ({_first_line(error)}); "
            "export it again"
        )
        raise PteFileError(msg) from error


def read_weights(path: Path) -> list[tuple[str, NDArray[np.float32]]]:
    """Read what XNNPACK's nodes multiply with, in the order in which they run.

    Returns:
        Kind of the node and its filter as real numbers, (outputs, everything else).

    Raises:
        PteFileError: See ``inspect_pte``; or a filter of a type that this does not know.
    """
    data = path.read_bytes()
    try:
        container = _Container.parse(data)
        named = {e["key"]: container.segments[e["segment_index"]] for e in container.named()}
        payloads = list(container.xnnpack_payloads())
        return [pair for p in payloads for pair in XnnGraph.parse(p).filters(named)]
    except _DAMAGE as error:
        msg = f"{path}: its weights cannot be read ({_first_line(error)})"
        raise PteFileError(msg) from error


def read_constants(path: Path) -> list[Constant]:
    """Read every constant of a program as real numbers.

    Returns:
        Those of XNNPACK's nodes in the order in which they run, each where it is read first, with
        the numbers in the nodes themselves; then those that operators outside delegates read, in
        the order of the program's values.

    Raises:
        PteFileError: See ``inspect_pte``; or a constant of a type that this does not know.
    """
    data = path.read_bytes()
    try:
        container = _Container.parse(data)
        named = {e["key"]: container.segments[e["segment_index"]] for e in container.named()}
        graphs = [XnnGraph.parse(payload) for payload in container.xnnpack_payloads()]
        inside = [constant for graph in graphs for constant in graph.constants(named)]
        return [*inside, *container.constant_values()]
    except _DAMAGE as error:
        msg = f"{path}: its constants cannot be read ({_first_line(error)})"
        raise PteFileError(msg) from error


_PLACES = (
    "constant_buffer_idx", "data_buffer_idx", "scale_buffer_idx", "debug_handle", "debug_handles",
)  # fmt: skip
"""Where constants lie follows from which of them are equal."""
_STORES = (
    "backend_delegate_data", "constant_buffer", "constant_data", "constant_segment",
    "mutable_data_segments", "named_data", "processed", "segments", "version",
)  # fmt: skip


def read_structure(path: Path) -> dict[str, Any]:
    """Read everything of a program that is not the value of a constant, as plain values.

    Returns:
        ``program``, the plans with values and instructions, and ``delegates``, the graphs; of what
        is stored elsewhere only whether there is any.

    Raises:
        PteFileError: See ``inspect_pte``.
    """
    data = path.read_bytes()
    try:
        container = _Container.parse(data)
        graphs = [XnnGraph.parse(payload).graph for payload in container.xnnpack_payloads()]
    except _DAMAGE as error:
        msg = f"{path}: its graph cannot be read ({_first_line(error)})"
        raise PteFileError(msg) from error
    found: dict[str, Any] = _without_stores({"program": container.program, "delegates": graphs})
    return found


def _without_stores(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {
            key: item > 0 if key in _PLACES and isinstance(item, int) else _without_stores(item)
            for key, item in value.items()
            if key not in _STORES
        }
    if isinstance(value, list):
        return [_without_stores(item) for item in value]
    return value


def _contents(container: _Container, graphs: list[XnnGraph], size_bytes: int) -> PteContents:
    plans = container.program["execution_plan"]
    weights: dict[str, tuple[str, int]] = dict(container.constants())
    scales: dict[str, int] = {}
    weighted: dict[str, Counter[str]] = {}
    for number, graph in enumerate(graphs):
        for key, dtype, size in graph.weights(container.named_sizes()):
            weights[key or f"delegate {number}: {len(weights)}"] = (dtype, size)
        scales |= {
            key or f"delegate {number}: {len(scales)}": size
            for key, size in graph.scales(container.named_sizes())
        }
        for operator, dtype in graph.weighted_ops():
            weighted.setdefault(operator, Counter())[dtype] += 1
    by_dtype: Counter[str] = Counter()
    for dtype, size in weights.values():
        by_dtype[dtype] += size
    return PteContents(
        methods=tuple(_method(plan) for plan in plans),
        delegates=sum(len(plan["delegates"]) for plan in plans),
        backends=frozenset(delegate["id"] for plan in plans for delegate in plan["delegates"]),
        undelegated_ops=Counter(name for plan in plans for name in _kernel_calls(plan)),
        xnn_ops=Counter(operator for graph in graphs for operator in graph.operators()),
        weighted_ops=weighted,
        weight_bytes_by_dtype=by_dtype,
        matrix_weights_by_dtype=_summed(
            pair for graph in graphs for pair in graph.matrix_weights()
        ),
        macs_by_dtype=_summed(pair for graph in graphs for pair in graph.macs()),
        scale_bytes=sum(scales.values()),
        planned_memory_bytes=sum(sum(plan["non_const_buffer_sizes"]) for plan in plans),
        size_bytes=size_bytes,
    )


def _summed(pairs: Iterable[tuple[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for name, count in pairs:
        total[name] += count
    return total


@dataclass(frozen=True, slots=True)
class _Container:
    """The outer flatbuffer and the segments after it."""

    program: dict[str, Any]
    segments: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> _Container:
        if data[4:8] != b"ET12" or data[8:12] != b"eh00":
            msg = f"its identifiers are {data[4:8]!r} and {data[8:12]!r}, should be ET12 and eh00"
            raise ValueError(msg)
        program_size = unsigned(data, 16, 8)
        base = unsigned(data, 24, 8)
        program = decompile(cut(data, 0, program_size, "program"), "program.fbs")
        if not program["execution_plan"]:
            msg = "its program has no method"
            raise ValueError(msg)
        if sum(segment["size"] for segment in program["segments"]) > 2 * len(data):
            msg = "its segments are together larger than the file"
            raise ValueError(msg)
        segments = tuple(
            cut(data, base + segment["offset"], segment["size"], f"segment {number}")
            for number, segment in enumerate(program["segments"])
        )
        return cls(program, segments)

    def named_sizes(self) -> dict[str, int]:
        """Return the size of each named segment."""
        return {entry["key"]: len(self.segments[entry["segment_index"]]) for entry in self.named()}

    def named(self) -> list[dict[str, Any]]:
        """Return key and segment of each constant that delegates share."""
        entries: list[dict[str, Any]] = self.program["named_data"]
        return entries

    def xnnpack_payloads(self) -> Iterator[bytes]:
        """Yield the payload of each XNNPACK delegate."""
        for plan in self.program["execution_plan"]:
            for delegate in plan["delegates"]:
                if delegate["id"] != _XNNPACK:
                    continue
                where = delegate["processed"]
                if where["location"] == "SEGMENT":
                    yield self.segments[where["index"]]
                else:
                    yield bytes(self.program["backend_delegate_data"][where["index"]]["data"])

    def constants(self) -> Iterator[tuple[str, tuple[str, int]]]:
        """Yield key, type and bytes of each constant tensor outside delegates."""
        for tensor, _ in self._constant_tensors():
            dtype, width = _scalar_type(tensor)
            yield f"constant {tensor['data_buffer_idx']}", (dtype, width * prod(tensor["sizes"]))

    def constant_values(self) -> Iterator[Constant]:
        """Yield each constant tensor outside delegates, with the operator that reads it first."""
        segment = self.program["constant_segment"]
        seen: set[int] = set()
        for tensor, (reader, position) in self._constant_tensors():
            index = tensor["data_buffer_idx"]
            if index in seen:
                continue
            seen.add(index)
            dtype, width = _scalar_type(tensor)
            stored = cut(
                self.segments[segment["segment_index"]],
                segment["offsets"][index],
                width * prod(tensor["sizes"]),
                f"constant {index}",
            )
            values = widened(stored) if dtype == "bfloat16" else np.frombuffer(stored, dtype)
            real = values.astype(np.float64).reshape(tensor["sizes"])
            yield Constant(reader, f"input{position}", dtype, real)

    def _constant_tensors(self) -> Iterator[tuple[dict[str, Any], tuple[str, int]]]:
        """Yield each constant tensor outside delegates, and which operator's argument it is."""
        for plan in self.program["execution_plan"]:
            readers = _readers(plan)
            for number, value in enumerate(plan["values"]):
                tensor = value.get("val", {})
                # A mutable buffer's initial value has its place in the arena as well.
                if (
                    value.get("val_type") == "Tensor"
                    and tensor["data_buffer_idx"] > 0
                    and tensor.get("allocation_info") is None
                ):
                    yield tensor, readers.get(number, ("", 0))


def _readers(plan: dict[str, Any]) -> dict[int, tuple[str, int]]:
    """Return the first kernel that reads each value, and which argument (from 1) it is."""
    readers: dict[int, tuple[str, int]] = {}
    for chain in plan["chains"]:
        for instruction in chain["instructions"]:
            if instruction["instr_args_type"] == "KernelCall":
                call = instruction["instr_args"]
                name = plan["operators"][call["op_index"]]["name"]
                for position, argument in enumerate(call["args"], start=1):
                    readers.setdefault(argument, (name, position))
    return readers


def _kernel_calls(plan: dict[str, Any]) -> Iterator[str]:
    for chain in plan["chains"]:
        for instruction in chain["instructions"]:
            if instruction["instr_args_type"] == "KernelCall":
                operator = plan["operators"][instruction["instr_args"]["op_index"]]
                yield ".".join(filter(None, (operator["name"], operator["overload"])))


def _method(plan: dict[str, Any]) -> PteMethod:
    values = plan["values"]
    return PteMethod(
        name=plan["name"],
        inputs=tuple(_tensor(values[index]) for index in plan["inputs"]),
        outputs=tuple(_tensor(values[index]) for index in plan["outputs"]),
    )


def _tensor(value: dict[str, Any]) -> PteTensor:
    if value["val_type"] != "Tensor":
        msg = f"an input or output is a {value['val_type']}, should be a Tensor"
        raise ValueError(msg)
    tensor = value["val"]
    dynamic = tensor["shape_dynamism"] != "STATIC"
    return PteTensor(_scalar_type(tensor)[0], tuple(tensor["sizes"]), dynamic)


def _scalar_type(tensor: dict[str, Any]) -> tuple[str, int]:
    return _SCALAR_TYPES[tensor["scalar_type"]]


def _first_line(error: Exception) -> str:
    return reason(error).strip().partition("\n")[0][:300]
