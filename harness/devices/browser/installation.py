"""What ``make setup-browser`` installs: Chromium and Node by apt, onnxruntime-web by npm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from exportgate.errors import ExportGateError

NPM = Path(__file__).with_name("npm")
"""What npm is to install, with the hash of each package (package-lock.json)."""
HOW_TO_INSTALL = "install it with: make setup-browser"
RUNTIMES = {"1.30": "onnxruntime-web", "1.18": "onnxruntime-web-1.18"}
"""Minor version to the package's folder; the first is what runs by default."""
NODE = Path(__file__).with_name("page") / "node.mjs"
BROTLI_QUALITY = 9
"""Of 11: the highest two take minutes for a large file, and weights hardly shrink."""
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class InstallError(ExportGateError, RuntimeError):
    """npm did not install what is pinned."""


def chromium() -> str | None:
    """Return the path of Chromium, if there is one."""
    return next(filter(None, map(shutil.which, _CHROMIUM)), None)


def node() -> str | None:
    """Return the path of Node, if there is one."""
    return shutil.which("node")


def packages() -> Path:
    """Return where the pinned packages lie: outside any checkout, named by what is pinned."""
    place = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256((NPM / "package-lock.json").read_bytes()).hexdigest()
    return Path(place) / "exportgate" / "browser" / digest[:12]


def runtime(minor: str) -> Path:
    """Return the folder of a minor version's files."""
    return packages() / "node_modules" / RUNTIMES[minor] / "dist"


def module(minor: str, kind: str) -> str:
    """Return the module of a minor version that a kind of device imports, in its folder."""
    if kind == "node":
        return "ort.node.min.mjs" if minor != "1.18" else "ort.node.min.js"
    flavour = "webgpu" if kind == "webgpu" else "wasm"
    return f"ort.{flavour}.min.mjs" if minor != "1.18" else f"esm/ort.{flavour}.min.js"


def version_of_runtime(minor: str) -> str:
    """Return the full version of what a minor version stands for here."""
    file = runtime(minor).parent / "package.json"
    if not file.is_file():
        return "not installed"
    return str(json.loads(file.read_text(encoding="utf-8"))["version"])


@cache
def version_of(program: str) -> str:
    """Return what a program says of its version."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return said.stdout.strip().partition(" built on")[0] or "unknown"


def brotli_bytes(node: str, path: Path) -> int:
    """Return a file's size after brotli."""
    script = (
        "const {brotliCompressSync, constants} = require('zlib');"
        "const params = {[constants.BROTLI_PARAM_QUALITY]: Number(process.argv[2])};"
        "const bytes = require('fs').readFileSync(process.argv[1]);"
        "console.log(brotliCompressSync(bytes, {params}).length)"
    )
    command = [node, "-e", script, str(path), str(BROTLI_QUALITY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def install() -> Path:
    """Install the pinned packages, all or nothing; npm refuses a package of another hash.

    Raises:
        InstallError: npm is missing or fails.
    """
    folder = packages()
    if folder.is_dir():
        return folder
    npm = shutil.which("npm")
    if npm is None:
        msg = "npm is not installed; Debian has it: apt-get install npm"
        raise InstallError(msg)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        for path in NPM.glob("*.json"):
            shutil.copy(path, made)
        # No script of any package runs.
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
        if done.returncode:
            said = " ".join(done.stderr.split())[:300]
            msg = f"npm ci failed with status {done.returncode}: {said}"
            raise InstallError(msg)
        Path(made).chmod(0o755)
        try:
            Path(made).rename(folder)
        except OSError:
            # Somebody else was faster; theirs is the same.
            if not folder.is_dir():
                raise
        else:
            Path(made).mkdir()
    return folder
