"""Commands as they can be pasted where they are printed."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

_MODULES = {"exportgate": "harness.console", "pytest": "pytest"}


def pasted(program: str, *words: str) -> str:
    """Return a command line that runs a script of this environment from the current folder.

    Args:
        program: ``exportgate`` or ``pytest``.
        words: Its arguments.

    Returns:
        By its bare name only where that is the script of this environment: another pytest on the
        path has no exportgate.
    """
    script = Path(sys.executable).with_name(program)
    found = shutil.which(program)
    if found and (not script.is_file() or Path(found).samefile(script)):
        start = [program]
    elif script.is_file():
        near = os.path.relpath(script)
        start = [str(script) if near.startswith("..") else near]
    else:
        start = [sys.executable, "-m", _MODULES[program]]
    return shlex.join([*start, *words])
