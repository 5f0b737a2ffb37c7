"""Lowering without work that changes nothing; the program is the same, byte for byte.

Each pass of ExecuTorch takes the whole graph apart and traces it anew, whether it changes anything
or not, and in a rewritten encoder most change nothing. Of the three decompositions, the first makes
the program functional, which the second does too, and the third is for operators that the second
was to keep and that the partitioner then refused. Each node's history, which grows with every pass
and is never changed, is copied whenever a node is made from another. And a tenth of the time goes
into looking for garbage, of which there is little.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from operator import attrgetter
from typing import TYPE_CHECKING

from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
    ConvertToUpsampleBilinear2d,
)
from executorch.exir.delegate import executorch_call_delegate
from executorch.exir.dialects._ops import ops
from executorch.exir.dialects.edge._ops import EdgeOpOverload
from executorch.exir.pass_base import ExportPass, NodeMetadata, ProxyValue
from torch._guards import detect_fake_mode
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.passes.infra.pass_base import PassResult
from torch.fx.traceback import NodeSource
from torch.utils._pytree import tree_map_only

from exportgate.garbage import uncollected

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    Table = Mapping[object, Callable[..., object]]
    Call = Callable[[ExportPass, GraphModule], PassResult]
    State = list[tuple[object, ...]]

_HOOKS = [
    name
    for name, _ in inspect.getmembers(ExportPass, callable)
    if not name.startswith("__") and name not in ("call", "call_operator")
]
"""What a pass may override besides the two that are looked at."""

PATTERNS: dict[type[ExportPass], EdgeOpOverload] = {
    ConvertToSDPAPass: ops.edge.aten.logical_not.default,
    ConvertToUpsampleBilinear2d: ops.edge.aten.upsample_bilinear2d.vec,
}
"""Passes that look for patterns, which they lower first: an operator that each pattern has."""


@contextlib.contextmanager
def idle_passes_skipped() -> Iterator[None]:
    """Leave out passes and decompositions that change nothing, share histories, keep garbage."""
    trace, decompose = ExportPass.call, ExportedProgram.run_decompositions
    traced: State = []
    decomposed: tuple[ExportedProgram, Collection[object]] | None = None

    def trace_if_needed(self: ExportPass, module: GraphModule) -> PassResult:
        nonlocal traced
        if is_idle(self, module, traced):
            return PassResult(module, modified=False)
        result: PassResult = trace(self, module)
        traced = state_of(result.graph_module)
        return result

    def decompose_once(self: ExportedProgram, table: Table) -> ExportedProgram:
        nonlocal decomposed
        if not table:
            return self  # The decomposition that follows makes it functional.
        if (
            decomposed is None
            or self is not decomposed[0]
            or decomposes(self, table.keys() - decomposed[1])
        ):
            decomposed = decompose(self, table), table.keys()
        return decomposed[0]

    with contextlib.ExitStack() as changes:
        changes.enter_context(uncollected())
        changes.enter_context(_instead(ExportPass, "call", trace_if_needed))
        changes.enter_context(_instead(ExportedProgram, "run_decompositions", decompose_once))
        changes.enter_context(_instead(NodeSource, "__deepcopy__", lambda self, _memo: self))
        for kind, operator in PATTERNS.items():
            changes.enter_context(_instead(kind, "call", _only_with(operator, kind.call)))
        yield


def _only_with(operator: EdgeOpOverload, call: Call) -> Call:
    """Return a pass's ``call``, left out for graphs without an operator."""

    def called(self: ExportPass, module: GraphModule) -> PassResult:
        if any(node.target == operator for node in module.graph.nodes):
            return call(self, module)
        return PassResult(module, modified=False)

    return called


def decomposes(program: ExportedProgram, operators: Collection[object]) -> bool:
    """Tell whether a program has one of these operators, in its graph or one inside it."""
    return any(
        node.target in operators
        for module in program.graph_module.modules()
        if isinstance(module, GraphModule)
        for node in module.graph.nodes
    )


def is_idle(found: ExportPass, module: GraphModule, traced: State) -> bool:
    """Tell whether a pass is about to trace a graph that would come out as it goes in.

    A pass that has a ``call`` of its own has changed the graph by now, or found nothing to change,
    and wants what torch knows of each value to be calculated again; one that has none exchanges
    operators while they are traced.

    Args:
        found: The pass.
        module: The graph.
        traced: State of the graph that was traced last.
    """
    kind = type(found)
    if any(getattr(kind, name) is not getattr(ExportPass, name) for name in _HOOKS):
        return False
    exchanges = kind.call_operator is not ExportPass.call_operator
    if exchanges and not _keeps_operators(found, module):
        return False
    only_exchanges = exchanges and kind.call is ExportPass.call
    return only_exchanges or _alike(state_of(module), traced)


def state_of(module: GraphModule) -> State:
    """Return all of a graph that a trace of it depends on."""
    return [
        (node, node.target, node.args, node.kwargs, node.meta.get("val"))
        for node in module.graph.nodes
    ]


def _keeps_operators(found: ExportPass, module: GraphModule) -> bool:
    """Ask a pass what it would do with each operator of a graph."""
    asked = copy.copy(found)
    nodes = [node for node in module.graph.nodes if node.op == "call_function"]
    mode = detect_fake_mode([node.meta["val"] for node in nodes]) or contextlib.nullcontext()
    with mode:
        return all(_keeps(asked, node, module) for node in nodes)


def _keeps(found: ExportPass, node: Node, module: GraphModule) -> bool:
    operator = node.target
    if not isinstance(operator, OpOverload | EdgeOpOverload):
        # One of a higher order may have a graph inside it.
        return operator is executorch_call_delegate or not isinstance(operator, HigherOrderOperator)
    args, kwargs = tree_map_only(
        Node, lambda read: _value(read, module), (node.args, {**node.kwargs})
    )
    metadata, kept = NodeMetadata(node.meta), ProxyValue(node.meta["val"], node)
    calls: list[tuple[object, ...]] = []

    def keep(_: ExportPass, *call: object) -> ProxyValue:
        calls.append(call)
        return kept

    with _instead(ExportPass, "call_operator", keep):
        result = found.call_operator(operator, args, kwargs, metadata)
    return (
        result is kept
        and _alike(calls, [(operator, args, kwargs, metadata)])
        and _alike(metadata.data, node.meta)
    )


def _value(node: Node, module: GraphModule) -> object:
    """Return what a pass is given for a node."""
    if node.op == "get_attr":
        return attrgetter(str(node.target))(module)
    return ProxyValue(node.meta["val"], node)


def _alike(one: object, other: object) -> bool:
    """Tell whether two values are one, or containers of such."""
    if isinstance(one, dict) and isinstance(other, dict):
        return _alike([*one.items()], [*other.items()])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one is other or (isinstance(one, str) and one == other)


@contextlib.contextmanager
def _instead(owner: type, name: str, function: Callable[..., object]) -> Iterator[None]:
    """Put a function in the place of a class's own or inherited one."""
    own = vars(owner).get(name)
    setattr(owner, name, function)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
