"""The ``adb`` command: each call has a time limit, and what goes wrong is one line."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exportgate.artifacts.sidecar import sha256_of
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ADB = "adb"
ANSWER_S = 15.0
"""Longest wait for a short command; a phone answers in a tenth of a second."""
PUSH_S = 180.0
SERIAL = re.compile(r"[\w.:\[\]-]+")
_STATES = {
    "unauthorized": "does not trust this computer: unlock it and allow USB debugging",
    "offline": "is offline: unplug it and plug it in again",
    "no": "cannot be opened by this user (no permissions): see Android's udev rules",
}


class AdbError(ExportGateError, RuntimeError):
    """adb is missing, or refuses; or the phone does."""


@dataclass(frozen=True, slots=True)
class Phone:
    """A phone by its serial number; an empty one means the only phone there is."""

    serial: str

    def missing(self) -> str:
        """Return why the phone cannot be asked; empty if it can."""
        if shutil.which(ADB) is None:
            return "adb is not installed (Android SDK Platform-Tools), so that no phone is asked"
        try:
            states = connected()
        except AdbError as error:
            return str(error)
        shown = ", ".join(states) or "none"
        if self.serial and self.serial not in states:
            return f"no phone {self.serial} is connected; there are: {shown}"
        if not states:
            return "no phone is connected; plug one in and allow USB debugging"
        if not self.serial and len(states) > 1:
            return f"{len(states)} phones are connected; name one, --device adb:SERIAL: {shown}"
        name = self.serial or next(iter(states))
        state = states[name]
        return "" if state == "device" else f"phone {name} {_STATES.get(state, f'is {state}')}"

    def command(self, *words: str) -> list[str]:
        """Return an adb command to this phone."""
        return [ADB, *(["-s", self.serial] if self.serial else []), *words]

    def shell(self, *words: str, limit_s: float = ANSWER_S) -> str:
        """Run a command on the phone and return what it printed.

        Raises:
            AdbError: It failed, or did not end in time.
        """
        return _run(self.command("shell", "-T", shlex.join(words)), limit_s)

    def push(self, path: Path, there: str) -> None:
        """Carry a file to the phone, and make sure that it has arrived.

        Raises:
            AdbError: The phone is full or gone, or the file has other bytes there.
        """
        _run(self.command("push", str(path), there), PUSH_S)
        found = self.shell("sha256sum", there, limit_s=PUSH_S).split()
        if not found or found[0] != sha256_of(path):
            msg = f"{path.name} did not arrive whole on the phone; is its storage full?"
            raise AdbError(msg)

    def properties(self) -> dict[str, str]:
        """Return what the phone is: model, processor, Android's version, features of the core.

        Raises:
            AdbError: It does not answer.
        """
        keys = {
            "model": "ro.product.model", "soc": "ro.soc.model", "board": "ro.board.platform",
            "android": "ro.build.version.release",
        }  # fmt: skip
        found = {name: self.shell("getprop", key).strip() for name, key in keys.items()}
        lines = self.shell("cat", "/proc/cpuinfo").splitlines()
        rows = [line.partition(":") for line in lines]
        found["features"] = next((v.strip() for k, _, v in rows if k.strip() == "Features"), "")
        found["cores"] = str(sum(k.strip() == "processor" for k, _, _ in rows))
        return found

    def battery_celsius(self) -> float:
        """Return the temperature that every phone tells without root.

        Raises:
            AdbError: It tells none.
        """
        said = self.shell("dumpsys", "battery")
        found = re.search(r"^\s*temperature:\s*(-?\d+)", said, re.MULTILINE)
        if found is None:
            msg = "the phone tells no temperature (dumpsys battery), so that times mean nothing"
            raise AdbError(msg)
        return int(found.group(1)) / 10


def connected() -> dict[str, str]:
    """Return the state of each phone by its serial number.

    Raises:
        AdbError: adb fails, or hangs.
    """
    lines = _run([ADB, "devices"], ANSWER_S).splitlines()
    rows = [line.split() for line in lines if "\t" in line or line.count(" ") > 3]
    return {row[0]: row[1] for row in rows if len(row) > 1 and SERIAL.fullmatch(row[0])}


def _run(command: Sequence[str], limit_s: float) -> str:
    what = " ".join(command[-2:])[:80] if command[-1] != "devices" else "devices"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=limit_s,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        msg = f"adb {what}: no answer in {limit_s:g} s"
        raise AdbError(msg) from error
    except OSError as error:
        msg = f"adb cannot be started: {error}"
        raise AdbError(msg) from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        msg = f"adb {what}: {said[-1][:200] if said else f'exit status {done.returncode}'}"
        raise AdbError(msg)
    return done.stdout.decode(errors="replace")
