"""Lowering leaves out passes that cannot find anything, and no other; programs stay the same."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from exporters.to_pte import encoder_to_pte
from tests.nemo_encoders import random_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

pytestmark = pytest.mark.slow


class Joined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x * 2.0], dim=1)


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.max(x, dim=2, keepdim=True).values + 1.0


class Larger(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=self.mask)


class Normalized(nn.Module):
    def __init__(self, before: nn.Module) -> None:
        super().__init__()
        self.before, self.norm = before, nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.before(x))


IMAGE, SIGNAL, HEADS = (1, 4, 6, 6), (1, 4, 6), (1, 2, 6, 8)
NEEDED = {
    "Conv1dUnsqueezePass": (nn.Conv1d(4, 4, 3), SIGNAL),
    "ConvertToUpsampleBilinear2d": (Larger(), IMAGE),
    "DecomposeBatchNorm": (Normalized(nn.ReLU()), IMAGE),
    "DecomposeConcatenate": (Joined(), IMAGE),
    "FuseBatchNormPass": (Normalized(nn.Conv2d(4, 4, 3)), IMAGE),
    "RemoveGetItemPass": (Largest(), IMAGE),
}
# What these look for does not reach the backend any more, or is not there.
NOT_MET = {
    "PropagateCustomMetaPass": (nn.Linear(4, 4), (1, 4)),
    "ConvertToSDPAPass": (Attending(), HEADS),
    "PReLUReshapePass": (nn.Sequential(nn.Conv2d(4, 4, 3), nn.PReLU(4)), IMAGE),
}


@contextlib.contextmanager
def left_out(names: set[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Note the names of the passes that are left out."""
    from exporters import lean_lowering

    is_idle = lean_lowering.is_idle

    def noted(kind: type, nodes: list[torch.fx.Node]) -> bool:
        idle = is_idle(kind, nodes)
        if idle:
            names.add(kind.__name__)
        return idle

    with monkeypatch.context() as patch:
        patch.setattr(lean_lowering, "is_idle", noted)
        yield


def lowered(module: nn.Module, shape: tuple[int, ...], *, every_pass: bool) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    from exporters.lean_lowering import lean_lowering

    torch.manual_seed(0)
    program = torch.export.export(module.eval(), (torch.randn(shape),))
    with contextlib.nullcontext() if every_pass else lean_lowering():
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(edge.to_executorch().buffer)


@pytest.mark.parametrize("kind", NEEDED | NOT_MET)
def test_a_program_is_the_same_and_a_pass_that_finds_something_runs(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, shape = (NEEDED | NOT_MET)[kind]
    names: set[str] = set()
    with left_out(names, monkeypatch):
        ours = lowered(module, shape, every_pass=False)
    assert (kind in names) == (kind in NOT_MET)
    assert names, "nothing was left out"
    assert ours == lowered(module, shape, every_pass=True)


@pytest.mark.parametrize(("refused", "decompositions"), [(False, 2), (True, 3)])
def test_an_operator_that_the_partitioner_refuses_is_decomposed_in_the_end(
    refused: bool, decompositions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kept for XNNPACK at first, which takes no pooling that leaves numbers out.
    module = nn.Sequential(nn.Conv2d(4, 4, 2), nn.MaxPool2d(2, stride=3 if refused else 2))
    decompose, tables = torch.export.ExportedProgram.run_decompositions, []

    def counted(program: torch.export.ExportedProgram, table: object) -> object:
        tables.append(table)
        return decompose(program, table)

    with monkeypatch.context() as patch:
        patch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
        ours = lowered(module, IMAGE, every_pass=False)
    assert len(tables) == decompositions
    assert ours == lowered(module, IMAGE, every_pass=True)


def test_a_graph_that_has_a_pattern_has_the_operator_that_is_looked_for() -> None:
    from executorch.backends.xnnpack._passes.convert_to_sdpa import ConvertToSDPAPass
    from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import (
        ConvertToUpsampleBilinear2d,
    )
    from executorch.backends.xnnpack.partition.graphs import bilinear_2d, sdpa

    from exporters.lean_lowering import is_idle

    for kind, patterns in (
        (ConvertToSDPAPass, list(sdpa.get_graphs())),
        (ConvertToUpsampleBilinear2d, list(bilinear_2d.get_graphs_dict())),
    ):
        assert patterns
        for pattern in patterns:
            assert not is_idle(kind, list(pattern.graph.nodes))
        assert is_idle(kind, [])


def test_metadata_of_ones_own_is_passed_on() -> None:
    from executorch.backends.xnnpack._passes.propagate_custom_meta_pass import (
        PropagateCustomMetaPass,
    )

    from exporters.lean_lowering import is_idle

    graph = torch.fx.symbolic_trace(nn.Linear(2, 2)).graph
    nodes = list(graph.nodes)
    assert is_idle(PropagateCustomMetaPass, nodes)
    nodes[0].meta["custom"] = {"stage": 1}
    assert not is_idle(PropagateCustomMetaPass, nodes)


def test_an_encoder_is_lowered_to_the_same_file_without_nine_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporters import lean_lowering

    small = random_checkpoint(tmp_path)
    names: set[str] = set()

    def export() -> bytes:
        program = encoder_to_pte(small, precision="fp32", calibration=None, max_trace_len=35)
        return program.payload

    with left_out(names, monkeypatch):
        ours = export()
    assert names == (NEEDED | NOT_MET).keys()
    monkeypatch.setattr(lean_lowering, "lean_lowering", contextlib.nullcontext)
    assert ours == export()
