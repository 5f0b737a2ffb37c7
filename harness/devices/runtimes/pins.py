"""The runtime versions that can be asked for, with the hashes of their wheels: ``pins.toml``."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from exportgate.artifacts.sidecar import write_text
from exportgate.errors import ExportGateError

PINS = Path(__file__).with_name("pins.toml")
RUNTIMES = ("onnxruntime", "executorch")
NUMPY = "numpy==2.4.6"
"""What the inputs travel in; the runtimes need no other package."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_28_aarch64")
_TIMEOUT_S = 600.0
_HEADING = (
    "# Written by `exportgate runtimes pin RUNTIME==VERSION`: what pip installs for a version\n"
    "# of a runtime, by the machine's architecture. All of it is checked by hash.\n\n"
)


class PinError(ExportGateError, ValueError):
    """A version of a runtime is not pinned, or cannot be."""


@dataclass(frozen=True, slots=True)
class Pin:
    """A version of a runtime.

    Attributes:
        runtime: ``onnxruntime`` or ``executorch``.
        version: As its wheel states it.
        requirements: Lines for ``pip install --require-hashes``, by architecture.
    """

    runtime: str
    version: str
    requirements: dict[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """As ``--device`` names it."""
        return f"{self.runtime}=={self.version}"


def pin(runtime: str, version: str) -> Pin:
    """Return a pinned version; ``1.22`` is ``1.22.0``, as pip reads it.

    Raises:
        PinError: It is not pinned.
    """
    known = {each.version: each for each in pins() if each.runtime == runtime}
    wanted = whole_version(version)
    if wanted not in known:
        names = ", ".join(known) or "none"
        msg = (
            f"{runtime}=={version}: no such version is pinned; there are {names}; "
            f"another: exportgate runtimes pin {runtime}==VERSION"
        )
        raise PinError(msg)
    return known[wanted]


def whole_version(version: str) -> str:
    """Return a version with the zeros that it may leave out."""
    parts = version.split(".")
    if not all(re.fullmatch(r"\d+", part) for part in parts[:2]):
        return version
    return ".".join([*parts, *["0"] * (3 - len(parts))])


def pins() -> tuple[Pin, ...]:
    """Return all pinned versions, oldest first."""
    return _read(PINS)


@cache
def _read(path: Path) -> tuple[Pin, ...]:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    found = [
        Pin(runtime, version, {arch: tuple(lines) for arch, lines in rows.items()})
        for runtime in RUNTIMES
        for version, rows in data.get(runtime, {}).items()
    ]
    return tuple(sorted(found, key=lambda each: (RUNTIMES.index(each.runtime), _order(each))))


def _order(each: Pin) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", each.version)]


def add_pin(name: str, path: Path = PINS) -> Pin:
    """Ask the package index what a version consists of, and keep the hashes.

    Args:
        name: ``RUNTIME==VERSION``.
        path: The file of pins.

    Raises:
        PinError: It is no version of a runtime, or there is no wheel of it.
    """
    runtime, _, version = name.partition("==")
    if runtime not in RUNTIMES or not version:
        msg = f"{name!r} is no version of a runtime; expected {' or '.join(RUNTIMES)}==VERSION"
        raise PinError(msg)
    found: dict[str, tuple[str, ...]] = {}
    version = whole_version(version)
    for tag in PLATFORMS:
        lines = _resolved([f"{runtime}=={version}", NUMPY], tag)
        found[tag.removeprefix("manylinux_2_28_")] = lines
    new = Pin(runtime, version, found)
    others = [each for each in _read(path) if each.name != new.name] if path.is_file() else []
    write_text(path, _HEADING + "\n".join(_toml(each) for each in [*others, new]))
    _read.cache_clear()
    return new


def _resolved(packages: list[str], tag: str) -> tuple[str, ...]:
    """Return a line with a hash for each package, as pip would install it on a platform."""
    # --platform asks for a folder to install to, which a dry run leaves empty.
    with tempfile.TemporaryDirectory(prefix="pins-") as folder:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--platform", tag]
        command += ["--platform", tag.replace("2_28", "2_27"), "--target", folder]
        done = subprocess.run(
            [*command, "--report", "-", *packages],
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        msg = f"{packages[0]} for {tag}: {(said or ['pip failed'])[-1].removeprefix('ERROR: ')}"
        raise PinError(msg)
    installed: list[dict[str, Any]] = json.loads(done.stdout)["install"]
    return tuple(
        f"{item['metadata']['name']}=={item['metadata']['version']} "
        f"--hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}"
        for item in installed
    )


def _toml(each: Pin) -> str:
    rows = [f'[{each.runtime}."{each.version}"]']
    for arch, lines in each.requirements.items():
        rows += [f"{arch} = [", *(f'    "{line}",' for line in lines), "]"]
    return "\n".join([*rows, ""])


def architecture() -> str:
    """Return this machine's, as the pins name it."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine()
    )
