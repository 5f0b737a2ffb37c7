"""Instructions per inference, counted under QEMU's user-mode emulation: a cost without noise.

The guest is this machine's own Python with the file's runtime under ``qemu-x86_64``; the plugin
``count.c`` counts what it executes between markers. The first inference allocates and is dropped.
``Guest`` is the seam for other processors: an arm64 guest is another row with its emulator, its
processor and the command that runs a file there.

With ``PYTHONHASHSEED=0`` and one thread each process counts the same, to the instruction, on both
runtimes; inferences of one process differ by what Python does around a call: 0.01 % of an encoder,
0.5 % of a step. So counts can gate at 1 % on any machine, however busy.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from exportgate import resources
from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exportgate.runtime.session import Arrays

SOURCE = Path(__file__).with_name("count.c")
PLUGIN = resources.build_folder() / "exact" / "libcount.so"
HOW_TO_INSTALL = "install it with: make setup-exact (apt-get install qemu-user gcc, then a build)"
TIMEOUT_S = 900.0
INFERENCES = 4
COUNTED = (".onnx", ".pte")
_PRODUCTS = {"dot": 16, "matrix": 32, "widening": 8}
"""Products of an instruction, by its class: of two vectors of 128 bits, or of halves of them."""
_LINE = re.compile(r"^EXACT (\d+) (\d+)$", re.MULTILINE)


class ExactError(ExportGateError, RuntimeError):
    """Counting failed."""


class NotInstalledError(ExactError):
    """The emulator or its plugin is not there: nothing was measured."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A processor to emulate.

    Attributes:
        name: For reports.
        emulator: QEMU's user-mode program.
        cpu: Its processor; ``max`` offers the kernels all that QEMU knows, which leaves out
            AVX-512 and VNNI: counts are compared with counts of the same guest only.
        python: Interpreter inside the guest.
    """

    name: str
    emulator: str
    cpu: str
    python: str


X86_64 = Guest("qemu-x86_64", "qemu-x86_64", "max", sys.executable)


@dataclass(frozen=True, slots=True)
class Count:
    """Instructions of each inference after the first, and the guest that executed them.

    Attributes:
        guest: Who executed them.
        each: Of each inference.
        classes: Of the last inference, those that multiply vectors, by class.
        integers: The classes that multiply 8-bit integers best on the guest; none if its
            instructions are not told apart.
    """

    guest: str
    each: tuple[int, ...]
    classes: Mapping[str, int] = field(default_factory=dict)
    integers: tuple[str, ...] = ()

    @property
    def instructions(self) -> int:
        """The median: a call in which Python did something else is left out."""
        return int(median(self.each))

    @property
    def integer_kernel_share(self) -> float:
        """Share of the products of 8-bit integers that ran in the best instructions for them."""
        products = {name: self.classes.get(name, 0) * per for name, per in _PRODUCTS.items()}
        best = sum(products[name] for name in self.integers)
        return best / max(sum(products.values()), 1)

    @property
    def spread(self) -> float:
        """Largest difference between two inferences ÷ the median."""
        return (max(self.each) - min(self.each)) / self.instructions


def build(plugin: Path = PLUGIN) -> Path:
    """Compile the plugin.

    Raises:
        NotInstalledError: There is no C compiler.
        ExactError: It does not compile.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        msg = f"no C compiler; {HOW_TO_INSTALL}"
        raise NotInstalledError(msg)
    plugin.parent.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    command += ["-fvisibility=hidden", "-o", str(plugin), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        msg = f"{SOURCE.name} does not compile: {done.stderr.strip()[:400]}"
        raise ExactError(msg)
    return plugin


def missing(guest: Guest, plugin: Path = PLUGIN) -> str:
    """Return what a guest's instructions cannot be counted for here; empty if they can."""
    if shutil.which(guest.emulator) is None:
        return f"{guest.emulator} is not installed; {HOW_TO_INSTALL}"
    return "" if plugin.is_file() else f"{plugin.name} is not built; {HOW_TO_INSTALL}"


def count(
    path: Path,
    inputs: Arrays,
    guest: Guest = X86_64,
    *,
    plugin: Path = PLUGIN,
    inferences: int = INFERENCES,
) -> Count:
    """Count the instructions of an inference.

    Args:
        path: An ONNX file or a program for ExecuTorch.
        inputs: Of one inference, in the contract's order; emulation is hundreds of times slower,
            so keep the swipe short.
        guest: Processor to emulate.
        plugin: What ``build`` made.
        inferences: Run in all; the first does not count.

    Raises:
        NotInstalledError: Emulator or plugin are not there, or no guest runs this kind of file.
        ExactError: The guest failed, or its count makes no sense.
    """
    if path.suffix not in COUNTED:
        msg = f"{path}: no emulated guest runs {path.suffix}, only {' and '.join(COUNTED)}"
        raise NotInstalledError(msg)
    absent = missing(guest, plugin)
    if absent:
        raise NotInstalledError(absent)
    with tempfile.TemporaryDirectory() as folder:
        feeds = Path(folder) / "inputs.npz"
        np.savez(feeds, allow_pickle=False, **inputs)
        command = [guest.emulator, "-cpu", guest.cpu, "-plugin", str(plugin), "-d", "plugin"]
        command += [guest.python, "-m", "harness.measure.instructions.guest", str(path.resolve())]
        text = _run([*command, str(feeds), str(inferences)])
    found = {int(marker): int(number) for marker, number in _LINE.findall(text)}
    if sorted(found) != list(range(inferences + 1)) or min(found.values()) <= 0:
        msg = f"{path}: the plugin reported {found}, but should report {inferences + 1} markers"
        raise ExactError(msg)
    return Count(guest.name, tuple(found[number] for number in range(2, inferences + 1)))


def _run(command: list[str]) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            cwd=resources.CHECKOUT,  # whatever Python the guest is, it finds our packages there
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"the emulated run took longer than {TIMEOUT_S:g} s"
        raise ExactError(msg) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        msg = f"the emulated run failed with status {done.returncode}: {last[:300]}"
        raise ExactError(msg)
    return done.stderr
