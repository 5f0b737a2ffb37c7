"""The gate where little is granted: no network, no home, a checkout nobody may write, a full disk.

Each runs the real gate on one small file, in namespaces of its own where it has to take something
away; where the system permits none, the test says so and is skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from exportgate.exit import Exit
from tests.vectors.entries import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.long
NAME = "step_fp32.onnx"
CHECKPOINT = ROOT / "golden" / "zoo" / "tiny-tanh.nemo"


def gate(workdir: Path) -> list[str]:
    """Return the command that judges what is in one file: it passes no gate that it leaves out."""
    return [
        sys.executable, "-m", "harness.console", "gate", "--target", "server",
        "--checkpoint", str(CHECKPOINT), "--variant", NAME, "--workdir", str(workdir), "-q",
        "-p", "no:cacheprovider", "-k", "test_load or test_contract",
    ]  # fmt: skip


def run(
    command: list[str], folder: Path, **changes: str | None
) -> subprocess.CompletedProcess[str]:
    """Run it in a folder, with variables of the environment changed, or removed (None)."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    for name, value in changes.items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


def unshared(script: str, *options: str) -> list[str]:
    """Return a shell script's command in namespaces of its own, or skip where none is permitted."""
    command = ["unshare", "--user", "--map-root-user", *options]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()}")
    return [*command, "sh", "-ec", script]


def judged(done: subprocess.CompletedProcess[str], workdir: Path) -> None:
    """Check that the gate came to its verdict: what was left out fails, what was asked passes."""
    assert done.returncode == Exit.FAILED, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads((workdir / "report" / "report.json").read_text(encoding="utf-8"))
    states = [row["status"] for row in report["gates"]]
    assert states.count("PASS") >= 10
    assert "FAIL" not in states
    assert not report["errors"]


def test_the_network_is_not_needed(tmp_path: Path) -> None:
    work = tmp_path / "work"
    # Not even the loopback device is up.
    script = f"! cat /proc/net/route | grep -q eth; {shlex.join(gate(work))}"
    judged(run(unshared(script, "--net"), tmp_path), work)


def test_a_checkout_that_nobody_may_write(tmp_path: Path) -> None:
    work, root = tmp_path / "work", shlex.quote(str(ROOT))
    script = (
        f"mount --bind {root} {root}; mount -o remount,bind,ro {root};"
        f" ! touch {root}/written 2> /dev/null; {shlex.join(gate(work))}"
    )
    judged(run(unshared(script, "--mount"), tmp_path), work)


def test_no_home_and_nowhere_else_to_write(tmp_path: Path) -> None:
    work = tmp_path / "work"
    done = run(gate(work), tmp_path, HOME="/nonexistent", XDG_CACHE_HOME=None, USER=None)
    judged(done, work)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    export = [
        sys.executable, "-m", "exporters.release", "--checkpoint", str(CHECKPOINT),
        "--variant", NAME, "--out", f"{full}/out", "--cache", f"{full}/cache",
    ]  # fmt: skip
    script = (
        f"mount -t tmpfs -o size=64k none {shlex.quote(str(full))}; status=0;"
        f" {shlex.join(export)} || status=$?; find {shlex.quote(str(full))} -type f; exit $status"
    )
    done = run(unshared(script, "--mount"), tmp_path)
    assert done.returncode == Exit.NOT_JUDGED, done.stdout + done.stderr[-2000:]
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    left = [line for line in done.stdout.splitlines() if line.startswith(str(full))]
    assert not [line for line in left if NAME in line], left


def test_two_gates_at_once_in_one_folder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen(
            gate(work), cwd=tmp_path, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    for running in both:
        said, _ = running.communicate(timeout=600)
        assert "Traceback" not in said
        assert "15 kept" in said, said[-2000:]
        assert running.returncode == Exit.FAILED
    assert (work / "report" / "report.json").is_file()
