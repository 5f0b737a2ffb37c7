"""Where the constants and the scalars of a .pte stand in the file.

Weights, biases, tables and scales lie in segments, as XNNPACK and ExecuTorch will read them; what
they are (type, shape) the graphs say. Nothing is moved: every change keeps the file's structure.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.artifacts.contents import flatbuffer, pte_file
from exportgate.artifacts.contents.xnn_graph import XnnGraph
from tests.mutants.flatbuffer import Scalar, Walker, read_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_DTYPES = {
    "xnn_datatype_fp32": "<f4", "xnn_datatype_fp16": "<f2", "xnn_datatype_qcint8": "<i1",
    "xnn_datatype_qint8": "<i1", "xnn_datatype_int32": "<i4", "xnn_datatype_qbint4": "nibbles",
    "xnn_datatype_qcint4": "nibbles",
    "FLOAT": "<f4", "HALF": "<f2", "CHAR": "<i1", "INT": "<i4", "LONG": "<i8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant of a .pte.

    Attributes:
        name: What uses it first: ``delegate 0 value 12``; scales have ``scales`` behind that.
        offset: Its first byte in the file.
        dtype: NumPy's name of its type, ``nibbles`` for two 4-bit codes a byte, ``bfloat16``.
        shape: Its sizes.
    """

    name: str
    offset: int
    dtype: str
    shape: tuple[int, ...]

    def read(self, data: bytes) -> NDArray[Any]:
        """Return its numbers: codes as int8, bfloat16 as float32."""
        count = prod(self.shape)
        if self.dtype == "nibbles":
            pairs = np.frombuffer(data, "u1", count // 2, self.offset)
            codes = np.stack([pairs & 15, pairs >> 4], axis=-1).astype("i1") - np.int8(8)
            return codes.reshape(self.shape)
        if self.dtype == "bfloat16":
            wide = np.frombuffer(data, "<u2", count, self.offset).astype("<u4") << 16
            return wide.view("<f4").reshape(self.shape)
        return np.frombuffer(data, self.dtype, count, self.offset).reshape(self.shape)

    def write(self, data: bytearray, array: NDArray[Any]) -> None:
        """Put other numbers in its place."""
        if self.dtype == "nibbles":
            codes = (np.clip(array, -8, 7).astype("i1") + 8).astype("u1").reshape(-1, 2)
            stored = (codes[:, 0] | (codes[:, 1] << 4)).tobytes()
        elif self.dtype == "bfloat16":
            bits = np.ascontiguousarray(array, "<f4").view("<u4")
            stored = ((bits + 0x8000) >> 16).astype("<u2").tobytes()
        else:
            stored = np.ascontiguousarray(array, self.dtype).tobytes()
        data[self.offset : self.offset + len(stored)] = stored


@dataclass(frozen=True)
class Layout:
    """A .pte with what stands where.

    Attributes:
        data: The file.
    """

    data: bytes

    @cached_property
    def constants(self) -> dict[str, Constant]:
        """Return every constant, each place in the file once, by name."""
        found: dict[int, Constant] = {}
        for number, (start, graph) in enumerate(self._graphs):
            for constant in self._of_graph(number, start, graph):
                found.setdefault(constant.offset, constant)
        for constant in self._of_program():
            found.setdefault(constant.offset, constant)
        return {constant.name: constant for constant in found.values()}

    @cached_property
    def scalars(self) -> dict[str, Scalar]:
        """Return every scalar of the program and of XNNPACK's graphs, by path."""
        _, files = flatbuffer._flatc_and_schemas()
        schemas = {k: read_schema(v.read_text(encoding="utf-8")) for k, v in files.items()}
        found = {}
        for scalar in Walker(self.data, 0, schemas["program.fbs"]).scalars():
            found[f"program.{scalar.path}"] = scalar
        for number, (start, _) in enumerate(self._graphs):
            graph = start + int.from_bytes(self.data[start + 10 : start + 14], "little")
            for scalar in Walker(self.data, graph, schemas["schema.fbs"]).scalars():
                found[f"delegate{number}.{scalar.path}"] = scalar
        return found

    @cached_property
    def _container(self) -> Any:
        return pte_file._Container.parse(self.data)

    @cached_property
    def _graphs(self) -> list[tuple[int, dict[str, Any]]]:
        """Return where each XNNPACK payload begins, and its graph."""
        found = []
        for payload in self._container.xnnpack_payloads():
            start = self.data.index(payload)
            found.append((start, XnnGraph.parse(payload).graph))
        return found

    def _segment(self, index: int) -> int:
        base = int.from_bytes(self.data[24:32], "little")
        return base + int(self._container.program["segments"][index]["offset"])

    @cached_property
    def _named(self) -> dict[str, int]:
        return {
            entry["key"]: self._segment(entry["segment_index"])
            for entry in self._container.program["named_data"]
        }

    def _of_graph(self, number: int, start: int, graph: dict[str, Any]) -> Iterator[Constant]:
        inline = start + int.from_bytes(self.data[start + 18 : start + 22], "little")

        def place(index: int) -> int:
            entry = graph["constant_data"][index]
            key = entry.get("named_key")
            return self._named[key] if key else inline + int(entry["offset"])

        for value in graph["xvalues"]:
            union = value["xvalue_union"]
            tensor = union.get("tensor_value", union)
            index = tensor["constant_buffer_idx"]
            if index == 0:
                continue
            name = f"delegate{number} value {tensor['id_out']}"
            dims = tuple(tensor.get("dims", ()))
            yield Constant(name, place(index), _DTYPES[tensor["datatype"]], dims)
            params = union.get("quant_params", {})
            if params.get("scale_buffer_idx"):
                count = params["num_scales"]
                dtype = "bfloat16" if params.get("group_size") else "<f4"
                shape = (count,)
                yield Constant(f"{name} scales", place(params["scale_buffer_idx"]), dtype, shape)

    def _of_program(self) -> Iterator[Constant]:
        segment = self._container.program.get("constant_segment")
        if not segment or not segment["offsets"]:
            return
        for plan in self._container.program["execution_plan"]:
            for number, value in enumerate(plan["values"]):
                tensor = value.get("val", {})
                if value.get("val_type") != "Tensor" or not tensor["data_buffer_idx"]:
                    continue
                if tensor.get("allocation_info") is None and tensor["scalar_type"] in _DTYPES:
                    offset = segment["offsets"][tensor["data_buffer_idx"]]
                    offset += self._segment(segment["segment_index"])
                    sizes = tuple(tensor["sizes"])
                    name = f"program value {number}"
                    yield Constant(name, offset, _DTYPES[tensor["scalar_type"]], sizes)
