"""Instructions are counted where an emulator is, and nothing is claimed where none is."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from onnx import TensorProto, helper, numpy_helper

from harness.measure.instructions import X86_64, NotInstalledError, build, count, missing

if TYPE_CHECKING:
    from pathlib import Path

FEEDS = {"x": np.ones((16, 128), np.float32)}
emulated = pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or shutil.which("cc") is None,
    reason="qemu-user and a C compiler are optional: make setup-exact",
)


def products(path: Path, number: int) -> Path:
    """Write a file of some matrix products in a row."""
    weight = np.eye(128, dtype=np.float32)
    nodes = [
        helper.make_node("MatMul", [f"x{i}" if i else "x", f"w{i}"], [f"x{i + 1}"])
        for i in range(number)
    ]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, 128])],
        [helper.make_tensor_value_info(f"x{number}", TensorProto.FLOAT, [16, 128])],
        [numpy_helper.from_array(weight, f"w{i}") for i in range(number)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path


def test_an_absent_emulator_says_how_to_install_it(tmp_path: Path) -> None:
    guest = replace(X86_64, emulator="qemu-of-nobody")
    with pytest.raises(NotInstalledError, match=r"qemu-of-nobody is not installed.*setup-exact"):
        count(products(tmp_path / "a.onnx", 1), FEEDS, guest, plugin=tmp_path)


def test_an_absent_plugin_says_how_to_build_it(tmp_path: Path) -> None:
    present = replace(X86_64, emulator=sys.executable)
    assert re.search(
        r"libcount\.so is not built.*setup-exact", missing(present, tmp_path / "libcount.so")
    )
    (tmp_path / "libcount.so").touch()
    assert missing(present, tmp_path / "libcount.so") == ""


def test_what_no_guest_runs_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(NotInstalledError, match=r"no emulated guest runs \.ort"):
        count(tmp_path / "a.ort", FEEDS)


@emulated
@pytest.mark.slow
@pytest.mark.long
def test_twice_the_work_is_twice_the_instructions(tmp_path: Path) -> None:
    plugin = build(tmp_path / "libcount.so")
    one, again, two = (
        count(products(tmp_path / f"{n}.onnx", n), FEEDS, plugin=plugin).instructions
        for n in (8, 8, 16)
    )
    assert again == pytest.approx(one, rel=0.01)
    assert two / one == pytest.approx(2.0, rel=0.15)


def a_program(path: Path, number: int) -> Path:
    """Write a program of some matrix products in a row, all of them in XNNPACK."""
    layers = torch.nn.Sequential(*(torch.nn.Linear(128, 128) for _ in range(number)))
    exported = torch.export.export(layers.eval(), (torch.from_numpy(FEEDS["x"]),), strict=False)
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)
    return path


@emulated
@pytest.mark.slow
@pytest.mark.long
def test_a_program_takes_the_instructions_of_its_products(tmp_path: Path) -> None:
    plugin = build(tmp_path / "libcount.so")
    found = count(a_program(tmp_path / "a.pte", 16), FEEDS, plugin=plugin)
    # AVX2, the guest's widest, does eight products with an instruction; each needs loads beside it.
    least = 16 * 16 * 128 * 128 / 8
    assert least < found.instructions < 4 * least
    assert found.spread < 0.01
