"""The gate from its wheel, in somebody else's repository whose folders are named like ours."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.long]

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = ("exportgate", "exporters", "harness", "suites", "golden")
DECOYS = ("exportgate", "exporters", "harness", "suites", "golden")
OVER = """schema = 1
[checkpoint]
swipes_min = 1
distinct_swipes_min = 1
distinct_words_min = 1
["step_fp32.onnx"]
"""
FILE = ("--target", "web-dev", "--variant", "step_fp32.onnx")
SWIPES = 16


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy: building leaves its own folders in the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(REPOSITORY / name, source / name)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(REPOSITORY / name, source / name)
    out = source / "dist"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = out.glob("exportgate-*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ``bin`` of a fresh environment: the wheel, and this one's dependencies."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True)
    packages = folder / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    # A folder that is named in a .pth is searched last, and its own .pth files, among them the one
    # that makes a checkout importable, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return folder / "bin"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's repository: a checkpoint, swipes, and folders that would break ours."""
    folder = tmp_path_factory.mktemp("user")
    for name in DECOYS:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('decoy')", encoding="utf-8")
    (folder / "conftest.py").write_text("raise SystemExit('decoy')", encoding="utf-8")
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts = '--decoy'\n")
    (folder / "golden" / "index.toml").write_text("decoy", encoding="utf-8")
    shutil.copy(REPOSITORY / "golden" / "golden.nemo", folder / "my.nemo")
    lines = (REPOSITORY / "golden" / "val.jsonl").read_text(encoding="utf-8").splitlines()[:SWIPES]
    (folder / "my.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "my.toml").write_text(OVER, encoding="utf-8")
    return folder


def run(
    environment: Path, repository: Path, *command: str, more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and not name.startswith("PYTEST")
    }
    clean["PATH"] = f"{environment}{os.pathsep}{clean['PATH']}"
    clean |= more or {}
    found = shutil.which(command[0], path=clean["PATH"]) or command[0]
    return subprocess.run(
        [found, *command[1:]],
        cwd=repository,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_gate_in_somebody_elses_repository(environment: Path, repository: Path) -> None:
    before = {path.name for path in repository.iterdir()}
    given = (*FILE, "--checkpoint", "my.nemo", "--manifest", "my.jsonl", "--gates", "my.toml")
    done = run(environment, repository, "exportgate", "gate", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((repository / "build" / "report" / "report.json").read_text())
    assert report["verdict"] == "PASS"
    assert f"PASS: {len(report['gates'])} of {len(report['gates'])} gates kept" in done.stdout
    assert report["request"]["checkpoint"] == "my.nemo"
    # The golden checkpoint under another name: calibrated with the golden swipes of the wheel.
    installed = environment.parent / "lib"
    assert report["request"]["calibration"].startswith(str(installed.resolve()))
    assert Path(report["request"]["folder"]).parent == repository / "build" / "gate"
    assert (repository / "build" / "report" / "report.html").is_file()
    assert {path.name for path in repository.iterdir()} - before == {"build"}


def test_a_failure_and_the_command_that_repeats_it(environment: Path, repository: Path) -> None:
    (repository / "small.toml").write_text(f"{OVER}size_bytes_max = 1\n", encoding="utf-8")
    given = (*FILE, "--checkpoint", "my.nemo", "--manifest", "my.jsonl", "--gates", "small.toml")
    done = run(environment, repository, "exportgate", "gate", *given, "test_size.py")
    assert done.returncode == 1, done.stdout + done.stderr
    (again,) = {
        line.partition("again: ")[2] for line in done.stdout.splitlines() if "again: " in line
    }
    assert again.startswith("exportgate gate --target web-dev")
    repeated = run(environment, repository, *shlex.split(again))
    assert repeated.returncode == 1
    assert "1 failed in" in repeated.stdout, repeated.stdout + repeated.stderr
    assert "step_fp32.onnx: size_bytes is" in repeated.stdout


def test_the_steps_of_the_action(environment: Path, repository: Path) -> None:
    """A bundle without the FP32 file that its INT8 file is compared with is judged and sealed."""
    (repository / "server.toml").write_text(f'{OVER}["step_int8.onnx"]\n', encoding="utf-8")
    given = {"TARGET": "server", "CHECKPOINT": "my.nemo", "MANIFEST": "my.jsonl", "CALIBRATION": ""}
    given |= {"GATES": "server.toml", "ARGUMENTS": "--variant step_int8.onnx"}
    steps = yaml.safe_load((REPOSITORY / "ci" / "github" / "action.yml").read_text())["runs"]
    (gate,) = [step for step in steps["steps"] if step.get("name") == "Gate"]
    assert gate["env"].keys() == given.keys()
    shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", gate["run"])
    done = run(environment, repository, *shell, more=given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sealed: build/bundle: 1 exports, verdict PASS" in done.stdout
    assert (repository / "build" / "report" / "junit.xml").is_file()
    options = ("--target", "server", "--variant", "step_int8.onnx", "--gates", "server.toml")
    options += ("--checkpoint", "my.nemo", "--manifest", "my.jsonl")
    options += ("--artifacts", "build/bundle", "--report", "build/again")
    done = run(environment, repository, "exportgate", "gate", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no step_fp32.onnx in build/bundle: a fresh export of the checkpoint" in done.stdout
    sealing = ("bundle", "seal", "build/bundle", "--report", "build/again/report.json")
    done = run(environment, repository, "exportgate", *sealing)
    assert done.stdout.startswith("ok: build/bundle: "), done.stderr


def test_the_script_of_the_component(environment: Path, repository: Path) -> None:
    component = REPOSITORY / "ci" / "gitlab" / "gate.yml"
    job = list(yaml.safe_load_all(component.read_text(encoding="utf-8")))[1]["exportgate"]
    given = {"TARGET": "web-dev", "CHECKPOINT": "my.nemo", "MANIFEST": "my.jsonl"}
    given |= {"CALIBRATION": "", "GATES": "my.toml", "ARGUMENTS": "--variant step_fp32.onnx"}
    assert job["variables"].keys() == {*given, "PACKAGE"}
    shutil.rmtree(repository / "build", ignore_errors=True)
    (line,) = job["script"]
    done = run(environment, repository, "sh", "-ec", line, more=given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sealed: build/bundle: 1 exports, verdict PASS" in done.stdout
    places = [*job["artifacts"]["paths"], *job["cache"]["paths"]]
    places.append(job["artifacts"]["reports"]["junit"])
    assert [place for place in places if not (repository / place).exists()] == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "name what to judge: --target"),
        (("--target", "ios"), "unknown target 'ios'"),
        ((*FILE, "--colour"), "--colour"),
        ((*FILE, "test_nothing.py"), "no tests test_nothing.py; there are "),
        ((*FILE, "--checkpoint", "none.nemo"), "--checkpoint: no such file: none.nemo"),
    ],
)
def test_what_cannot_be_judged_is_one_line(
    environment: Path, repository: Path, given: tuple[str, ...], message: str
) -> None:
    done = run(environment, repository, "exportgate", "gate", *given)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_other_commands_find_their_data(environment: Path, repository: Path) -> None:
    cases = REPOSITORY / "golden" / "features" / "cases.json"
    done = run(environment, repository, "exportgate", "features", "check", str(cases))
    assert (done.returncode, done.stdout.strip()[:4]) == (0, "PASS"), done.stderr
    shown = run(environment, repository, "exportgate", "gate", "--help")
    assert "exportgate gate --target android --checkpoint my.nemo" in shown.stdout
