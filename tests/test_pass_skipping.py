"""Lowering leaves out what changes nothing, and nothing else; programs stay the same."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.fx.traceback import NodeSource

from exporters.xnnpack import pass_skipping as switch
from exporters.xnnpack.pass_skipping import PROVEN_FOR, SWITCH, SwitchError, pass_skipping
from exporters.xnnpack.to_pte import encoder_to_pte
from tests.nemo_encoders import random_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from exporters.recipes import Quantizer
    from exporters.variants import Precision

pytestmark = pytest.mark.slow

RELU = torch.ops.aten.relu.default


class Joined(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x * float(part) for part in range(6)], dim=1)


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


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the passes that trace a graph while it is lowered."""
    from exporters.xnnpack import idle_passes

    names: set[str] = set()
    is_idle = idle_passes.is_idle

    def noted(found: Any, module: torch.fx.GraphModule, last: Any) -> bool:
        idle = is_idle(found, module, last)
        if not idle:
            names.add(type(found).__name__)
        return idle

    monkeypatch.setattr(idle_passes, "is_idle", noted)
    return names


def lowered(module: nn.Module, shape: tuple[int, ...], *, every_pass: bool) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    torch.manual_seed(0)
    program = torch.export.export(module.eval(), (torch.randn(shape),))
    with pass_skipping(wanted=not every_pass):
        edge = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return bytes(edge.to_executorch().buffer)


@pytest.mark.parametrize("kind", NEEDED | NOT_MET)
def test_a_program_is_the_same_and_a_pass_that_finds_something_runs(
    kind: str, traced: set[str]
) -> None:
    module, shape = (NEEDED | NOT_MET)[kind]
    ours = lowered(module, shape, every_pass=False)
    assert (kind in traced) == (kind in NEEDED)
    assert ours == lowered(module, shape, every_pass=True)


@pytest.mark.parametrize(("refused", "decompositions"), [(False, 1), (True, 2)])
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

    from exporters.xnnpack.idle_passes import PATTERNS

    found = {
        ConvertToSDPAPass: list(sdpa.get_graphs()),
        ConvertToUpsampleBilinear2d: list(bilinear_2d.get_graphs_dict()),
    }
    assert found.keys() == PATTERNS.keys()
    for kind, patterns in found.items():
        assert patterns
        for pattern in patterns:
            assert PATTERNS[kind] in [node.target for node in pattern.graph.nodes]


def test_an_encoder_is_lowered_to_the_same_file_with_seven_traces(
    tmp_path: Path, traced: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = random_checkpoint(tmp_path)

    def export() -> bytes:
        return encoder_to_pte(small, precision="fp32", calibration=None, max_trace_len=35).payload

    ours = export()
    # The first and the last want metadata of a graph that was cut; the others change something.
    assert traced == {
        "ConvertToLinearPass",
        "ScalarToTensorPass",
        "OpReplacePass",
        "MemoryFormatOpsPass",
        "FuseActivationPass",
        "ChannelsLastTaggedReshapePass",
        "ExportPass",
    }
    traced.clear()
    monkeypatch.setenv(SWITCH, "0")
    assert ours == export()
    assert traced == set()  # nobody was asked


@pytest.mark.long
@pytest.mark.parametrize(("precision", "quantizer"), [("fp32", "eager"), ("int8", "pt2e")])
def test_golden_files_are_the_same_with_every_pass(
    precision: Precision, quantizer: Quantizer, golden: Path
) -> None:
    from exporters.nemo.checkpoint import load_checkpoint
    from exporters.quantize.calibration import calibration_of

    checkpoint = load_checkpoint(golden / "golden.nemo")
    swipes = calibration_of(golden / "calib.jsonl", swipes=8, max_trace_len=200, feature_dim=37)
    files = {
        encoder_to_pte(
            checkpoint,
            precision=precision,
            calibration=swipes.features,
            max_trace_len=200,
            quantizer=quantizer,
            skip_passes=skip_passes,
        ).payload
        for skip_passes in (True, False)
    }
    assert len(files) == 1


def test_the_switch_is_an_argument_or_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with pass_skipping() as skips:
        assert skips
    with pass_skipping(wanted=False) as skips:
        assert not skips
    monkeypatch.setenv(SWITCH, "0")
    with pass_skipping() as skips:
        assert not skips
    monkeypatch.setenv(SWITCH, "off")
    with pytest.raises(SwitchError, match="EXPORTGATE_PASS_SKIPPING is 'off', but should be 0"):
        pass_skipping().__enter__()


@pytest.mark.parametrize("package", PROVEN_FOR)
def test_it_steps_aside_for_another_version_and_says_so_once(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {**PROVEN_FOR, package: "9.9.0+cpu"}
    monkeypatch.setattr(switch, "version", found.__getitem__)
    for _ in range(2):
        with pass_skipping() as skips:
            assert not skips
    said = capsys.readouterr().err
    assert said.count(f"{package} 9.9.0 instead of {PROVEN_FOR[package]}") == 1


Call = Callable[..., Any]


def keeps(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return call(op, args, dict(kwargs), meta)


def exchanges_the_operator(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return call(torch.ops.aten.tanh.default if op == RELU else op, args, kwargs, meta)


def exchanges_an_argument(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return call(op, args if op == RELU else (args[0], 2.0), kwargs, meta)


def adds_an_argument(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return call(op, args if op == RELU else (*args, 2.0), kwargs, meta)


def adds_an_option(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return call(op, args, kwargs if op == RELU else {"alpha": 2.0}, meta)


def exchanges_metadata(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return call(op, args, kwargs, meta.copy())


def changes_metadata(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    meta["stage"] = 1
    return call(op, args, kwargs, meta)


def repeats(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    call(op, args, kwargs, meta)
    return call(op, args, kwargs, meta)


def leaves_out(call: Call, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
    return args[0] if op == RELU else call(op, args, kwargs, meta)


class Rectified(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) + 1.0


def exported(module: nn.Module) -> torch.fx.GraphModule:
    return torch.export.export(module, (torch.ones(2, 3),)).graph_module


def exchanging(exchange: Call, *overridden: str) -> Any:
    """Return a pass that exchanges operators, and may override more."""
    from executorch.exir.pass_base import ExportPass

    class Exchanging(ExportPass):
        def call_operator(self, op: Any, args: Any, kwargs: Any, meta: Any) -> Any:
            return exchange(super().call_operator, op, args, kwargs, meta)

    for name in overridden:
        setattr(Exchanging, name, functools.partialmethod(getattr(ExportPass, name)))
    return Exchanging()


def test_a_pass_that_leaves_each_operator_as_it_is_is_idle() -> None:
    from exporters.xnnpack.idle_passes import is_idle

    assert is_idle(exchanging(keeps), exported(Rectified()), [])


@pytest.mark.parametrize(
    "exchange",
    [
        *(exchanges_the_operator, exchanges_an_argument, adds_an_argument, adds_an_option),
        *(exchanges_metadata, changes_metadata, repeats, leaves_out),
    ],
)
def test_a_pass_that_does_anything_else_is_not(exchange: Call) -> None:
    from exporters.xnnpack.idle_passes import is_idle

    assert not is_idle(exchanging(exchange), exported(Rectified()), [])


@pytest.mark.parametrize("hook", ["placeholder", "call_getitem", "output"])
def test_a_pass_that_has_more_to_do_than_to_look_at_operators_is_not(hook: str) -> None:
    from exporters.xnnpack.idle_passes import is_idle

    assert not is_idle(exchanging(keeps, hook), exported(Rectified()), [])


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, torch.relu, torch.neg, (x,))


def test_a_pass_is_not_asked_about_a_graph_with_graphs_inside() -> None:
    from exporters.xnnpack.idle_passes import is_idle

    assert not is_idle(exchanging(keeps), exported(Branching()), [])


def test_a_pass_of_its_own_call_is_idle_while_the_graph_is_as_it_was_traced() -> None:
    from exporters.xnnpack.idle_passes import is_idle, state_of

    found, module = exchanging(keeps, "call"), exported(Rectified())
    assert not is_idle(found, module, [])
    traced = state_of(module)
    assert is_idle(found, module, traced)
    add = module.graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)[0]
    add.args = (add.args[0], 2.0)
    assert not is_idle(found, module, traced)
    traced = state_of(module)
    add.meta["val"] = add.meta["val"].clone()
    assert not is_idle(found, module, traced)
    traced = state_of(module)
    add.replace_all_uses_with(add.args[0])
    module.graph.erase_node(add)
    assert not is_idle(found, module, traced)


def test_torch_and_executorch_are_left_as_they_were() -> None:
    from executorch.exir.pass_base import ExportPass

    from exporters.xnnpack.idle_passes import PATTERNS

    def state() -> list[dict[str, object]]:
        kinds = (ExportPass, torch.export.ExportedProgram, NodeSource, *PATTERNS)
        return [{**vars(kind)} for kind in kinds]

    before = state()
    assert gc.isenabled()
    with contextlib.suppress(KeyboardInterrupt), pass_skipping():
        assert not gc.isenabled()
        assert all(now != then for now, then in zip(state(), before, strict=True))
        raise KeyboardInterrupt
    assert state() == before
    assert gc.isenabled()
