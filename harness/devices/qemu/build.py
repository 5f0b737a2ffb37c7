"""``make setup-arm64``: fetch the arm64 runtimes and build what runs files under emulation.

Everything goes to a folder of the user's cache. Wheels come from PyPI and are held against the
checksums below; emulator and compilers are the system's (Debian: ``qemu-user``,
``g++-aarch64-linux-gnu``, ``gcc``). Done again, it does nothing while nothing has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from exportgate.errors import ExportGateError
from harness.devices.qemu.cores import CORES
from harness.devices.qemu.shim import pool_source, provided, stub_source

NATIVE = Path(__file__).with_name("native")
HOW = "run: make setup-arm64"
PACKAGES = "qemu-user gcc gcc-aarch64-linux-gnu g++-aarch64-linux-gnu"
LIBC = Path("/usr/aarch64-linux-gnu/lib")
WHEELS = {
    "executorch": ("1.4.1", "700cb8b959109e72b5ce3f2edf6643a7db9df4a82b5778cd84861c1acbe32a9c"),
    "onnxruntime": ("1.31.1", "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3"),
}
"""Version and SHA-256 of each arm64 wheel: the versions that make and check the files here."""
EMULATOR, _GCC, _GXX = "qemu-aarch64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"
_WARNINGS = ("-Wall", "-Wextra", "-Werror")


class SetupError(ExportGateError, RuntimeError):
    """The emulated runtimes could not be fetched or built."""


def folder() -> Path:
    """Return the cache's folder; what is in it can be deleted at any time."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "exportgate" / "arm64"


def missing() -> str:
    """Say what is not there, in one line; empty if files can be run."""
    for tool in (EMULATOR, "cc", _GCC, _GXX):
        if shutil.which(tool) is None:
            return f"{tool} is not installed; {HOW}"
    stamp = folder() / "built.json"
    if not stamp.is_file():
        return f"the arm64 runtimes are not installed; {HOW}"
    if json.loads(stamp.read_text(encoding="utf-8")).get("digest") != digest():
        return f"the arm64 runtimes were built from other sources or versions; {HOW}"
    return ""


def digest() -> str:
    """Return the hash of all that the build is made from, but for the system's packages."""
    found = hashlib.sha256(repr((WHEELS, CORES)).encode())
    for path in sorted([*NATIVE.iterdir(), *Path(__file__).parent.glob("*.py")]):
        if path.name in {"shim.py", "build.py"} or path.parent == NATIVE:
            found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def build() -> Path:
    """Fetch and build everything that is not there yet; return the folder.

    Raises:
        SetupError: A tool, a wheel or a compilation fails.
    """
    home = folder()
    if not missing():
        return home
    for tool in (EMULATOR, "cc", _GCC, _GXX):
        if shutil.which(tool) is None:
            msg = f"{tool} is not installed; on Debian: apt-get install {PACKAGES}"
            raise SetupError(msg)
    for name, (wanted, _) in WHEELS.items():
        if version(name) != wanted:
            msg = f"{name} {version(name)} is installed here, but WHEELS pins {wanted} for arm64"
            raise SetupError(msg)
    home.mkdir(parents=True, exist_ok=True)
    (home / "built.json").unlink(missing_ok=True)
    for name in WHEELS:
        _unpack(name, home / name)
    _roots(home / "roots")
    _compile_plugin(home)
    _compile_onnx(home)
    _compile_pte(home)
    stamp = {"digest": digest(), "qemu": emulator_version()}
    (home / "built.json").write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    return home


def emulator_version() -> str:
    """Return QEMU's version."""
    words = _run([EMULATOR, "--version"]).split()
    return words[words.index("version") + 1]


def _unpack(name: str, target: Path) -> None:
    """Fetch a wheel, compare its checksum, and unpack it."""
    wanted, checksum = WHEELS[name]
    if (target / f"{name}-{wanted}.dist-info").is_dir():
        return
    print(f"fetch {name} {wanted} for arm64", flush=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        pinned = Path(scratch) / "requirements.txt"
        pinned.write_text(f"{name}=={wanted} --hash=sha256:{checksum}\n", encoding="utf-8")
        platforms = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--only-binary=:all:", "--implementation=cp", "--python-version=311"]
        command += [f"--platform={tag}" for tag in platforms]
        _run([*command, "--require-hashes", "--dest", scratch, "-r", str(pinned)])
        (wheel,) = Path(scratch).glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != checksum:
            msg = f"{wheel.name}: its SHA-256 is not {checksum}"
            raise SetupError(msg)
        shutil.rmtree(target, ignore_errors=True)
        fresh = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        fresh.rename(target)


def _roots(roots: Path) -> None:
    """Write for each core what its machine says of itself; libraries are the cross compiler's."""
    for core in CORES:
        root = roots / core.name
        shutil.rmtree(root, ignore_errors=True)
        (root / "proc").mkdir(parents=True)
        (root / "proc" / "cpuinfo").write_text(core.cpuinfo(), encoding="utf-8")
        system = root / "sys" / "devices" / "system" / "cpu"
        system.mkdir(parents=True)
        for name in ("possible", "present", "online"):
            (system / name).write_text("0\n", encoding="utf-8")
        (root / "lib").symlink_to(LIBC)


def _compile_plugin(home: Path) -> None:
    command = ["cc", "-O2", *_WARNINGS, "-fPIC", "-shared", "-fvisibility=hidden"]
    _run([*command, "-o", str(home / "libcount.so"), str(NATIVE / "count_arm64.c")])


def _compile_onnx(home: Path) -> None:
    wheel = home / "onnxruntime" / "onnxruntime" / "capi"
    library = next(wheel.glob("libonnxruntime.so.*.*"))
    linked = wheel / "libonnxruntime.so.1"  # as it calls itself
    linked.unlink(missing_ok=True)
    linked.symlink_to(library.name)
    command = [_GXX, "-O2", "-std=c++17", *_WARNINGS, str(NATIVE / "run_onnx.cpp")]
    command += [str(library), f"-Wl,-rpath,{wheel}", "-o", str(home / "run_onnx")]
    _run(command)


def _compile_pte(home: Path) -> None:
    wheel = home / "executorch" / "executorch"
    (library,) = (wheel / "extension" / "pybindings").glob("_portable_lib.*.so")
    shim = home / "executorch" / "torch" / "lib"  # where the wheel's library looks for PyTorch's
    shim.mkdir(parents=True, exist_ok=True)
    _compile_shim(library, shim)
    includes = [f"-isystem{wheel / 'include'}", f"-idirafter{_torch_headers()}"]
    includes.append(f"-isystem{wheel / 'include/executorch/runtime/core/portable_type/c10'}")
    # The one call that makes the pool serial is called experimental by a warning.
    command = [_GXX, "-O2", "-std=c++17", *_WARNINGS, "-Wno-deprecated-declarations"]
    command += ["-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command += [*includes, str(NATIVE / "run_pte.cpp"), f"-L{library.parent}"]
    command += [f"-l:{library.name}", "-Wl,--allow-shlib-undefined"]
    _run([*command, f"-Wl,-rpath,{library.parent}", "-o", str(home / "run_pte")])


def _compile_shim(library: Path, shim: Path) -> None:
    """Make libtorch_cpu.so and the empty ones that the wheel's library names beside it."""
    wanted = _symbols(library, "--undefined-only") - _symbols(LIBC / "libstdc++.so.6")
    written = [shim / "cpuinfo.o", shim / "kleidiai.o"]
    cpp = [_GXX, "-O2", "-std=c++17", "-fPIC", *_WARNINGS, "-c"]
    for path in written:
        source = NATIVE / f"{path.stem}.cpp"
        _run([*cpp, f"-idirafter{_torch_headers()}", str(source), "-o", str(path)])
    (shim / "pool.c").write_text(pool_source(wanted), encoding="utf-8")
    there = set().union(*(_symbols(path, dynamic=False) for path in written))
    absent = {name for name in wanted if not provided(name)} - there
    called = absent & _called(library)
    stubs = stub_source(called, absent - called)
    (shim / "stubs.S").write_text(stubs, encoding="utf-8")
    gcc = [_GCC, "-O2", "-fPIC", *_WARNINGS, "-shared"]
    sources = [str(shim / "pool.c"), str(shim / "stubs.S"), *map(str, written)]
    for name in ("libtorch_python", "libtorch", "libc10", "libtorch_cpu"):
        given = [*sources, "-lstdc++"] if name == "libtorch_cpu" else ["-xc", "/dev/null"]
        _run([*gcc, f"-Wl,-soname,{name}.so", "-o", str(shim / f"{name}.so"), *given])


def _torch_headers() -> Path:
    """Return where PyTorch keeps its headers, those of cpuinfo and pthreadpool among them."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        msg = "torch is not installed; its headers are needed"
        raise SetupError(msg)
    return Path(found.origin).parent / "include"


def _symbols(path: Path, which: str = "--defined-only", *, dynamic: bool = True) -> set[str]:
    """Return the names of symbols that a library or object has, or that it wants from PyTorch's."""
    command = ["aarch64-linux-gnu-nm", which, *(["-D"] if dynamic else []), str(path)]
    rows = [line.split() for line in _run(command).splitlines() if line.strip()]
    undefined = which == "--undefined-only"
    # One with a version comes from the C and C++ libraries, a weak one may be absent.
    kept = [row for row in rows if not (undefined and ("@" in row[-1] or row[-2] == "w"))]
    return {row[-1].partition("@")[0] for row in kept}


def _called(library: Path) -> set[str]:
    """Return the symbols that a library calls, as its relocations tell."""
    rows = _run(["aarch64-linux-gnu-readelf", "-rW", str(library)]).splitlines()
    words = [row.split() for row in rows if "R_AARCH64_JUMP_SL" in row]
    return {row[4].partition("@")[0] for row in words if len(row) > 4}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no message"]
        first = next((line for line in said if "error" in line.lower()), said[-1])
        msg = f"{command[0]} failed with status {done.returncode}: {first[:300]}"
        raise SetupError(msg)
    return done.stdout
