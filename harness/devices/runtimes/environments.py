"""An environment of its own for each version of a runtime, made by pip from pinned hashes."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from exportgate import resources
from exportgate.errors import ExportGateError
from harness.devices.runtimes.pins import architecture

if TYPE_CHECKING:
    from harness.devices.runtimes.pins import Pin

HOW_TO_INSTALL = "install it with: make setup-runtimes"
_TIMEOUT_S = 900.0
_READY = "ready"


class InstallError(ExportGateError, RuntimeError):
    """The environment of a runtime cannot be made."""


def folder_of(each: Pin) -> Path:
    """Return where a version's environment is, or is going to be."""
    return resources.build_folder() / "runtimes" / f"{each.runtime}-{each.version}"


def python_of(each: Pin) -> Path:
    """Return a version's Python."""
    return folder_of(each) / "bin" / "python"


def missing(each: Pin) -> str:
    """Return why a version cannot be used here; empty if it can."""
    if architecture() not in each.requirements:
        return f"{each.name} is not pinned for {architecture()}; pin it again there"
    mark = folder_of(each) / _READY
    if not mark.is_file() or mark.read_text(encoding="utf-8") != _state(each):
        return f"{each.name} is not installed, or by other pins; {HOW_TO_INSTALL}"
    return ""


def install(each: Pin) -> bool:
    """Make a version's environment; return whether there was anything to do.

    Raises:
        InstallError: pip refuses, a hash differs, or the version is not for this machine.
    """
    if not missing(each):
        return False
    if architecture() not in each.requirements:
        raise InstallError(missing(each))
    folder = folder_of(each)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], each)
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as listed:
        listed.write("\n".join(each.requirements[architecture()]))
        listed.flush()
        command = [sys.executable, "-m", "pip", "--python", str(python_of(each)), "install"]
        command += ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        _run([*command, "--requirement", listed.name], each)
    if each.runtime == "executorch":
        _borrow_torch(folder)
    # Written last: an environment that was cut short has none, and is made again.
    (folder / _READY).write_text(_state(each), encoding="utf-8")
    return True


def _borrow_torch(folder: Path) -> None:
    """Let an environment find this one's torch behind its own packages.

    A torch for each version is hundreds of megabytes. A program that needs another says so when it
    is opened.
    """
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        msg = "torch is not installed beside the gate: executorch needs it"
        raise InstallError(msg)
    (packages,) = folder.glob("lib/python*/site-packages")
    beside = Path(spec.origin).parents[1]
    (packages / "torch-of-the-gate.pth").write_text(f"{beside}\n", encoding="utf-8")


def _state(each: Pin) -> str:
    """Return what an environment depends on: its pins, and the Python that it was made of.

    Not ``sys.executable``: the console script and ``python -m`` are started by other names of it.
    """
    content = [sys.version, sys.prefix, *each.requirements[architecture()]]
    return hashlib.sha256("\n".join(content).encode()).hexdigest()


def _run(command: list[str], each: Pin) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{each.name}: pip took longer than {_TIMEOUT_S:g} s"
        raise InstallError(msg) from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "ERROR" in line] or ["no message"]
        msg = f"{each.name} cannot be installed: {said[0].strip().removeprefix('ERROR: ')}"
        raise InstallError(msg)
