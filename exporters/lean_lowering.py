"""Lowering without work that changes nothing; the program is the same, byte for byte.

Each pass of XNNPACK's backend takes the whole graph apart and traces it anew, whether it changes
anything or not, and nine of its 17 look for what a rewritten encoder has none of. And each node's
history, which grows with every pass and is never changed, is copied whenever a node is made from
another.
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
from torch.fx.traceback import NodeSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.export import ExportedProgram
    from torch.fx import Node


@contextlib.contextmanager
def lean_lowering() -> Iterator[None]:
    """Have XNNPACK's backend leave out passes that cannot match, and torch share histories."""
    transform = XNNPACKPassManager.transform

    def chosen(self: XNNPACKPassManager) -> ExportedProgram:
        nodes = list(self.exported_program.graph.nodes)
        self.passes = [kind for kind in self.passes if not is_idle(kind, nodes)]
        transformed: ExportedProgram = transform(self)
        return transformed

    XNNPACKPassManager.transform = chosen
    NodeSource.__deepcopy__ = lambda self, _memo: self  # type: ignore[attr-defined]  # it has none
    try:
        yield
    finally:
        XNNPACKPassManager.transform = transform
        del NodeSource.__deepcopy__  # type: ignore[attr-defined]  # as above


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
