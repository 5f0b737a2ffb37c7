"""Lowering without work that changes nothing; the program is the same, byte for byte.

Each pass of XNNPACK's backend takes the whole graph apart and traces it anew, whether it changes
anything or not, and nine of its 17 look for what a rewritten encoder has none of. ExecuTorch's
third decomposition, which does the same, is for operators that its second was to keep and that the
partitioner then refused. And each node's history, which grows with every pass and is never changed,
is copied whenever a node is made from another.
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
from executorch.backends.xnnpack._passes.propagate_custom_meta_pass import PropagateCustomMetaPass
from executorch.exir.dialects._ops import ops
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.fx.traceback import NodeSource

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch.fx import Node

    Table = Mapping[object, Callable[..., object]]


@contextlib.contextmanager
def lean_lowering() -> Iterator[None]:
    """Leave out passes and decompositions that cannot match, and have torch share histories."""
    transform, decompose = XNNPACKPassManager.transform, ExportedProgram.run_decompositions
    last: tuple[ExportedProgram, Collection[object]] | None = None

    def chosen(self: XNNPACKPassManager) -> ExportedProgram:
        nodes = list(self.exported_program.graph.nodes)
        self.passes = [kind for kind in self.passes if not is_idle(kind, nodes)]
        transformed: ExportedProgram = transform(self)
        return transformed

    def decompose_once(self: ExportedProgram, table: Table) -> ExportedProgram:
        nonlocal last
        if last is None or self is not last[0] or decomposes(self, table.keys() - last[1]):
            last = decompose(self, table), table.keys()
        return last[0]

    XNNPACKPassManager.transform = chosen
    ExportedProgram.run_decompositions = decompose_once  # type: ignore[method-assign]  # no switch
    NodeSource.__deepcopy__ = lambda self, _memo: self  # type: ignore[attr-defined]  # it has none
    try:
        yield
    finally:
        XNNPACKPassManager.transform = transform
        ExportedProgram.run_decompositions = decompose  # type: ignore[method-assign]  # as above
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]  # as above


def decomposes(program: ExportedProgram, operators: Collection[object]) -> bool:
    """Tell whether a program has one of these operators, in its graph or one inside it."""
    return any(
        node.target in operators
        for module in program.graph_module.modules()
        if isinstance(module, GraphModule)
        for node in module.graph.nodes
    )


def is_idle(kind: type, nodes: Sequence[Node]) -> bool:
    """Tell whether a pass looks for what a graph lacks.

    Args:
        kind: The pass.
        nodes: The graph's.
    """
    finds = _FINDS.get(kind)
    return finds is not None and not finds(nodes)


def _any_of(*operators: object) -> Callable[[Sequence[Node]], bool]:
    return lambda nodes: any(node.target in operators for node in nodes)


def _convolution_of_one_axis(nodes: Sequence[Node]) -> bool:
    return any(
        node.target == ops.edge.aten.convolution.default
        and len(cast("Sequence[int]", node.args[3])) == 1  # its stride
        for node in nodes
    )


def _custom_metadata(nodes: Sequence[Node]) -> bool:
    return any("custom" in node.meta for node in nodes)


_FINDS: dict[type, Callable[[Sequence[Node]], bool]] = {
    Conv1dUnsqueezePass: _convolution_of_one_axis,
    # These two look for patterns, each of which has this operator.
    ConvertToSDPAPass: _any_of(ops.edge.aten.logical_not.default),
    ConvertToUpsampleBilinear2d: _any_of(ops.edge.aten.upsample_bilinear2d.vec),
    DecomposeBatchNorm: _any_of(*DecomposeBatchNorm.BATCH_NORM_OPS),
    DecomposeConcatenate: _any_of(ops.edge.aten.cat.default),
    FuseBatchNormPass: _any_of(*DecomposeBatchNorm.BATCH_NORM_OPS),
    PropagateCustomMetaPass: _custom_metadata,
    PReLUReshapePass: _any_of(ops.edge.aten._prelu_kernel.default),  # noqa: SLF001
    RemoveGetItemPass: _any_of(
        ops.edge.aten.max_pool2d_with_indices.default, ops.edge.aten.max.dim
    ),
}
