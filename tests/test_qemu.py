"""What emulated devices change in a run, without an emulator: ``tests/emulated`` has one."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporters.variants import variant
from exportgate.data.manifest import read_manifest
from harness.devices.device import Need, swipes_max
from harness.devices.host import HOST
from harness.devices.qemu import build
from harness.devices.qemu.arm64 import arm64
from harness.devices.qemu.build import SetupError
from harness.devices.qemu.cores import CORES, core
from harness.devices.qemu.shim import pool_source, provided, stub_source
from harness.devices.qemu.x86 import ProcessorError, x86
from harness.gate.gates import GateError, read_gates
from harness.gate.plugin import request as gate_request
from harness.measure.instructions import Count
from harness.run.request import Request
from harness.run.swipes import Swipes
from tests.devices.far import FarDevice

if TYPE_CHECKING:
    from harness.gate.gates import GateBook

GOLDEN = Path(__file__).parents[1] / "golden"


@dataclass(frozen=True, slots=True)
class SlowDevice(FarDevice):
    swipes_max: int = 5


def request(*names: str, device: FarDevice) -> Request:
    rows = tuple(variant(name) for name in names)
    files = (GOLDEN / "golden.nemo", GOLDEN / "val.jsonl", None)
    return Request(*files, rows, None, Path("work"), 200, device=device)


def test_a_slow_device_runs_some_swipes_of_all_the_manifest() -> None:
    asked = request("step_fp32.onnx", device=SlowDevice("slow"))
    swipes, every = Swipes(asked), read_manifest(asked.manifest)
    some = swipes.all()
    assert len(some) == 5 == len(swipes.features())
    # Spread over it: a manifest may be sorted by word or by length.
    places = [swipe.line for swipe in some]
    assert places == sorted(set(places))
    assert places[-1] > len(every) * 3 // 4
    # What the manifest can show is still what is in it.
    assert swipes.facts([]).swipes == len(every)
    assert len(Swipes(replace(asked, device=HOST)).all()) == len(every)
    assert swipes_max(HOST) == 0


def test_few_swipes_are_said_with_what_they_can_show() -> None:
    asked = request("step_fp32.onnx", device=SlowDevice("slow"))
    (note,) = gate_request._device_notes(asked, asked.variants)
    assert note.startswith("slow runs 5 of 320 swipes, spread over the manifest: one word shows")
    assert note.endswith("tests at 0.001 see a loss of 100%")


def test_a_file_for_other_cores_is_left_out_and_named() -> None:
    weak = FarDevice("weak", "", (Need.FP16,))
    both = request("encoder_fp16.pte", "encoder_fp32.pte", device=weak)
    kept = gate_request._runnable(both)
    assert [row.name for row in kept] == ["encoder_fp32.pte"]
    (note,) = gate_request._device_notes(replace(both, variants=kept), both.variants)
    assert note.startswith("encoder_fp16.pte is not judged: it cannot run on weak: ")
    alone = request("encoder_fp16.pte", device=weak)
    with pytest.raises(gate_request.RequestError, match=r"^encoder_fp16.pte: cannot run on weak"):
        gate_request._runnable(alone)
    strong = request("encoder_fp16.pte", device=FarDevice("strong"))
    assert gate_request._runnable(strong) == strong.variants


def book(tmp_path: Path, devices: str) -> GateBook:
    path = tmp_path / "gates.toml"
    text = f'schema = 1\n[checkpoint]\nswipes_min = {{limit = 1, reason = "exact", {devices}}}\n'
    path.write_text(text, encoding="utf-8")
    return read_gates([path], ["checkpoint"])


@pytest.mark.parametrize(
    ("devices", "kept"),
    [
        ("devices = []", ["host", "qemu-arm64:i8mm", "qemu-x86:avx2"]),
        ('devices = ["host"]', ["host"]),
        ('devices = ["!qemu-x86"]', ["host", "qemu-arm64:i8mm"]),
        ('devices = ["!qemu-x86", "!qemu-arm64"]', ["host"]),
    ],
)
def test_a_gate_names_its_devices_or_those_of_others(
    devices: str, kept: list[str], tmp_path: Path
) -> None:
    found = book(tmp_path, devices)
    names = ["host", "qemu-arm64:i8mm", "qemu-x86:avx2"]
    assert [name for name in names if found.on(name).gates] == kept


@pytest.mark.parametrize(
    "devices", ['["host", "!qemu-x86"]', '["!phone"]', '"!host"', '["!!host"]']
)
def test_devices_are_known_and_of_one_kind(devices: str, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"devices are a list of host, .* or all of it behind '!'"):
        book(tmp_path, f"devices = {devices}")


def test_a_missing_tool_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, make in (("arm64:cortex-a53", arm64), ("x86:avx2", x86)):
        with pytest.raises((SetupError, ProcessorError), match=r"run: make setup-arm64$") as caught:
            make(name.partition(":")[2])
        assert str(caught.value).startswith(f"--device qemu-{name.partition(':')[0]}: "[:18])
        assert "\n" not in str(caught.value)
    with pytest.raises(ProcessorError, match="known: avx2, sse42"):
        x86("i386")


def test_without_a_build_there_is_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.folder() == tmp_path / "exportgate" / "arm64"
    assert build.missing() == "the arm64 runtimes are not installed; run: make setup-arm64"
    build.folder().mkdir(parents=True)
    (build.folder() / "built.json").write_text('{"digest": "of yesterday"}', encoding="utf-8")
    assert "from other sources or versions; run: make setup-arm64" in build.missing()


def test_a_core_says_of_itself_what_a_kernel_would() -> None:
    text = core("cortex-a76").cpuinfo()
    assert re.search(r"^CPU part\t: 0xd0b$", text, re.MULTILINE)
    assert "asimddp" in text
    assert {row.name: row.fp16 for row in CORES} == {
        "cortex-a53": False, "cortex-a76": True, "i8mm": True,
    }  # fmt: skip


def test_products_are_told_by_their_instructions() -> None:
    found = Count("g", (1,), {"dot": 2, "matrix": 3, "fmla32": 1000}, ("matrix",))
    assert found.integer_kernel_share == pytest.approx(96 / 128)
    assert replace(found, integers=("matrix", "dot")).integer_kernel_share == 1
    # Weights that were unpacked to floating point.
    assert replace(found, classes={"fmla32": 1000}).integer_kernel_share == 0


def test_the_stand_in_pool_loops_as_the_names_say() -> None:
    name = "pthreadpool_parallelize_2d_tile_1d_dynamic_with_uarch_with_thread"
    assert provided(name)
    assert not provided("pthreadpool_something_new")
    text = pool_source([name])
    assert (
        f"void {name}(void *given, void (*task)(void *, uint32_t, size_t, size_t, size_t, size_t), "
        "void *context, uint32_t uarch, uint32_t last_uarch, size_t range0, size_t range1, "
        "size_t tile1, uint32_t flags)"
    ) in text
    assert "i1 += tile1" in text
    assert "task(context, uarch, 0, i0, i1, (tile1 < range1 - i1 ? tile1 : range1 - i1))" in text


def test_a_stand_in_that_is_called_gives_its_name() -> None:
    text = stub_source(["THPModule_new"], ["_ZTIN3c105ErrorE"])
    assert 'b exportgate_missing\n1:  .asciz "THPModule_new"' in text
    assert '.asciz "_ZTIN3c105ErrorE"' not in text
