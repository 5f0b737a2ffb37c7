"""Lowering without the passes of XNNPACK's backend that have nothing to find.

Each of its passes takes the whole graph apart and traces it anew, whether it changes anything or
not. Eight of its 17 look for operators that a rewritten encoder has none of.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

from executorch.backends.transforms.remove_getitem_op import RemoveGetItemPass
from executorch.backends.xnnpack._passes import XNNPACKPassManager
from executorch.backends.xnnpack._passes.conv1d_unsqueeze_pass import Conv1dUnsqueezePass
from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
    ConvertToUpsampleBilinear2d,
)
from executorch.backends.xnnpack._passes.decompose_batch_norm import DecomposeBatchNorm
from executorch.backends.xnnpack._passes.decompose_cat import DecomposeConcatenate
from executorch.backends.xnnpack._passes.fuse_batch_norm import FuseBatchNormPass
from executorch.backends.xnnpack._passes.prelu_reshape_pass import PReLUReshapePass
from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa
from executorch.exir.dialects._ops import ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from torch.export import ExportedProgram
    from torch.fx import Graph, GraphModule, Node


@contextlib.contextmanager
def without_idle_passes() -> Iterator[None]:
    """Have XNNPACK's backend leave out, of each graph, the passes that cannot match in it."""
    transform = XNNPACKPassManager.transform

    def chosen(self: XNNPACKPassManager) -> ExportedProgram:
        calls = _calls(self.exported_program.graph)
        self.passes = [kind for kind in self.passes if not is_idle(kind, calls)]
        transformed: ExportedProgram = transform(self)
        return transformed

    XNNPACKPassManager.transform = chosen
    try:
        yield
    finally:
        XNNPACKPassManager.transform = transform


def is_idle(kind: type, calls: Sequence[Node]) -> bool:
    """Tell whether a pass looks for what a graph lacks.

    Args:
        kind: The pass.
        calls: The graph's nodes that call an operator.
    """
    finds = _FINDS.get(kind)
    return finds is not None and not finds(calls)


def _calls(graph: Graph) -> list[Node]:
    return [node for node in graph.nodes if node.op == "call_function"]


def _any_of(*operators: object) -> Callable[[Sequence[Node]], bool]:
    return lambda calls: any(node.target in operators for node in calls)


def _pattern_of(patterns: Callable[[], Iterable[GraphModule]]) -> Callable[[Sequence[Node]], bool]:
    """Return whether a graph has all operators of one of the patterns, without which none fits."""

    def finds(calls: Sequence[Node]) -> bool:
        present = {node.target for node in calls}
        return any(
            present.issuperset(node.target for node in _calls(pattern.graph))
            for pattern in patterns()
        )

    return finds


def _convolution_of_one_axis(calls: Sequence[Node]) -> bool:
    return any(
        node.target == ops.edge.aten.convolution.default
        and len(cast("Sequence[int]", node.args[3])) == 1  # its stride
        for node in calls
    )


_FINDS: dict[type, Callable[[Sequence[Node]], bool]] = {
    Conv1dUnsqueezePass: _convolution_of_one_axis,
    ConvertToSDPAPass: _pattern_of(sdpa.get_graphs),
    ConvertToUpsampleBilinear2d: _pattern_of(bilinear_2d.get_graphs_dict),
    DecomposeBatchNorm: _any_of(*DecomposeBatchNorm.BATCH_NORM_OPS),
    DecomposeConcatenate: _any_of(ops.edge.aten.cat.default),
    FuseBatchNormPass: _any_of(*DecomposeBatchNorm.BATCH_NORM_OPS),
    PReLUReshapePass: _any_of(ops.edge.aten._prelu_kernel.default),  # noqa: SLF001
    RemoveGetItemPass: _any_of(
        ops.edge.aten.max_pool2d_with_indices.default, ops.edge.aten.max.dim
    ),
}
