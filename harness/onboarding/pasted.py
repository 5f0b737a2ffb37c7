"""Commands as they can be pasted where they are printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def pasted(*words: str) -> str:
    """Return a command of the console, by whatever name it has here."""
    script = Path(sys.executable).with_name("exportgate")
    if shutil.which("exportgate"):
        start = ["exportgate"]
    elif script.is_file():
        start = [str(script)]
    else:
        start = [sys.executable, "-m", "harness.console"]
    return shlex.join([*start, *words])
