"""Run a command for as long as its owner lives: a program of its own, with Python's library alone.

``python guard.py COMMAND…`` puts the path of a new folder where the command says ``{folder}``, and
lets it write nowhere else. When standard input ends, because its owner closed it or died however
suddenly, or when the command ends, it kills whatever the command has started and removes the
folder. Before it ends it prints how the command did.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_PATIENCE_S = 10.0
_PLACES = ("TMPDIR", "HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


def main(command: list[str]) -> int:
    """Guard a command; see the module."""
    # What a dying browser leaves behind becomes a child of this process, which can find it.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    folder = tempfile.mkdtemp(prefix="exportgate-browser-")
    try:
        process = subprocess.Popen(
            [part.replace("{folder}", folder) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            env={**os.environ, **dict.fromkeys(_PLACES, folder)},
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
        ended = os.pidfd_open(process.pid)
        select.select([sys.stdin, ended], [], [])
        code = process.poll()
        _kill_all(process.pid)
        if code is not None:
            print(signal.Signals(-code).name if code < 0 else f"exit status {code}", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _kill_all(group: int) -> None:
    """Kill the command's group, then whoever was orphaned to this process, until nobody is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        for child in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def _children() -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces; behind it stand state and parent.
            parent = stat.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid():
                found.append(int(stat.parent.name))
    return found


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
