"""An ``adb`` for tests: the phone is a folder, and its faults are files in it.

``FAKE_PHONE`` names the folder. ``devices`` in it lists the phones; ``slow``, ``full``, ``gone``
and ``truncates`` are its faults, if they are there; ``celsius`` is its temperature in tenths. Paths
below ``/data/local/tmp`` are below ``storage``. A pushed program runs here.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

HOME = Path(os.environ["FAKE_PHONE"])
STORAGE = "/data/local/tmp"
PROPERTIES = {
    "ro.product.model": "Fake 7", "ro.soc.model": "FK7", "ro.build.version.release": "14",
}  # fmt: skip
CPUINFO = "processor : 0\nFeatures : fp asimd asimddp\nprocessor : 1\n"


def has(fault: str) -> bool:
    return (HOME / fault).exists()


def refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def push(source: str, target: str) -> int:
    if has("full"):
        return refuse("adb: error: failed to copy: remote No space left on device")
    path = Path(target.replace(STORAGE, str(HOME / "storage")))
    data = Path(source).read_bytes()
    path.write_bytes(data[: len(data) // 2] if has("truncates") else data)
    return 0


def shell(line: str) -> int:
    words = line.split()
    if words[0] == "getprop":
        print(PROPERTIES.get(words[1], ""))
        return 0
    if words == ["dumpsys", "battery"]:
        celsius = HOME / "celsius"
        print(f"  temperature: {celsius.read_text()}" if celsius.exists() else "  level: 80")
        return 0
    if words == ["cat", "/proc/cpuinfo"]:
        print(CPUINFO, end="")
        return 0
    here = line.replace(STORAGE, str(HOME / "storage"))
    # In the place of this process, whose pipes end with it: as those of a cable do.
    return os.execv("/bin/sh", ["sh", "-c", here])  # noqa: S606 - the shell is the point


def main(words: list[str]) -> int:
    with (HOME / "log").open("a", encoding="utf-8") as log:
        log.write(" ".join(words) + "\n")
    if has("slow"):
        time.sleep(60)
    if words == ["devices"]:
        print("List of devices attached")
        print((HOME / "devices").read_text(), end="")
        return 0
    if words[0] == "-s":
        words = words[2:]
    if has("gone"):
        return refuse("adb: device 'FAKE0001' not found")
    if words[0] == "push":
        return push(*words[1:])
    return shell(words[-1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
