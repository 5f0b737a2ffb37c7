"""Read what is inside a .pte: methods, delegates, operators left out, weights by their stored type.

An exporter's word about its own file proves nothing: an "INT8" program can hold FP32 weights. This
reads the file itself, down to the XNNPACK graphs that the runtime will build, with the flatc
compiler and the schemas that ExecuTorch's wheel ships. It imports no torch and runs no program.

Layout of a .pte, from ``exir/_serialize/_program.py``: a flatbuffer (identifier ET12) with an
extended header at byte 8 that says where the segments begin; weights lie in segments, by name. A
delegate's payload, from ``backends/xnnpack/serialization``: a header (XH00), a flatbuffer of the
graph (identifier XN01), and constant data for weights that have no name.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

_XNNPACK = "XnnpackBackend"
_FLATC_TIMEOUT_S = 60.0
_NO_OFFSET = 2**64 - 1
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
_XNN_TYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""XNNPACK's names of plain types; the quantized ones (qcint8, qcint4, …) keep theirs."""
_FILTER_TYPES = {"float32": "<f4", "float16": "<f2", "qcint8": "i1"}
_BARE_NUMBER = re.compile(rb"(?<=[\s\[:,-])(inf|nan)(?=[\s\],}])")
"""flatc's spelling of unbounded clamps, which is no JSON; Python's parser wants another one."""


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
        graphs = [_XnnGraph.parse(payload) for payload in container.xnnpack_payloads()]
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
        return [pair for p in payloads for pair in _XnnGraph.parse(p).filters(named)]
    except _DAMAGE as error:
        msg = f"{path}: its weights cannot be read ({_first_line(error)})"
        raise PteFileError(msg) from error


def _contents(container: _Container, graphs: list[_XnnGraph], size_bytes: int) -> PteContents:
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
    """The outer flatbuffer and the segments behind it."""

    program: dict[str, Any]
    segments: tuple[bytes, ...]

    @classmethod
    def parse(cls, data: bytes) -> _Container:
        if data[4:8] != b"ET12" or data[8:12] != b"eh00":
            msg = f"its identifiers are {data[4:8]!r} and {data[8:12]!r}, should be ET12 and eh00"
            raise ValueError(msg)
        program_size = _unsigned(data, 16, 8)
        base = _unsigned(data, 24, 8)
        program = _decompile(_slice(data, 0, program_size, "program"), "program.fbs")
        segments = tuple(
            _slice(data, base + segment["offset"], segment["size"], f"segment {number}")
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
        for plan in self.program["execution_plan"]:
            for value in plan["values"]:
                tensor = value.get("val", {})
                if value.get("val_type") == "Tensor" and tensor["data_buffer_idx"] > 0:
                    dtype, width = _scalar_type(tensor)
                    size = width
                    for length in tensor["sizes"]:
                        size *= length
                    # A mutable buffer's initial value has its place in the arena as well.
                    if tensor.get("allocation_info") is None:
                        yield f"constant {tensor['data_buffer_idx']}", (dtype, size)


@dataclass(frozen=True, slots=True)
class _XnnGraph:
    """The graph of one XNNPACK delegate."""

    graph: dict[str, Any]
    constant_data_size: int

    @classmethod
    def parse(cls, payload: bytes) -> _XnnGraph:
        if payload[4:8] != b"XH00":
            msg = f"a delegate's header is {payload[4:8]!r}, should be XH00"
            raise ValueError(msg)
        offset, size = _unsigned(payload, 10, 4), _unsigned(payload, 14, 4)
        graph = _decompile(_slice(payload, offset, size, "delegate's graph"), "schema.fbs")
        data_offset, data_size = _unsigned(payload, 18, 4), _unsigned(payload, 22, 8)
        _slice(payload, data_offset, data_size, "delegate's constants")
        return cls(graph, data_size)

    def operators(self) -> Iterator[str]:
        """Yield the kind of each node."""
        for node in self.graph["xnodes"]:
            yield node["xnode_union_type"]

    def weighted_ops(self) -> Iterator[tuple[str, str]]:
        """Yield kind and type of weights of each node with a constant filter."""
        values = {value["id_out"]: value for value, _ in self._tensors()}
        for node in self.graph["xnodes"]:
            filter_id = node["xnode_union"].get("filter_id")
            if filter_id is not None and values[filter_id]["constant_buffer_idx"] > 0:
                yield node["xnode_union_type"], _xnn_type(values[filter_id])

    def macs(self) -> Iterator[tuple[str, int]]:
        """Yield type of the weights and multiply-accumulates of each node that multiplies.

        A filter is (outputs, …, inputs) or (1, …, outputs) and is used once at each place of the
        output, whose last axis is the channels; a product of activations sums over the last axis.
        """
        values = {value["id_out"]: value for value, _ in self._tensors()}
        for node in self.graph["xnodes"]:
            union = node["xnode_union"]
            if "filter_id" in union:
                weight, out = values[union["filter_id"]], values[union["output_id"]]["dims"]
                yield _xnn_type(weight), prod(weight["dims"]) * prod(out[:-1])
            elif node["xnode_union_type"] == "XNNBatchMatrixMultiply":
                first = values[union["input1_id"]]
                out = values[union["output_id"]]["dims"]
                yield _xnn_type(first), prod(out) * first["dims"][-1]

    def filters(self, named: Mapping[str, bytes]) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield kind and real values, (outputs, all else), of each node's constant filter."""
        values = {value["id_out"]: (value, scales) for value, scales in self._tensors()}
        for node in self.graph["xnodes"]:
            tensor, quantization = values.get(node["xnode_union"].get("filter_id"), ({}, {}))
            if tensor.get("constant_buffer_idx", 0) == 0:
                continue
            kind = node["xnode_union_type"]
            stored = self._stored(tensor, named)
            if "Depthwise" in kind:
                stored = np.moveaxis(stored, -1, 0)
            filters = stored.reshape(len(stored), -1).astype(np.float32)
            if quantization:
                scales = self._bytes(quantization["scale_buffer_idx"], named)
                filters *= _steps(scales, len(filters)).repeat(
                    quantization.get("group_size") or filters.shape[1], axis=1
                )
            yield kind, filters

    def _stored(self, tensor: dict[str, Any], named: Mapping[str, bytes]) -> NDArray[Any]:
        """Return a filter's numbers or codes in its own shape."""
        found, kind = self._bytes(tensor["constant_buffer_idx"], named), _xnn_type(tensor)
        if kind != "qbint4":
            return np.frombuffer(found, _FILTER_TYPES[kind]).reshape(tensor["dims"])
        # Two codes a byte, the lower bits first, each 8 above its value.
        pairs = np.frombuffer(found, "u1")
        codes = np.stack([pairs & 15, pairs >> 4], axis=-1).astype("i1") - np.int8(8)
        return codes.reshape(tensor["dims"])

    def _bytes(self, index: int, named: Mapping[str, bytes]) -> bytes:
        constant = self.graph["constant_data"][index]
        return named[constant["named_key"]][: constant["size"]]

    def weights(self, named: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
        """Yield name (or nothing), type and bytes of each constant."""
        seen: set[int] = set()
        for value, _ in self._tensors():
            index = value["constant_buffer_idx"]
            if index > 0 and index not in seen:
                seen.add(index)
                key, size = self._constant(index, named)
                yield key, _xnn_type(value), size

    def scales(self, named: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Yield name (or nothing) and bytes of each table of scales."""
        for _, quantization in self._tensors():
            index = quantization.get("scale_buffer_idx", 0)
            if index > 0:
                yield self._constant(index, named)

    def _tensors(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each value's tensor and its quantization parameters."""
        for value in self.graph["xvalues"]:
            union = value["xvalue_union"]
            if value["xvalue_union_type"] == "XNNQuantizedTensorValue":
                yield union["tensor_value"], union["quant_params"]
            else:
                yield union, {}

    def _constant(self, index: int, named: Mapping[str, int]) -> tuple[str, int]:
        constant = self.graph["constant_data"][index]
        key, size = constant.get("named_key", ""), constant["size"]
        if key:
            if named[key] < size:
                msg = f"constant {key[:12]}… has {named[key]} bytes, but its delegate wants {size}"
                raise ValueError(msg)
        elif constant["offset"] == _NO_OFFSET or (
            constant["offset"] + size > self.constant_data_size
        ):
            msg = f"constant {index} of a delegate lies outside its data"
            raise ValueError(msg)
        return key, size


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


def _steps(scales: bytes, channels: int) -> NDArray[np.float32]:
    """Return (channels, groups) steps: FP32 for a whole channel, bfloat16 for groups of inputs."""
    if len(scales) == 4 * channels:
        return np.frombuffer(scales, "<f4").reshape(channels, 1)
    wide = np.frombuffer(scales, "<u2").astype("<u4") << 16
    return wide.view("<f4").reshape(channels, -1)


def _xnn_type(tensor: dict[str, Any]) -> str:
    name: str = tensor["datatype"].removeprefix("xnn_datatype_")
    return _XNN_TYPES.get(name, name)


def _unsigned(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(_slice(data, offset, size, "header"), "little")


def _slice(data: bytes, offset: int, size: int, what: str) -> bytes:
    if offset + size > len(data):
        msg = f"{what} ends at byte {offset + size} of {len(data)}: cut off"
        raise ValueError(msg)
    return data[offset : offset + size]


def _decompile(flatbuffer: bytes, schema: str) -> dict[str, Any]:
    """Return a flatbuffer as plain values, by flatc: the only tool that knows both schemas."""
    flatc, schemas = _flatc_and_schemas()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "input.bin"
        source.write_bytes(flatbuffer)
        options = ["--json", "--strict-json", "--defaults-json", "--raw-binary", "-o", folder]
        try:
            done = subprocess.run(
                [flatc, *options, schemas[schema], "--", source],
                capture_output=True,
                timeout=_FLATC_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"flatc did not finish within {_FLATC_TIMEOUT_S:.0f} s"
            raise ValueError(msg) from error
        result = source.with_suffix(".json")
        if done.returncode != 0 or not result.is_file():
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            msg = f"flatc exits with {done.returncode}: {said}"
            raise ValueError(msg)
        parsed = json.loads(_BARE_NUMBER.sub(_spelled_out, result.read_bytes()))
    if not isinstance(parsed, dict):
        msg = f"flatc wrote {type(parsed).__name__}, should be a table"
        raise TypeError(msg)
    return parsed


def _flatc_and_schemas() -> tuple[Path, dict[str, Path]]:
    """Find the compiler and the schemas of the installed ExecuTorch, without importing it."""
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        msg = "executorch is not installed, so its file format cannot be read; install the project"
        raise PteFileError(msg)
    root = Path(next(iter(spec.submodule_search_locations)))
    schemas = {
        "program.fbs": root / "exir" / "_serialize" / "program.fbs",
        "schema.fbs": root / "backends" / "xnnpack" / "serialization" / "schema.fbs",
    }
    return root / "data" / "bin" / "flatc", schemas


def _spelled_out(match: re.Match[bytes]) -> bytes:
    return {b"inf": b"Infinity", b"nan": b"NaN"}[match[1]]


def _first_line(error: Exception) -> str:
    lines = f"{type(error).__name__}: {error}".strip().splitlines()
    return lines[0][:300]
