"""Count what a lowered program runs in delegates and what it leaves to portable kernels.

``executorch.devtools.get_delegation_info`` weighs quantize, dequantize and getitem like a matrix
product, which flatters quantized programs; these counts keep them apart. A share of multiply-
accumulates is reported too, but it is 1.0 for badly cut programs as well and decides nothing.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exportgate.artifacts.operators import base_name, is_dequantize, is_quantize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch
    from torch.export import ExportedProgram

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
