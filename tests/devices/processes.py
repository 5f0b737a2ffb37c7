"""What a device may have left behind: processes and folders."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 20.0


def eventually(holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.05)
    return False


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let what a test starts write temporary files nowhere else; a socket's path must be short."""
    with tempfile.TemporaryDirectory(prefix="place-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def left(place: Path) -> list[Path]:
    """Return the devices' folders that are still there."""
    return list(place.glob("exportgate-*"))
