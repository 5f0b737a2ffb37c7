"""Build the runner for phones: ``python -m harness.devices.adb.build``.

It needs Android's NDK (``ANDROID_NDK_HOME``) and ExecuTorch installed for arm64-v8a
(``EXECUTORCH_ANDROID_HOME``: ``include/`` and ``lib/`` of a CMake install with XNNPACK and the
portable kernels), which no package registry carries.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from exportgate import resources
from exportgate.errors import ExportGateError
from exportgate.exit import Exit, end

NDK, EXECUTORCH = "ANDROID_NDK_HOME", "EXECUTORCH_ANDROID_HOME"
API = 26
"""Android 8: the oldest that the compiler is told to support."""
SOURCE = Path(__file__).with_name("native") / "run_phone.cpp"
SHARED = Path(__file__).parents[1] / "qemu" / "native"
"""The runner of the emulated devices, which this one includes."""
_WHOLE = ("libxnnpack_backend.a", "libportable_ops_lib.a", "libquantized_ops_lib.a")
"""Libraries that register themselves when they are loaded: nobody calls them by name."""
_TIMEOUT_S = 600.0


class BuildError(ExportGateError, RuntimeError):
    """The runner for phones cannot be built here."""


def runner() -> Path:
    """Return where the runner is, or is going to be."""
    return resources.build_folder() / "adb" / "run_phone"


def missing() -> str:
    """Return why there is no runner, or an old one; empty if it is there."""
    stamp = runner().with_suffix(".sha256")
    if not runner().is_file():
        return f"the runner for phones is not built: set {NDK} and {EXECUTORCH}, then {HOW}"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != digest():
        return f"the runner for phones was built from other sources; {HOW}"
    return ""


HOW = "python -m harness.devices.adb.build"


def digest() -> str:
    """Return the hash of the sources."""
    found = hashlib.sha256()
    for path in (SOURCE, SHARED / "run_pte.cpp", SHARED / "frames.h"):
        found.update(path.read_bytes() if path.is_file() else b"none")
    return found.hexdigest()


def build() -> Path:
    """Compile the runner.

    Raises:
        BuildError: NDK, ExecuTorch or a source is not there, or it does not compile.
    """
    compiler, home = _compiler(), Path(os.environ.get(EXECUTORCH) or os.devnull)
    if not (home / "lib").is_dir():
        msg = f"{EXECUTORCH} names no ExecuTorch for arm64-v8a (include/ and lib/): {home}"
        raise BuildError(msg)
    runner().parent.mkdir(parents=True, exist_ok=True)
    whole = [str(home / "lib" / name) for name in _WHOLE if (home / "lib" / name).is_file()]
    rest = sorted(str(path) for path in (home / "lib").glob("*.a") if str(path) not in whole)
    command = [str(compiler), "-O2", "-std=c++17", "-static-libstdc++", "-fvisibility=hidden"]
    command += ["-DC10_USING_CUSTOM_GENERATED_MACROS", f"-I{SHARED}", f"-isystem{home / 'include'}"]
    types = home / "include/executorch/runtime/core/portable_type/c10"
    command += [f"-isystem{types}", str(SOURCE), "-Wl,--whole-archive", *whole]
    command += ["-Wl,--no-whole-archive", "-Wl,--start-group", *rest, "-Wl,--end-group", "-llog"]
    done = subprocess.run(
        [*command, "-o", str(runner())],
        capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no message"]
        msg = f"the runner for phones does not compile: {lines[0][:200]}"
        raise BuildError(msg)
    runner().with_suffix(".sha256").write_text(digest(), encoding="utf-8")
    return runner()


def _compiler() -> Path:
    ndk = os.environ.get(NDK)
    if not ndk:
        msg = f"{NDK} is not set: Android's NDK compiles the runner for phones"
        raise BuildError(msg)
    pattern = f"toolchains/llvm/prebuilt/*/bin/aarch64-linux-android{API}-clang++"
    found = sorted(Path(ndk).glob(pattern))
    if not found:
        msg = f"{NDK}={ndk} holds no {pattern}"
        raise BuildError(msg)
    return found[0]


def main() -> int:
    """Build, and say where."""
    print(f"built {build()}")
    return Exit.PASSED


if __name__ == "__main__":
    end(main)
