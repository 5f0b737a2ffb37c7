"""What is inside a file, read from the file itself and not from its exporter's word."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from exportgate.artifacts.contents.onnx_matrices import count_by_dtype
from exportgate.artifacts.contents.saturation import saturating_pairs
from exportgate.artifacts.operators import is_dequantize, is_quantize
from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, check_regular, reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx

    from exporters.variants import Precision

# A weight is what a matrix product or a convolution multiplies with; smaller constants (shapes,
# scales, biases, zero points) carry no precision that a reader of "INT8" has in mind.
_MIN_WEIGHT_ELEMENTS = 256
_BITS = {
    "float64": 64, "int64": 64, "float32": 32, "int32": 32, "float16": 16, "bfloat16": 16,
    "int16": 16, "int8": 8, "uint8": 8, "int4": 4, "uint4": 4, "bool": 8,
    # XNNPACK's names: per tensor, per channel and per block.
    "qint8": 8, "quint8": 8, "qcint8": 8, "qcint4": 4, "qbint4": 4,
}  # fmt: skip
_NAMED_BITS: Mapping[Precision, int] = {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}


_MOST_ELEMENTS = 1 << 32

# ONNX Runtime's com.microsoft is in all of its builds; nchwc and the rest depend on the processor.
_PORTABLE_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})


class AuditError(ExportGateError, ValueError):
    """A file cannot be read for an audit."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file holds.

    Attributes:
        weight_bytes: Bytes of weights by dtype.
        ops: Operators that the runtime itself runs, by name; of a .pte those outside delegates.
        quantize_ops: Operators that turn real values into integers, in the whole file.
        dequantize_ops: Operators that turn integers into real values, in the whole file.
        delegates: Subgraphs handed to a backend; 0 for ONNX.
        unportable_ops: Operators of domains that only one kind of machine has, by name.
        matrix_weights: Number of weights by dtype of the matrices that are multiplied with: those
            of a .pte's XNNPACK nodes, the constants of an ONNX file's products and LSTMs.
        saturating_pairs: Pairs of weights whose products depend on the machine, by constant.
    """

    weight_bytes: Mapping[str, int]
    ops: Mapping[str, int]
    quantize_ops: int
    dequantize_ops: int
    delegates: int
    unportable_ops: Mapping[str, int] = field(default_factory=dict)
    saturating_pairs: Mapping[str, int] = field(default_factory=dict)
    matrix_weights: Mapping[str, int] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """How many numbers the file holds, whatever their type."""
        return round(sum(8 * size / _bits(name) for name, size in self.weight_bytes.items()))

    def bytes_of(self, bits: int) -> int:
        """Return the bytes of the numbers that are stored in so many bits."""
        return sum(size for name, size in self.weight_bytes.items() if _bits(name) == bits)

    @property
    def int8_weight_share(self) -> float:
        """Share of the weights stored in 8 or fewer bits, each counted as its FP32 bytes.

        Bytes in the file would count what stayed FP32 four times: biases, norms and small
        convolutions, which are 4 % of a small encoder's weights but 15 % of its INT8 file.
        """
        weights = {name: size / _bits(name) for name, size in self.weight_bytes.items()}
        total = sum(weights.values())
        narrow = sum(count for name, count in weights.items() if _bits(name) <= 8)
        return narrow / total if total else 0.0

    @property
    def int8_matrix_share(self) -> float:
        """Share of the matrices' weights that are stored in 8 or fewer bits; 0 without matrices."""
        total = sum(self.matrix_weights.values())
        narrow = sum(count for name, count in self.matrix_weights.items() if _bits(name) <= 8)
        return narrow / total if total else 0.0

    @property
    def matrix_bytes(self) -> float:
        """Bytes of the matrices' weights, without their scales."""
        return sum(count * _bits(name) / 8 for name, count in self.matrix_weights.items())

    @property
    def int4_weight_share(self) -> float:
        """Share of the matrices' weights that are stored in 4 bits."""
        total = sum(self.matrix_weights.values())
        narrow = sum(count for name, count in self.matrix_weights.items() if _bits(name) <= 4)
        return narrow / total if total else 0.0

    @property
    def undelegated_qdq_ops(self) -> int:
        """Quantize and dequantize operators outside delegates; ExecuTorch runs none of them."""
        return sum(count for name, count in self.ops.items() if "quantize" in name.lower())


def read_contents(path: Path) -> Contents:
    """Read a file's contents.

    Raises:
        AuditError: The file is damaged, or of a kind that cannot be audited.
    """
    if path.suffix == ".onnx":
        return _onnx_contents(path)
    if path.suffix == ".pte":
        return _pte_contents(path)
    msg = f"{path}: cannot audit {path.suffix!r}; expected .onnx or .pte"
    raise AuditError(msg)


def stored_bytes(weights: int, precision: Precision) -> float:
    """Return the bytes that so many weights need at a precision, without their scales."""
    return weights * _NAMED_BITS[precision] / 8


def _bits(dtype: str) -> int:
    if dtype not in _BITS:
        msg = f"weights of the unknown type {dtype!r}; known: {', '.join(_BITS)}"
        raise AuditError(msg)
    return _BITS[dtype]


def _onnx_contents(path: Path) -> Contents:
    import onnx  # noqa: PLC0415 - only ONNX audits pay for it
    from google.protobuf.message import DecodeError  # noqa: PLC0415

    try:
        check_regular(path)
        # Weights of another file are no part of this one; its hash would not cover them.
        return _contents_of(onnx.load(str(path), load_external_data=False))
    except (DecodeError, OSError, *MALFORMED) as error:
        msg = f"{path}: not a readable ONNX file ({reason(error)}); export it again"
        raise AuditError(msg) from error


def _contents_of(model: onnx.ModelProto) -> Contents:
    import onnx  # noqa: PLC0415 - as above

    if not model.graph.node:
        msg = "its graph has no operators"
        raise ValueError(msg)
    weights: Counter[str] = Counter()
    for tensor in model.graph.initializer:
        _check_tensor(tensor)
        count = prod(tensor.dims)
        if count >= _MIN_WEIGHT_ELEMENTS:
            dtype = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
            dtype = {"float": "float32"}.get(dtype, dtype)
            weights[dtype] += len(onnx.numpy_helper.to_array(tensor).tobytes())
    ops = Counter(node.op_type for node in model.graph.node)
    return Contents(
        weight_bytes=dict(weights),
        ops=dict(ops),
        quantize_ops=sum(n for op, n in ops.items() if is_quantize(op)),
        dequantize_ops=sum(n for op, n in ops.items() if is_dequantize(op)),
        delegates=0,
        unportable_ops=Counter(
            f"{node.domain}.{node.op_type}"
            for node in model.graph.node
            if node.domain not in _PORTABLE_DOMAINS
        ),
        saturating_pairs=saturating_pairs(model),
        matrix_weights=dict(count_by_dtype(model)),
    )


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Refuse a tensor whose dimensions are not those of its values.

    Raises:
        ValueError: They are not, or the values are not in this file.
    """
    from onnx import helper  # noqa: PLC0415 - as above

    if tensor.external_data:
        msg = f"the weights of {tensor.name!r} are in another file"
        raise ValueError(msg)
    if min(tensor.dims, default=1) < 0 or prod(tensor.dims) > _MOST_ELEMENTS:
        msg = f"the dimensions of {tensor.name!r} are {list(tensor.dims)}"
        raise ValueError(msg)
    known = {None, *helper.get_all_tensor_dtypes()}
    if tensor.data_type not in known:
        msg = f"{tensor.name!r} is of the unknown type {tensor.data_type}"
        raise ValueError(msg)


def _pte_contents(path: Path) -> Contents:
    from exportgate.artifacts.contents.pte_file import inspect_pte  # noqa: PLC0415 - only .pte audits pay for it

    found = inspect_pte(path)
    return Contents(
        weight_bytes=dict(found.weight_bytes_by_dtype),
        ops=dict(found.undelegated_ops),
        # XNNPACK converts activations to integers in nodes of their own, and back inside kernels.
        quantize_ops=found.xnn_ops.get("XNNConvert", 0)
        + sum(n for op, n in found.undelegated_ops.items() if is_quantize(op)),
        dequantize_ops=sum(n for op, n in found.undelegated_ops.items() if is_dequantize(op)),
        delegates=found.delegates,
        matrix_weights=dict(found.matrix_weights_by_dtype),
    )
