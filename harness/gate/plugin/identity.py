"""Which gate judged, and when: version, commit and time, for reports and signed verdicts."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from exportgate import resources


def gate_identity() -> dict[str, str]:
    """Return ``version``, ``commit`` and ``finished_utc`` (ISO 8601, whole seconds)."""
    return {
        "version": _version(),
        "commit": _commit(),
        "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version() -> str:
    try:
        return version("exportgate")
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Return the checkout's commit, marked ``-dirty`` if files of it were changed since."""
    if resources.installed():
        return "installed package"
    git = shutil.which("git")
    if git is None or not (resources.CHECKOUT / ".git").exists():
        return "not a git checkout"
    command = [git, "-C", str(resources.CHECKOUT), "describe", "--always", "--dirty"]
    command += ["--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"
