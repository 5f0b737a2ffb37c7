"""Build the clients from their sources, whole or with a fault put in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.conftest import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WEB = REPOSITORY / "clients" / "web"
ANDROID = REPOSITORY / "clients" / "android"
PYTHON = REPOSITORY / "clients" / "python" / "client.py"

Edit = tuple[str, str, str]
"""A file of the sources, a piece of its text, and what takes its place."""


def install_web() -> None:
    """Install the packages that package-lock.json pins, if they are not there."""
    if not (WEB / "node_modules" / "esbuild").is_dir():
        _run(["npm", "ci", "--no-audit", "--no-fund"], WEB)


def web(folder: Path, edits: Sequence[Edit] = ()) -> Path:
    """Bundle the web client into one module."""
    sources = _edited(WEB / "src", folder / "src", edits)
    built = folder / "client.js"
    esbuild = WEB / "node_modules" / ".bin" / "esbuild"
    _run([esbuild, sources / "client.ts", "--bundle", "--format=esm", f"--outfile={built}"], WEB)
    return built


def web_command(client: Path, bundle: Path, encoder: str, step: str) -> list[object]:
    return ["node", WEB / "test" / "run.mjs", client, bundle, encoder, step]


def android(folder: Path, edits: Sequence[Edit] = ()) -> Path:
    """Compile the C++ client for this machine, against ExecuTorch's wheel."""
    sources = _edited(ANDROID / "src", folder / "src", edits)
    built = folder / "swipe-client"
    python = f"PYTHON={sys.executable}"
    _run(["make", "-C", ANDROID, f"SRC={sources}", f"OUT={built}", python], ANDROID)
    return built


def _edited(sources: Path, target: Path, edits: Sequence[Edit]) -> Path:
    shutil.copytree(sources, target)
    for name, old, new in edits:
        text = (target / name).read_text(encoding="utf-8")
        assert old in text, f"{name} has no {old!r} to put a fault in"
        (target / name).write_text(text.replace(old, new), encoding="utf-8")
    return target


def _run(command: Sequence[object], folder: Path) -> None:
    done = subprocess.run(
        [str(item) for item in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
