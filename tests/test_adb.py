"""A phone at the end of a cable: none, several, slow, full, too warm, pulled out."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from exportgate.artifacts.sidecar import Sidecar, sha256_of, sidecar_path, write_text
from exportgate.contract import encoder_contract
from exportgate.data.features import feature_spec
from exportgate.runtime.session import OpenError, RunError
from harness.devices.adb import bridge, build, runner
from harness.devices.adb import device as phones
from harness.devices.adb.bridge import AdbError, Phone, connected
from harness.devices.adb.device import AdbDevice, PhoneSession
from harness.devices.device import DeviceDiedError, DeviceLacksError, Need
from harness.devices.registry import device
from tests.test_devices import SPEC, judged, project, registered, verdicts

if TYPE_CHECKING:
    from exportgate.runtime.session import Arrays

__all__ = ["project", "registered"]  # fixtures
TOOLS = Path(__file__).with_name("devices")


class Bench:
    """A fake phone: make its faults by touching files."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "storage").mkdir(parents=True)
        self.put("devices", "FAKE0001\tdevice\n")
        self.put("celsius", "291")

    def put(self, name: str, text: str = "") -> None:
        (self.home / name).write_text(text, encoding="utf-8")

    def drop(self, name: str) -> None:
        (self.home / name).unlink()

    @property
    def stored(self) -> list[Path]:
        return list((self.home / "storage").iterdir())


def script(path: Path, program: Path, options: str = "") -> None:
    path.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" {options} "{program}" "$@"\n', encoding="utf-8"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Put the fake adb first on the path, and a program in the place of the runner."""
    tools = tmp_path / "tools"
    tools.mkdir()
    script(tools / "adb", TOOLS / "fake_adb.py", "-I -S")
    script(tools / "run", TOOLS / "phone_program.py")
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    found = Bench(tmp_path / "phone")
    monkeypatch.setenv("FAKE_PHONE", str(found.home))
    monkeypatch.setattr(build, "runner", lambda: tools / "run")
    monkeypatch.setattr(build, "missing", lambda: "")
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_program(tmp_path / "encoder_fp32.pte", b"good")


def write_program(path: Path, payload: bytes) -> Path:
    path.write_bytes(payload)
    sidecar = Sidecar(
        path.name, "fp32", sha256_of(path), len(payload), "0" * 64, SPEC, 2,
        encoder_contract(SPEC), 200, feature_spec(), None, {},
    )  # fmt: skip
    write_text(sidecar_path(path), sidecar.to_json())
    return path


def inputs(points: int) -> Arrays:
    return {
        "features_bft": np.ones((1, 37, points), np.float32),
        "lengths": np.array([points], np.int64),
    }


def phone(name: str = "adb") -> AdbDevice:
    found = device(name)
    assert isinstance(found, AdbDevice)
    return found


def opened(file: Path) -> PhoneSession:
    found = phone().open(file)
    assert isinstance(found, PhoneSession)
    return found


def test_without_adb_nothing_is_measured(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "ADB", "no-such-adb")
    assert phone().lacks(Need.PTE).startswith("adb is not installed")
    result, report = judged(project, "adb")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert report["environment"]["cpu"] == "no phone"
    assert verdicts(report)["nonfinite"][0] == "NOT_MEASURED"


@pytest.mark.parametrize(
    ("listed", "name", "said"),
    [
        ("", "adb", "no phone is connected; plug one in"),
        ("A1\tunauthorized\n", "adb", "phone A1 does not trust this computer"),
        ("A1\toffline\n", "adb:A1", "phone A1 is offline"),
        ("A1\tno permissions (user in plugdev)\n", "adb", "phone A1 cannot be opened by this user"),
        ("A1\trecovery\n", "adb", "phone A1 is recovery"),
        ("A1\tdevice\nB2\tdevice\n", "adb", "2 phones are connected; name one, --device adb:SER"),
        ("A1\tdevice\nB2\tdevice\n", "adb:B2", ""),
        ("A1\tdevice\n", "adb:B2", "no phone B2 is connected; there are: A1"),
        ("* daemon started successfully\nA1\tdevice\n", "adb", ""),
        ("192.168.1.5:5555\tdevice\n", "adb:192.168.1.5:5555", ""),
    ],
)
def test_which_phone(bench: Bench, listed: str, name: str, said: str) -> None:
    bench.put("devices", listed)
    found = phone(name).lacks(Need.PTE)
    assert found.startswith(said)
    assert bool(found) is bool(said)
    assert "\n" not in found


@pytest.mark.usefixtures("bench")
def test_onnx_files_are_not_run_on_it() -> None:
    assert phone().lacks(Need.ONNX).endswith("runs .pte files only")


def test_a_slow_adb_is_a_reason_and_not_a_hang(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge, "ANSWER_S", 0.4)
    bench.put("slow")
    begun = time.monotonic()
    assert phone().lacks(Need.PTE) == "adb devices: no answer in 0.4 s"
    assert phone().environment().cpu == "no phone"
    assert time.monotonic() - begun < 5


@pytest.mark.usefixtures("bench")
def test_what_the_phone_is() -> None:
    found = phone().environment()
    assert (found.machine, found.cpu, found.system, found.cores) == (
        "Fake 7",
        "FK7",
        "Android 14",
        2,
    )
    assert found.cpu_flags == ("fp", "asimd", "asimddp")
    assert found.versions["battery at start"] == "29.1 °C"


def test_a_file_is_run_and_leaves_nothing(bench: Bench, file: Path) -> None:
    session = opened(file)
    assert [spec.shape for spec in session.contract.inputs] == [("B", 37, "T"), ("B",)]
    outputs = session.run(inputs(9))
    assert np.array_equal(outputs["encoded_bdt"], np.full((1, 96, 3), 37, np.float32))
    assert outputs["encoded_lengths"].tolist() == [3]
    (folder,) = bench.stored
    assert sorted(path.name for path in folder.iterdir()) == [file.name, "run"]
    process = session._runner._process
    del session
    assert bench.stored == []
    assert process.poll() is not None


def test_times_are_the_phones(bench: Bench, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phones, "OPENINGS", 2)
    took = opened(file).elapsed([inputs(9), inputs(10)], runs=5)
    assert took.processor_s == pytest.approx(2 * 5 * 3e-3)
    assert took.wall_s == pytest.approx(2 * 5 * 4e-3)
    found = phone().alone(file, inputs(9))
    assert set(found.load_ms) == {2.0}
    assert set(found.run_ms) == {4.0}
    assert found.percentile_ms(95) == 4.0
    assert found.peak_memory_bytes == 4000
    assert bench.stored == []


@pytest.mark.parametrize(
    ("celsius", "said"), [("391", r"has 39\.1 °C, but should have 38"), (None, "tells no temp")]
)
def test_a_warm_phone_is_not_timed(
    bench: Bench, file: Path, celsius: str | None, said: str
) -> None:
    bench.drop("celsius")
    if celsius:
        bench.put("celsius", celsius)
    session = opened(file)
    assert session.run(inputs(9)), "words do not depend on it"
    with pytest.raises(AdbError, match=said):
        session.elapsed([inputs(9)])
    with pytest.raises(AdbError, match=said):
        phone().alone(file, inputs(9))


def test_a_full_phone(bench: Bench, file: Path) -> None:
    bench.put("full")
    with pytest.raises(DeviceDiedError, match="No space left on device"):
        phone().open(file)
    assert bench.stored == []


def test_a_file_that_arrives_in_part(bench: Bench, file: Path) -> None:
    bench.put("truncates")
    with pytest.raises(DeviceDiedError, match="run did not arrive whole on the phone"):
        phone().open(file)
    assert bench.stored == []


def test_a_phone_that_is_pulled_out(bench: Bench, file: Path) -> None:
    session = opened(file)
    bench.put("gone")
    bench.put("devices", "")
    session._runner._process.kill()
    with pytest.raises(DeviceDiedError, match="device adb died: the connection ended"):
        session.run(inputs(9))
    with pytest.raises(DeviceLacksError, match="no phone is connected"):
        phone().open(file)
    session.close()  # the folder cannot be removed any more: no error


@pytest.mark.usefixtures("bench")
def test_a_file_that_does_not_load(tmp_path: Path) -> None:
    bad = write_program(tmp_path / "encoder_int8.pte", b"bad")
    with pytest.raises(OpenError, match=r"adb does not load it \(the program does not load: error"):
        phone().open(bad)


@pytest.mark.usefixtures("bench")
def test_a_program_that_fails_dies_or_hangs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(file)
    with pytest.raises(RunError, match="error 0x12"):
        session.run(inputs(15))
    assert session.run(inputs(9)), "a failure is no death"
    with pytest.raises(DeviceDiedError, match="the connection ended with status 7"):
        session.run(inputs(13))
    session = opened(file)
    monkeypatch.setattr(runner, "ANSWER_S", 0.5)
    with pytest.raises(DeviceDiedError, match=r"no answer in 0\.5 s"):
        session.run(inputs(14))
    assert session._runner._process.poll() is not None


def test_a_phone_with_strange_output(bench: Bench) -> None:
    bench.put("devices", "\n\nA1\tdevice\nno such line\n")
    assert connected() == {"A1": "device"}
    assert Phone("A1").missing() == ""


def test_the_runner_is_built_or_one_line_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "runner", lambda: tmp_path / "run_phone")
    assert build.missing().startswith("the runner for phones is not built: set ANDROID_NDK_HOME")
    monkeypatch.delenv(build.NDK, raising=False)
    with pytest.raises(build.BuildError, match="ANDROID_NDK_HOME is not set"):
        build.build()
    monkeypatch.setenv(build.NDK, str(tmp_path))
    with pytest.raises(build.BuildError, match="holds no toolchains/llvm/prebuilt"):
        build.build()
    compiler = tmp_path / "toolchains/llvm/prebuilt/linux-x86_64/bin"
    compiler.mkdir(parents=True)
    path = compiler / f"aarch64-linux-android{build.API}-clang++"
    path.write_text("#!/bin/sh\necho 'fatal error: no header' >&2\nexit 1\n", encoding="utf-8")
    path.chmod(0o755)
    monkeypatch.delenv(build.EXECUTORCH, raising=False)
    with pytest.raises(build.BuildError, match="EXECUTORCH_ANDROID_HOME names no ExecuTorch"):
        build.build()
    (tmp_path / "executorch" / "lib").mkdir(parents=True)
    monkeypatch.setenv(build.EXECUTORCH, str(tmp_path / "executorch"))
    with pytest.raises(build.BuildError, match="does not compile: fatal error: no header"):
        build.build()
    path.write_text('#!/bin/sh\nfor last; do :; done; echo run > "$last"\n', encoding="utf-8")
    assert build.build() == tmp_path / "run_phone"
    assert build.missing() == ""
    (tmp_path / "run_phone.sha256").write_text("older", encoding="utf-8")
    assert "built from other sources" in build.missing()
