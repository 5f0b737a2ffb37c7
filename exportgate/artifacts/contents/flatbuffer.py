"""Flatbuffers of ExecuTorch as plain values, by the compiler and the schemas of its own wheel."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from exportgate.errors import ExportGateError

_FLATC_TIMEOUT_S = 60.0
_LARGEST_JSON_BYTES = 128 << 20
_BARE_NUMBER = re.compile(rb"(?<=[\s\[:,-])(inf|nan)(?=[\s\],}])")
"""flatc's spelling of unbounded clamps, which is no JSON; Python's parser wants another one."""


class FlatcError(ExportGateError, RuntimeError):
    """The compiler of flatbuffers is not there."""


def decompile(flatbuffer: bytes, schema: str) -> dict[str, Any]:
    """Return a flatbuffer as plain values, by flatc: the only tool that knows both schemas.

    Args:
        flatbuffer: Its bytes.
        schema: ``program.fbs`` or ``schema.fbs``.

    Raises:
        ValueError: flatc does not read it.
        FlatcError: ExecuTorch, which ships flatc, is not installed.
    """
    flatc, schemas = _flatc_and_schemas()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "input.bin"
        source.write_bytes(flatbuffer)
        options = ["--json", "--strict-json", "--defaults-json", "--raw-binary", "-o", folder]
        try:
            done = subprocess.run(
                [flatc, *options, schemas[schema], "--", source],
                capture_output=True,
                timeout=_FLATC_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"flatc did not finish within {_FLATC_TIMEOUT_S:.0f} s"
            raise ValueError(msg) from error
        result = source.with_suffix(".json")
        if done.returncode != 0 or not result.is_file():
            said = (done.stdout + done.stderr).decode(errors="replace").strip()
            msg = (
                f"flatc cannot read its tables (exit status {done.returncode}){said and ': '}{said}"
            )
            raise ValueError(msg)
        if result.stat().st_size > _LARGEST_JSON_BYTES:
            msg = f"its tables take {result.stat().st_size} bytes as text"
            raise ValueError(msg)
        parsed = json.loads(_BARE_NUMBER.sub(_spelled_out, result.read_bytes()))
    if not isinstance(parsed, dict):
        msg = f"flatc wrote {type(parsed).__name__}, should be a table"
        raise TypeError(msg)
    return parsed


def unsigned(data: bytes, offset: int, size: int) -> int:
    """Return a little-endian number without a sign."""
    return int.from_bytes(cut(data, offset, size, "header"), "little")


def cut(data: bytes, offset: int, size: int, what: str) -> bytes:
    """Return ``size`` bytes from ``offset``.

    Raises:
        ValueError: They end beyond the data.
    """
    if offset + size > len(data):
        msg = f"{what} ends at byte {offset + size} of {len(data)}: cut off"
        raise ValueError(msg)
    return data[offset : offset + size]


def _flatc_and_schemas() -> tuple[Path, dict[str, Path]]:
    """Find the compiler and the schemas of the installed ExecuTorch, without importing it."""
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        msg = "executorch is not installed, so its file format cannot be read; install the project"
        raise FlatcError(msg)
    root = Path(next(iter(spec.submodule_search_locations)))
    schemas = {
        "program.fbs": root / "exir" / "_serialize" / "program.fbs",
        "schema.fbs": root / "backends" / "xnnpack" / "serialization" / "schema.fbs",
    }
    return root / "data" / "bin" / "flatc", schemas


def _spelled_out(match: re.Match[bytes]) -> bytes:
    return {b"inf": b"Infinity", b"nan": b"NaN"}[match[1]]
