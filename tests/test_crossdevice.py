"""Files on several devices beside each other: what is the same, what differs, what is missing."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from exporters.variants import TARGETS, VARIANTS
from exportgate import resources
from harness.crossdevice import gate_all, running
from harness.crossdevice.agreement import Agreement, Figures, Status, judge, least_db
from harness.crossdevice.command import main
from harness.crossdevice.comparing import DevicesError, fewer_swipes
from harness.crossdevice.outcome import Outcome, conclude
from harness.crossdevice.plan import SHIPS_TO, How, Stage, plan, uncovered
from harness.crossdevice.running import Places, run_all
from harness.crossdevice.tables import markdown, passed, read, write
from harness.devices.device import Need, not_for
from harness.devices.qemu.arm64 import Arm64
from harness.devices.qemu.cores import core
from harness.devices.qemu.x86 import PROCESSORS, X86
from harness.devices.registry import DEVICES, parts_of
from harness.devices.runtimes.pins import pins
from tests.devices.processes import alive, eventually

if TYPE_CHECKING:
    from pathlib import Path

INT8, FP32, FP16 = "encoder_int8.onnx", "encoder_fp32.onnx", "encoder_fp16.onnx"
EQUAL = Figures(24, 0.0, 200.0, 45.0, 700, 0, (), (), 0.0)
HOST_AND_ABSENT = ("host", "absent")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("spoilt", "scaled", "mute"):
        monkeypatch.setitem(DEVICES, kind, f"tests.devices.spoilt:{kind}")
    for kind in ("far",):
        monkeypatch.setitem(DEVICES, kind, f"tests.devices.far:{kind}")


def test_integers_may_differ_at_edges_but_not_as_much_as_they_round() -> None:
    # What other versions of ONNX Runtime and WebAssembly were measured to do: 62 dB and more.
    assert judge(INT8, "there", "host", replace(EQUAL, sqnr_db=61.7)).status is Status.PASS
    found = judge(INT8, "there", "host", replace(EQUAL, sqnr_db=50.9))
    assert found.status is Status.FAIL
    assert found.detail == "50.9 dB to host, but should be ≥ 51.0 dB"


@pytest.mark.parametrize(("file", "kept", "broken"), [(FP32, 94.1, 93.9), (FP16, 34.1, 33.9)])
def test_floating_point_keeps_its_format(file: str, kept: float, broken: float) -> None:
    assert judge(file, "there", "host", replace(EQUAL, sqnr_db=kept)).status is Status.PASS
    assert judge(file, "there", "host", replace(EQUAL, sqnr_db=broken)).status is Status.FAIL


def test_one_word_that_differs_fails_and_is_named() -> None:
    found = judge(INT8, "there", "host", replace(EQUAL, words_differing=("swipe 3: 'cat'",)))
    assert found.status is Status.FAIL
    assert found.detail == "1 word differs: swipe 3: 'cat'"
    near = judge(INT8, "there", "host", replace(EQUAL, near_ties=("swipe 3: 'cat'",)))
    assert near.status is Status.PASS


def test_nan_passes_nothing() -> None:
    for figures in (replace(EQUAL, sqnr_db=math.nan), replace(EQUAL, own_db=math.nan)):
        assert judge(INT8, "there", "host", figures).status is Status.FAIL
    assert least_db("int4", 24.0) == 30.0


def test_nothing_compared_is_no_pass() -> None:
    assert not passed([])


def test_a_part_of_the_swipes_is_spread_over_all(tmp_path: Path) -> None:
    manifest = tmp_path / "some.jsonl"
    manifest.write_text("".join(f"{number}\n" for number in range(10)), encoding="utf-8")
    part = fewer_swipes(manifest, 5, tmp_path / "out")
    assert part.read_text(encoding="utf-8").split() == ["0", "2", "4", "6", "8"]
    manifest.write_text("\n", encoding="utf-8")
    with pytest.raises(DevicesError, match="expected at least one"):
        fewer_swipes(manifest, 5, tmp_path / "out")


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ("host", "expected at least two"),
        ("host,host", "none of them twice"),
        ("host,far,host", "none of them twice"),
        ("host,nowhere", "unknown device 'nowhere'"),
        ("host,onnxruntime==0.1", "onnxruntime==0.1: no such version is pinned"),
    ],
)
def test_devices_that_cannot_be_compared(devices: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        main(["--devices", devices, "--workdir", str(tmp_path), "--artifacts", str(tmp_path)])


def test_a_file_that_the_target_does_not_ship(tmp_path: Path) -> None:
    words = ["--devices", "host,far", "--target", "web", "--variant", "encoder_int4.pte"]
    with pytest.raises(DevicesError, match=r"target web has no encoder_int4.pte; it has encoder_"):
        main([*words, "--workdir", str(tmp_path)])


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """Run two files of golden on the host and on four other devices."""
    out = tmp_path_factory.mktemp("devices")
    with pytest.MonkeyPatch.context() as patch:
        for kind, module in (
            ("far", "far"),
            *((k, "spoilt") for k in ("spoilt", "scaled", "mute")),
        ):
            patch.setitem(DEVICES, kind, f"tests.devices.{module}:{kind}")
        status = main(
            [
                "--devices", "host,far,spoilt,scaled,mute", "--target", "server",
                "--variant", INT8, "--variant", "step_fp32.onnx", "--max-swipes", "24",
                "--workdir", str(resources.build_folder()), "--out", str(out),
            ]
        )  # fmt: skip
    assert status == 1
    data = json.loads((out / "devices.json").read_text(encoding="utf-8"))
    assert data["verdict"] == "FAIL"
    assert "| encoder_int8.onnx | mute | no |" in (out / "devices.md").read_text(encoding="utf-8")
    return {(row["device"], row["file"]): row for row in data["agreements"]}


Rows = dict[tuple[str, str], dict[str, Any]]


@pytest.mark.slow
def test_the_same_computation_elsewhere_passes(compared: Rows) -> None:
    for file in (INT8, "step_fp32.onnx"):
        row = compared["far", file]
        assert row["status"] == "PASS"
        assert row["figures"]["max_difference"] == 0.0
        assert row["figures"]["swipes"] == 24
        assert row["figures"]["decisions"] > 100


@pytest.mark.slow
def test_a_device_that_changes_words_is_red_and_they_are_named(compared: Rows) -> None:
    row = compared["spoilt", INT8]
    assert row["status"] == "FAIL"
    assert len(row["figures"]["words_differing"]) > 3
    assert row["figures"]["decisions_differing"] > 10
    assert "words differ: swipe " in row["detail"]
    assert compared["spoilt", "step_fp32.onnx"]["status"] == "PASS"


@pytest.mark.slow
def test_a_device_that_is_a_little_off_is_red_though_no_word_differs(compared: Rows) -> None:
    row = compared["scaled", INT8]
    assert row["status"] == "FAIL"
    assert row["figures"]["words_differing"] == []
    assert "dB to host, but should be ≥" in row["detail"]


@pytest.mark.slow
def test_a_device_that_opens_nothing_is_not_measured(compared: Rows) -> None:
    row = compared["mute", INT8]
    assert (row["status"], row["figures"]) == ("NOT_MEASURED", None)
    assert "it is mute" in row["detail"]


def test_every_file_is_run_on_what_it_ships_to() -> None:
    stages = plan()
    assert uncovered(stages) == []
    assert set(SHIPS_TO) == set(TARGETS)
    gone = tuple(stage for stage in stages if "webgpu" not in stage.devices)
    assert uncovered(gone) == [
        "encoder_fp32.onnx of web-dev on webgpu", "step_fp32.onnx of web-dev on webgpu",
        "encoder_int8_web.onnx of web on webgpu", "step_fp32.onnx of web on webgpu",
    ]  # fmt: skip
    assert {each.name for each in pins()} < {name for stage in stages for name in stage.devices}
    assert {parts_of(stage.devices[0])[0] for stage in stages if stage.quick} == {
        "browser", "qemu-arm64"
    }  # fmt: skip


def test_a_file_for_other_devices_is_left_out_and_named() -> None:
    """A phone without FP16, and a runtime of the other format; but not what is not installed."""
    rows = {row.name: row for row in VARIANTS}
    old = Arm64(core("cortex-a53"))
    assert not_for(old, rows["encoder_fp16.pte"]) == "the core has no FP16 arithmetic"
    assert not_for(old, rows["encoder_int8.pte"]) == ""
    oldest = X86(next(each for each in PROCESSORS if each.name == "sse42"))
    assert not_for(oldest, rows["encoder_fp16.pte"]) == "the processor cannot convert FP16"
    half = SimpleNamespace(lacks=lambda need: "no .pte" if need is Need.PTE else "")
    assert not_for(half, rows["step_fp32.pte"]) == "no .pte"
    assert not_for(half, rows["step_fp32.onnx"]) == ""
    absent = SimpleNamespace(lacks=lambda need: f"no {need}")
    assert {not_for(absent, row) for row in VARIANTS if not row.fp16} == {""}


def test_what_is_left_out_is_no_pass_alone() -> None:
    kept = judge(INT8, "there", "host", EQUAL)
    left = Agreement("step_fp32.pte", "there", "host", None, Status.LEFT_OUT, "runs ONNX only")
    assert passed([kept, left])
    assert not passed([left])
    assert not passed([kept, replace(left, device="elsewhere")])
    assert markdown([kept, left, replace(left, file="step_int8.pte")]).splitlines()[-1] == (
        "- Left out on there (runs ONNX only): step_fp32.pte, step_int8.pte"
    )


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [
        judge(INT8, "there", "host", replace(EQUAL, moved_nats=math.inf, near_ties=("a", "b"))),
        judge(FP32, "there", "host", replace(EQUAL, sqnr_db=-math.inf, time_ratio=1.5)),
        Agreement("step_fp32.pte", "there", "host", None, Status.NOT_MEASURED, "it is mute"),
    ]
    there = {"there": {"cpu": "some", "machine": "wasm32"}}
    write(tmp_path, rows, {}, there)
    assert read(tmp_path / "devices.json") == (rows, there)


def test_the_page_of_all_stages(tmp_path: Path) -> None:
    folder = tmp_path / "web"
    write(folder, [judge(FP32, "there", "host", replace(EQUAL, sqnr_db=12.0))], {}, {
        "there": {"cpu": "some", "machine": "wasm32"}
    })  # fmt: skip
    stages = [Stage("web", ("host", "there"), How.BESIDE), Stage("edge", ("<b>",), How.SUITES)]
    bad = Outcome(stages[0], Status.FAIL, "FAIL: 1 & 2", 61.0, folder)
    good = Outcome(stages[1], Status.PASS, "", 5.0, tmp_path / "edge")
    assert conclude([bad, good], tmp_path, 66.0).splitlines()[-1] == "FAIL: 1 of 2 stages, 66 s"
    page = (tmp_path / "gate-all.html").read_text(encoding="utf-8")
    assert '<a href="web/devices.md">web</a>' in page
    assert "12.0 dB to host, but should be ≥ 94.0 dB" in page
    assert "&lt;b&gt;" in page
    assert "FAIL: 1 &amp; 2" in page
    assert "| encoder_fp32.onnx | there |" in (tmp_path / "devices.md").read_text(encoding="utf-8")
    data = json.loads((tmp_path / "gate-all.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in data["stages"]] == ["FAIL", "PASS"]
    assert data["verdict"] == "FAIL"
    assert conclude([], tmp_path, 0.0).endswith("FAIL: 0 of 0 stages, 0 s")


def outcome(stage: Stage, tmp_path: Path, *, release: bool = False) -> Outcome:
    places = Places(tmp_path, tmp_path / "out")
    (found,) = run_all([stage], places, lambda _: None, release=release)
    return found


def test_a_device_that_is_missing_fails_unless_it_is_a_phone(tmp_path: Path) -> None:
    stage = Stage("web", HOST_AND_ABSENT, How.BESIDE)
    found = outcome(stage, tmp_path)
    assert found.status is Status.NOT_MEASURED
    assert "unknown device 'absent'" in found.reason
    assert not found.good
    phone = replace(stage, optional=True)
    assert outcome(phone, tmp_path).good
    assert not outcome(phone, tmp_path, release=True).good


def test_a_device_that_lacks_the_format_fails(tmp_path: Path) -> None:
    name = next(each.name for each in pins() if each.runtime == "executorch")
    found = outcome(Stage("web", ("host", name), How.BESIDE), tmp_path)
    assert found.status is Status.NOT_MEASURED
    assert found.reason == f"{name}: executorch runs .pte files only"


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("pass", Status.PASS, ""),
        ("print('FAIL: 2 of 9'); raise SystemExit(1)", Status.FAIL, "FAIL: 2 of 9; "),
        ("print('error: no disk'); raise SystemExit(2)", Status.NOT_MEASURED, "error: no disk; "),
        ("import os; os.kill(os.getpid(), 9)", Status.NOT_MEASURED, "exit status -9; "),
        ("import time; time.sleep(60)", Status.NOT_MEASURED, "took longer than 1.5 s; "),
    ],
)
def test_the_verdict_of_a_stage_is_its_commands(
    program: str, status: Status, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "command_of", lambda *_: [sys.executable, "-c", program])
    found = outcome(Stage("web", ("host",), How.SUITES, limit_s=1.5), tmp_path)
    assert found.status is status
    assert found.reason.startswith(said)
    assert bool(found.reason) is (status is not Status.PASS)


ENDLESS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a job of a shell script
from harness.crossdevice import gate_all, running
program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
running.command_of = lambda *_: [sys.executable, "-c", program]
gate_all.main(["--only", "host", "--out", sys.argv[1]])
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stage_ends_with_who_began_it(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)])

    def stage() -> int:
        said = "".join(log.read_text(encoding="utf-8") for log in tmp_path.glob("*/log.txt"))
        return int(said) if said.endswith("\n") else 0

    assert eventually(lambda: stage() > 0)
    pid = stage()
    process.send_signal(number)
    assert process.wait(10) != 0
    assert eventually(lambda: not alive(pid))


def test_stages_run_beside_each_other_but_for_those_that_judge_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    program = [sys.executable, "-c", "import time; time.sleep(0.5)"]
    monkeypatch.setattr(running, "command_of", lambda *_: program)
    names = ("web", "edge", "server", "android")
    stages = [Stage(name, ("host",), How.SUITES, alone=name == "server") for name in names]
    found = run_all(stages, Places(tmp_path, tmp_path), said.append, jobs=2)
    assert [each.stage for each in found] == stages
    assert all(each.good for each in found)
    begun = [line.split()[0] if line[0] != " " else "end" for line in said]
    assert begun == ["web", "edge", "end", "end", "server", "end", "android", "end"]


def test_gate_all_lists_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert gate_all.main(["--list", "--only", "browser"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "web on browser (suites)"
    assert gate_all.main(["--list", "--quick", "--only", "qemu-arm64:cortex-a76"]) == 0
    assert capsys.readouterr().out.splitlines() == ["android on qemu-arm64:cortex-a76 (suites)"]
    with pytest.raises(DevicesError, match="no stage has a device toaster"):
        gate_all.main(["--only", "toaster"])


def test_the_table_says_why_a_row_is_bad() -> None:
    rows = [
        judge(INT8, "there", "host", EQUAL),
        judge(FP32, "there", "host", replace(EQUAL, sqnr_db=12.0)),
    ]
    lines = markdown(rows).splitlines()
    assert len(lines) == 6
    assert lines[2].endswith("| PASS |")
    assert lines[-1] == (
        "- encoder_fp32.onnx on there: FAIL: 12.0 dB to host, but should be ≥ 94.0 dB"
    )
