"""What a file costs without a clock: multiply-accumulates, weights, nodes, planned memory.

Of a .pte this is read from the file. An ONNX file does not say what will run: ONNX Runtime rewrites
it when it loads it, and its shapes follow from values. So it is run once with the profiler on, and
what is counted is the graph that ran, with the types and shapes that its kernels saw.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.contents.onnx_matrices import count_by_arithmetic
from exportgate.artifacts.contents.reading import read_contents
from exportgate.errors import ExportGateError
from exportgate.runtime.onnx_runtime import open_model, session_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from exportgate.runtime.session import Arrays

_MULTIPLIES = re.compile(r"Gemm|MatMul|Conv|LSTM|GRU|Attention")
_MATRIX = re.compile(r"Gemm|MatMul")
_CONVERSIONS = re.compile(r"Reorder")
"""Operators that change a layout, and whose names hold no arithmetic."""


class CostError(ExportGateError, ValueError):
    """A file's cost cannot be counted."""


@dataclass(frozen=True, slots=True)
class StaticCost:
    """What a file costs.

    Attributes:
        macs: Multiply-accumulates of one inference by the type of the weights.
        weight_bytes: Bytes of weights by stored type.
        nodes: Nodes that run; of a .pte those inside delegates too.
        subgraphs: Delegates; 0 for ONNX.
        planned_memory_bytes: Activations' arena of a .pte; None for ONNX, which plans none.
        matrix_arithmetic: Matrices' weights by the arithmetic that an ONNX file's products compute
            in, ``int8`` or ``float``; empty for a .pte, whose kernels follow the stored type.
    """

    macs: Mapping[str, int]
    weight_bytes: Mapping[str, int]
    nodes: int
    subgraphs: int
    planned_memory_bytes: int | None
    matrix_arithmetic: Mapping[str, int]

    @property
    def int8_compute_share(self) -> float:
        """Share of the matrices' weights that products take as integers; 0 without a matrix."""
        total = sum(self.matrix_arithmetic.values())
        return self.matrix_arithmetic.get("int8", 0) / max(1, total)

    @property
    def int8_mac_share(self) -> float:
        """Share of the multiply-accumulates whose weights have 8 or fewer bits."""
        narrow = sum(n for name, n in self.macs.items() if re.search(r"int[48]", name))
        return narrow / max(1, sum(self.macs.values()))


def static_cost(path: Path, inputs: Arrays) -> StaticCost:
    """Count a file's cost.

    Args:
        path: A .pte or .onnx.
        inputs: One inference's inputs; of a .pte the largest input counts in any case.

    Raises:
        CostError: An operator multiplies in a way that this does not know.
        AuditError: The file is damaged.
    """
    if path.suffix == ".pte":
        return _pte_cost(path)
    weights = read_contents(path).weight_bytes
    events, running = _profiled(path, inputs)
    macs: Counter[str] = Counter()
    for event in events:
        dtype, count = node_macs(event["args"])
        if count:
            macs[dtype] += count
    return StaticCost(dict(macs), weights, len(events), 0, None, count_by_arithmetic(running))


def _pte_cost(path: Path) -> StaticCost:
    from exportgate.artifacts.contents.pte_file import inspect_pte  # noqa: PLC0415 - loads ExecuTorch's schemas

    found = inspect_pte(path)
    nodes = sum(found.xnn_ops.values()) + sum(found.undelegated_ops.values())
    return StaticCost(
        macs=dict(found.macs_by_dtype),
        weight_bytes=dict(found.weight_bytes_by_dtype),
        nodes=nodes,
        subgraphs=found.delegates,
        planned_memory_bytes=found.planned_memory_bytes,
        matrix_arithmetic={},
    )


def profile_nodes(path: Path, inputs: Arrays) -> list[dict[str, Any]]:
    """Run an ONNX file once with ONNX Runtime's profiler and return its nodes' events."""
    return _profiled(path, inputs)[0]


def _profiled(path: Path, inputs: Arrays) -> tuple[list[dict[str, Any]], onnx.ModelProto]:
    """Return what ran, and the graph that the runtime made of the file."""
    import onnx  # noqa: PLC0415 - only ONNX pays for it
    import onnxruntime  # noqa: PLC0415 - as above

    with tempfile.TemporaryDirectory() as folder:
        options = session_options()
        options.enable_profiling = True
        # All that does not depend on the machine: blocked layouts of its vector width pad channels.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        # A packed weight is no input of its kernel any more, and the profile would lack its shape.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.optimized_model_filepath = str(Path(folder) / "running.onnx")
        session = open_model(path, options)
        session.run(None, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        running = onnx.load(options.optimized_model_filepath)
    ran = [event for event in events if event.get("name", "").endswith("_kernel_time")]
    return ran, running


def node_macs(node: Mapping[str, Any]) -> tuple[str, int]:
    """Return type of the weights and multiply-accumulates of a profiled node.

    A matrix product of (…, M, K) and (…, K, N) has a·b / out = K² elements for each matrix of b,
    whichever of its operands is transposed.

    Raises:
        CostError: The operator's name speaks of a product that is not known here.
    """
    name = node["op_name"]
    if not _MULTIPLIES.search(name) or _CONVERSIONS.search(name):
        return "", 0
    arrays = [next(iter(entry.items())) for entry in node["input_type_shape"] if entry]
    out = next(iter(node["output_type_shape"][0].values()))
    if _MATRIX.search(name):
        tensors = [(dtype, shape) for dtype, shape in arrays if len(shape) >= 2]
        (_, first), (dtype, second) = tensors[:2]
        inner = isqrt(prod(first) * prod(second) // (prod(out) * prod(second[:-2])))
        return dtype, prod(out) * inner
    if "LSTM" in name:
        # At each point of (T, B, I), every gate multiplies the input and the state.
        (_, points), (dtype, kernel), (_, recurrence) = [a for a in arrays if len(a[1]) == 3][:3]
        return dtype, prod(points[:2]) * (prod(kernel) + prod(recurrence))
    if "Conv" in name:
        tensors = [(dtype, shape) for dtype, shape in arrays if len(shape) >= 3]
        dtype, weight = tensors[1]
        return dtype, prod(out) * prod(weight[1:])
    msg = f"{name} multiplies, but how often is not known here; add it to harness/inspect/cost.py"
    raise CostError(msg)
