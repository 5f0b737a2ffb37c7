"""The length of a trace, which a program leaves open: stated to torch, checked after each stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.export import Dim

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class LoweringError(ExportGateError, RuntimeError):
    """A program cannot be made as asked, or came out of lowering as something else."""


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The encoder's dynamic axis.

    Attributes:
        bound: Largest T.
        factor: Subsampling factor.
    """

    bound: int
    factor: int

    def __post_init__(self) -> None:
        # torch states a range that begins where T' is 2; it must hold more than one length.
        least = 2 * self.factor + 1
        if self.bound < least:
            msg = (
                f"max_trace_len is {self.bound}, but should be at least {least} for a "
                f"model that subsamples by {self.factor}"
            )
            raise LoweringError(msg)

    @property
    def encoded_bound(self) -> int:
        """Largest T'."""
        return -(-self.bound // self.factor)

    def dynamic_shapes(self) -> tuple[dict[int, Any], None]:
        """Return what ``torch.export`` is to know of the two inputs.

        T is stated as ``factor * T' - rest``, which it is for some lengths only. The tracer carries
        T' through the whole body, and as a symbol of its own it halves the time of lowering; the
        program is the same, but for debug handles, as when T is the symbol and T' ceil(T / factor).
        No operator computes with T, which ``check`` sees to, so that any T runs.
        """
        encoded = Dim("encoded", min=1, max=self.encoded_bound)
        frames = self.factor * encoded
        rest = self.factor * self.encoded_bound - self.bound
        return {2: frames - rest if rest else frames}, None

    def check(self, program: ExportedProgram, stage: str) -> None:
        """Check that a stage neither fixed T nor narrowed its range nor computes with it.

        torch treats sizes of 0 and 1 apart, so the range that it states begins where T' is 2;
        the operators themselves take any T from 1 on, which the tests show on the runtime.
        """
        nodes = program.graph_module.graph.find_nodes(op="placeholder", target="features_bft")
        shape: list[object] = [size for node in nodes for size in node.meta["val"].shape]
        free = len(shape) == 3 and isinstance(shape[2], torch.SymInt)
        ranges = {
            str(symbol): (int(found.lower), int(found.upper))
            for symbol, found in program.range_constraints.items()
            if symbol.is_Symbol
        }
        if not free or list(ranges.values()) != [(2, self.encoded_bound)]:
            msg = (
                f"after {stage} the time axis is {shape} with the ranges {ranges}, but T' should "
                f"be free up to {self.encoded_bound}; something in the graph fixed it or guards it"
            )
            raise LoweringError(msg)
        computed = [
            str(node)
            for node in program.graph_module.graph.nodes
            if isinstance(node.meta.get("val"), torch.SymInt)
            and node.target is not torch.ops.aten.sym_size.int
        ]
        if computed:
            msg = (
                f"after {stage} the graph computes lengths in {', '.join(computed)}, which holds "
                "for some T only; take them from the size of a tensor"
            )
            raise LoweringError(msg)
