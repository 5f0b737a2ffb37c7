"""A device whose temporary files have nowhere to go: a disk of its own, full."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_FILLED = """
mount -t tmpfs -o size=64k full "$TMPDIR" && head -c 200k /dev/zero > "$TMPDIR/filling" 2> /dev/null
exec "$@"
"""
_OPENS = """
import os, sys
from pathlib import Path
from exportgate.errors import ExportGateError
from exportgate.runtime.isolate import Worker
from harness.devices.device import open_on
from harness.devices.registry import device
try:
    with Worker("a worker", timeout_s=100) as worker:
        worker.make(open_on, device(sys.argv[1]), Path(sys.argv[2]))
        print("opened")
except ExportGateError as error:
    print("refused:", error)
# ONNX Runtime writes .ses, wherever it runs.
print(*sorted(set(os.listdir(os.environ["TMPDIR"])) - {".ses"}))
"""


def opened_on_a_full_disk(device: str, file: Path, place: Path) -> tuple[str, str]:
    """Open a file on a device, in a process that sees a full disk where temporary files go.

    Returns:
        What came of it, in a line, and what lies on the disk afterwards.
    """
    apart = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a disk of one's own")
    program = [sys.executable, "-c", _OPENS, device, str(file)]
    done = subprocess.run(
        [*apart, "sh", "-c", _FILLED, "sh", *program],
        env=_with_tmpdir(place), capture_output=True, text=True, check=True, timeout=150,
    )  # fmt: skip
    said, left = done.stdout.splitlines()[-2:]
    return said, left


def _with_tmpdir(place: Path) -> dict[str, str]:
    paths = os.pathsep.join(filter(os.path.isabs, sys.path))
    return {**os.environ, "TMPDIR": str(place), "PYTHONPATH": paths}
