"""Lower programs, and count what runs in delegates and what is left to portable kernels.

``executorch.devtools.get_delegation_info`` weighs quantize, dequantize and getitem like a matrix
product, which flatters quantized programs; these counts keep them apart. A share of multiply-
accumulates is reported too, but it is 1.0 for badly cut programs as well and decides nothing.
"""

from __future__ import annotations

import math
import operator
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.xnnpack.pass_skipping import pass_skipping
from exportgate.artifacts.operators import base_name, is_dequantize, is_quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from torch.export import ExportedProgram

    from exporters.xnnpack.time_axis import TimeAxis

_BOOKKEEPING = {"getitem", "executorch_call_delegate"}
_SHAPE_AND_CAST = {
    "_clone_dim_order",
    "_to_copy",
    "_to_dim_order_copy",
    "alias_copy",
    "as_strided_copy",
    "clone",
    "copy",
    "expand_copy",
    "permute_copy",
    "select_copy",
    "slice_copy",
    "split_with_sizes_copy",
    "squeeze_copy",
    "sym_size",
    "transpose_copy",
    "unsqueeze_copy",
    "view_copy",
}


@dataclass(frozen=True, slots=True)
class Delegation:
    """Operators of a lowered program, inside and outside its delegates.

    Attributes:
        delegates: Delegated subgraphs; the runtime crosses a boundary for each.
        delegated: Count of each operator inside delegates.
        undelegated: Count of each operator outside.
        delegated_macs: Multiply-accumulates inside, at the lengths that were traced.
        undelegated_macs: Multiply-accumulates outside.
    """

    delegates: int
    delegated: Mapping[str, int]
    undelegated: Mapping[str, int]
    delegated_macs: int
    undelegated_macs: int

    @property
    def delegated_nodes(self) -> int:
        """Operators inside delegates, less those of quantization: they are part of a kernel."""
        return sum(n for name, n in self.delegated.items() if not _is_quantization(name))

    @property
    def undelegated_nodes(self) -> int:
        """Operators outside, all of them."""
        return sum(self.undelegated.values())

    @property
    def node_ratio(self) -> float:
        """Share of operators that are delegated."""
        return _share(self.delegated_nodes, self.undelegated_nodes)

    @property
    def compute_ratio(self) -> float:
        """Share of operators that are delegated, among those that compute."""
        inside = sum(n for name, n in self.delegated.items() if _computes(name))
        return _share(inside, sum(n for name, n in self.undelegated.items() if _computes(name)))

    @property
    def mac_ratio(self) -> float:
        """Share of multiply-accumulates that are delegated."""
        return _share(self.delegated_macs, self.undelegated_macs)

    def to_json(self) -> dict[str, Any]:
        """Return the counts and ratios as plain values, for a sidecar."""
        return {
            "delegates": self.delegates,
            "delegated_nodes": self.delegated_nodes,
            "undelegated_nodes": self.undelegated_nodes,
            "node_ratio": self.node_ratio,
            "compute_ratio": self.compute_ratio,
            "mac_ratio": self.mac_ratio,
            "macs": self.delegated_macs + self.undelegated_macs,
            "undelegated_ops": dict(sorted(self.undelegated.items())),
            "quantize_ops": _inside_and_outside(self, is_quantize),
            "dequantize_ops": _inside_and_outside(self, is_dequantize),
        }


def lower(
    exported: Mapping[str, ExportedProgram], time_axis: TimeAxis | None, *, skip_passes: bool
) -> tuple[bytes, dict[str, Any]]:
    """Return a .pte's bytes and what was counted on the way, of all methods together.

    Args:
        exported: Programs by the method's name.
        time_axis: Of an encoder.
        skip_passes: Leave out passes that change nothing (``pass_skipping``).

    Raises:
        LoweringError: A program does not take every T.
    """
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # noqa: PLC0415 - slow
        XnnpackPartitioner,
    )
    from executorch.exir import (  # noqa: PLC0415 - slow
        EdgeCompileConfig,
        to_edge_transform_and_lower,
    )

    start = time.perf_counter()
    with pass_skipping(wanted=skip_passes):
        edge = to_edge_transform_and_lower(
            dict(exported),
            partitioner=[XnnpackPartitioner()],
            # The validity check does not know the operators of quantized programs.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        lowered = [edge.exported_program(name) for name in exported]
        if time_axis is not None:
            for program in lowered:
                time_axis.check(program, "lowering")
        delegation = _together([count_delegation(program) for program in lowered])
        made = edge.to_executorch()
    plans = made.executorch_program.execution_plan
    return bytes(made.buffer), {
        **delegation.to_json(),
        "planned_memory_bytes": sum(sum(plan.non_const_buffer_sizes) for plan in plans),
        "lower_seconds": round(time.perf_counter() - start, 3),
    }


def _together(methods: Sequence[Delegation]) -> Delegation:
    """Add up what the methods of a program run."""
    delegated: Counter[str] = Counter()
    undelegated: Counter[str] = Counter()
    for method in methods:
        delegated.update(method.delegated)
        undelegated.update(method.undelegated)
    return Delegation(
        delegates=sum(method.delegates for method in methods),
        delegated=delegated,
        undelegated=undelegated,
        delegated_macs=sum(method.delegated_macs for method in methods),
        undelegated_macs=sum(method.undelegated_macs for method in methods),
    )


def count_delegation(program: ExportedProgram) -> Delegation:
    """Count the operators of a program that ``to_edge_transform_and_lower`` returned.

    Args:
        program: ``EdgeProgramManager.exported_program()``, before ``to_executorch``.
    """
    outside = program.graph_module
    inside = [
        getattr(outside, str(node.target)).original_module.graph_module
        for node in outside.graph.nodes
        if node.op == "get_attr" and str(node.target).startswith("lowered_module_")
    ]
    delegated = [node for module in inside for node in _operators(module)]
    undelegated = list(_operators(outside))
    return Delegation(
        delegates=len(inside),
        delegated=Counter(operator_name(node.target) for node in delegated),
        undelegated=Counter(operator_name(node.target) for node in undelegated),
        delegated_macs=sum(map(_macs, delegated)),
        undelegated_macs=sum(map(_macs, undelegated)),
    )


def operator_name(target: object) -> str:
    """Return an operator's name: ``aten.mul.Tensor``, or ``add`` for arithmetic on sizes."""
    return str(getattr(target, "__name__", target))


def _is_quantization(name: str) -> bool:
    return is_quantize(name) or is_dequantize(name) or base_name(name).startswith("choose_qparams")


def _computes(name: str) -> bool:
    return base_name(name) not in _SHAPE_AND_CAST and not _is_quantization(name)


def _share(inside: int, outside: int) -> float:
    total = inside + outside
    return inside / total if total else 1.0


def _inside_and_outside(counts: Delegation, matches: Callable[[str], bool]) -> dict[str, int]:
    return {
        "inside_delegates": sum(n for name, n in counts.delegated.items() if matches(name)),
        "outside_delegates": sum(n for name, n in counts.undelegated.items() if matches(name)),
    }


def _operators(module: torch.fx.GraphModule) -> Iterator[torch.fx.Node]:
    for node in module.graph.nodes:
        if node.op == "call_function" and operator_name(node.target) not in _BOOKKEEPING:
            yield node


def _macs(node: torch.fx.Node) -> int:
    """Return the multiply-accumulates of a matrix product or convolution; 0 of anything else."""
    base = base_name(operator_name(node.target))
    if base in {"linear", "convolution"}:
        return math.prod(_shape(node)) * math.prod(_shape(node.args[1])[1:])
    if base in {"mm", "bmm"}:
        return math.prod(_shape(node)) * _shape(node.args[0])[-1]
    if base == "addmm":
        return math.prod(_shape(node)) * _shape(node.args[1])[-1]
    return 0


def _shape(node: object) -> list[int]:
    # A symbolic size's hint and not int(): that would install a guard and fix the size for good.
    sizes = operator.attrgetter("meta")(node)["val"].shape
    return [size if isinstance(size, int) else int(size.node.hint) for size in sizes]
