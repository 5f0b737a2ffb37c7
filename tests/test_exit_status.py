"""Every command ends with 0, 1 or 2, and what could not be done is one line that says why."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from exportgate.exit import Exit, end
from harness import console

SWIPE = '{"word": "a", "points": [{"x": 0.1, "y": 0.2, "t": 0}, {"x": 0.1, "y": 0.3, "t": 8}]}'
GOLDEN = Path(__file__).resolve().parent.parent / "golden"

# Of each command: a file that is missing, and a path that cannot be read or written: one below a
# regular file ({below}), a folder in the place of a file ({folder}), a device that is full.
CASES: dict[str, list[str]] = {
    # What it looks at may be missing: that is its answer, and status 1.
    "doctor": ["{golden} --gates {missing}", "{golden} --gates {folder}"],
    "import": [
        "futo {missing} --out {folder}/m.jsonl",
        "futo {file} --out {below}",
        "neuroswipe {folder} --out {folder}/m.jsonl",
    ],
    "init": ["--artifacts {missing}", "--out {below}"],
    "gate": [
        "--target web-dev --checkpoint {missing}",
        "--target web-dev --checkpoint {folder}",
        "--target web-dev --report {file}",
        "--target web-dev --workdir {below}",
        "--target web-dev --history {folder}",
        "--target web-dev --history {below}/history.db",
        "--target web-dev --history /dev/full",
        "--target web-dev --gates {missing}",
        "--target web-dev --gates {folder}",
        "--target web-dev --manifest {below}",
        "--target web-dev --lexicon {folder}",
        "--target web-dev --baseline {below}",
        "--artifacts {missing}",
        "--artifacts {folder} --checkpoint {missing}",
    ],
    "release": [
        "--checkpoint {missing} --out {folder}",
        "--checkpoint {below} --out {folder}",
    ],
    "export_onnx": [
        "--checkpoint {missing} --out {below}.onnx",
        "--checkpoint {below} --out x.onnx",
    ],
    "export_optimized_onnx": [
        "--checkpoint {missing} --web_onnx {below}.onnx",
        "--checkpoint {below} --web_onnx {below}.onnx",
    ],
    "export_pte_fp32": [
        "--checkpoint {missing} --out {below}.pte",
        "--checkpoint {below} --out x.pte",
    ],
    "export_pte": ["--checkpoint {missing} --out {below}.pte", "--checkpoint {below} --out x.pte"],
    "export_pte_optimized": [
        "--checkpoint {missing} --out {below}.pte",
        "--checkpoint {below} --out x.pte",
    ],
    "export_pte_ultra": [
        "--checkpoint {missing} --out {below}.pte",
        "--checkpoint {below} --out x.pte",
    ],
    "export_rnnt_step": [
        "--checkpoint {missing} --onnx_out {below}.onnx",
        "--checkpoint {golden} --package_dir {below} --onnx_out x.onnx --lexicon {missing}",
    ],
    "devices": [
        "--devices host,far --checkpoint {missing}",
        "--devices host,executorch==1.5.1 --manifest {folder} --target edge",
        "--devices host,executorch==1.5.1 --manifest {file} --target edge --out {below}",
        "--devices host --manifest {file}",
    ],
    "gate-all": [
        "--only {missing}",
        "--out {below}",
        "--out {file}",
    ],
    "runtimes": [
        "compare --checkpoint {missing}",
        "compare --manifest {file} --out {below}",
        "compare host --manifest {file}",
        "setup {missing}",
        "pin {below}",
    ],
    "search": [
        "--checkpoint {missing} --manifest {file} --calibration {file} --out {folder}/s",
        "--checkpoint {golden} --manifest {missing} --calibration {file} --out {folder}/s",
        "--checkpoint {golden} --manifest {file} --calibration {below} --out {folder}/s",
        "--checkpoint {golden} --manifest {file} --calibration {file} --out {folder}/s",
        "--checkpoint {golden} --manifest {file} --calibration {file} --out {below} --trials 1",
    ],
    "latency": [
        "{missing}",
        "{file}",
        "{folder} --out {below}",
        "{folder} --manifest {missing}",
    ],
    "promote": ["--report {missing}", "--report {folder}", "--report {file} --baseline {below}"],
    "bundle": [
        "verify {missing}",
        "verify {file}",
        "seal {folder} --report {missing}",
        "seal {below} --report {file}",
    ],
    "sign": ["{missing} --key {file}", "{folder} --key {missing}", "{below} --key {folder}"],
    "verify": ["{missing} --key {file}", "{folder} --key {missing}", "{below} --key {folder}"],
    "localize": [
        "--artifact {missing} --checkpoint {golden} --manifest {file}",
        "--artifact {below} --checkpoint {golden} --manifest {file}",
        "--artifact {artifact} --checkpoint {golden} --manifest {folder}",
        "--artifact {artifact} --checkpoint {golden} --manifest {file} --out {below}",
    ],
    "evaluate": [
        "--encoder {missing} --step {missing} --manifest {file}",
        "--encoder {folder} --step {below} --manifest {file} --greedy-only",
    ],
    "features": ["check {missing}", "check {folder}", "check {file} --cases {below}"],
    "calibration": [
        "--manifest {missing}",
        "--calibration {folder}",
        "--checkpoint {missing} --manifest {file} --calibration {file} --counts 1",
    ],
    "history": [
        "--history {missing} list",
        "--history {folder} list",
        "--history {file} list",
        "--history {below} list",
        "--history {missing} trend --out {folder}/trend.xyz",
        "--history {missing} trend --out {folder}",
        "--history {folder} merge {file}",
        "--history {below} merge {missing}",
        "--history {below} merge {file}",
    ],
    "sweep": [
        "{missing} --target web",
        "{golden} --target web --manifest {folder}",
        "{golden} --target web --history {below}",
        "{golden} --target web --history {folder}",
    ],
    "watch": ["{missing} --target web --once", "{golden}/{below} --target web --once"],
    "ci": [
        "--target web-dev --checkpoint {missing}",
        "--target web-dev --checkpoint {folder}",
    ],
    "arm64": ["compare {missing}", "compare {folder} --out {below}"],
    "instructions": ["count {missing}", "count {below}", "count {folder}"],
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    folder, file = tmp_path / "folder", tmp_path / "file.jsonl"
    folder.mkdir()
    file.write_text(SWIPE, encoding="utf-8")
    return {
        "missing": str(tmp_path / "missing"),
        "folder": str(folder),
        "file": str(file),
        "below": str(file / "below"),
        "golden": str(GOLDEN / "golden.nemo"),
        "artifact": str(file),
    }


def test_every_command_has_its_cases() -> None:
    assert list(CASES) == list(console.COMMANDS)
    for given in CASES.values():
        assert any("{missing}" in line for line in given)
        assert any("{below}" in line or "{folder}" in line for line in given)


@pytest.mark.parametrize(
    ("command", "given"),
    [pytest.param(name, line, id=f"{name} {line}") for name in CASES for line in CASES[name]],
)
def test_what_cannot_be_done_is_one_line(
    places: dict[str, str],
    command: str,
    given: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = [command, *shlex.split(given.format(**places))]
    with pytest.raises(SystemExit) as ended:
        end(lambda: console.main(argv))
    said = capfd.readouterr()
    assert ended.value.code == Exit.NOT_JUDGED, said
    assert said.err.startswith("error: "), said
    assert said.err.count("\n") == 1, said
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize("command", console.COMMANDS)
def test_a_wrong_option_is_one_line_too(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        end(lambda: console.main([command, "--no-such-option"]))
    said = capfd.readouterr()
    assert ended.value.code == Exit.NOT_JUDGED
    *usage, last = said.err.splitlines()
    assert "error: " in last, said
    # A parser of Python's own says how it is used first; exportgate.exit.Parser only what is wrong.
    assert not usage or usage[0].startswith("usage: "), said
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        ([], 0, ""),
        (["gates"], 2, "error: unknown command 'gates'; known: doctor, import, "),
    ],
)
def test_the_console_itself(
    argv: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        end(lambda: console.main(argv))
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(said)


def failing(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyboardInterrupt(), "error: interrupted\n"),
        (PermissionError(13, "Permission denied", "/a/b"), "error: /a/b: Permission denied\n"),
        (OSError("two\nlines"), "error: two lines\n"),
        (console.UnknownCommandError("x\ny"), "error: unknown command 'x\\ny'; known: "),
    ],
)
def test_how_it_ends(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        end(lambda: failing(error))
    assert ended.value.code == Exit.NOT_JUDGED
    assert capsys.readouterr().err.startswith(line)


def test_a_full_device_is_told() -> None:
    """Standard output is only written when it is flushed: the status must still say so."""
    command = [sys.executable, "-m", "harness.console", "--help"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == Exit.NOT_JUDGED
    assert done.stderr == "error: No space left on device\n"
