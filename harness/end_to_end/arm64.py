"""The C++ client on emulated arm64 cores: instructions from swipe to word, exactly.

Emulation shows no milliseconds and no memory, and a swipe takes seconds: few are run.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.devices.qemu.arm64 import Arm64
from harness.devices.qemu.build import EMULATOR, folder, missing
from harness.devices.qemu.cores import core
from harness.end_to_end.cpp import MAIN
from harness.end_to_end.process import ClientProcess
from harness.end_to_end.unit import NotThereError, UnitError, source_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exportgate.data.manifest import Swipe
    from harness.end_to_end.unit import Pair
    from harness.measure.environment import Environment

SWIPES = 4
CORE = "cortex-a76"
_COMPILER = "aarch64-linux-gnu-g++"
_COUNTED = re.compile(r"^EXACT instructions=(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counted:
    """Instructions of each swipe, and the words that it became.

    Attributes:
        instructions: Of the second run of each: the first allocates.
        words: Best first.
    """

    instructions: tuple[int, ...]
    words: tuple[tuple[str, ...], ...]


def count(pair: Pair, swipes: Sequence[Swipe], core_name: str = CORE) -> Counted:
    """Count what the client executes for each swipe.

    Raises:
        NotThereError: The emulated runtime is not installed, or there is no compiler.
        UnitError: The client does not compile, refuses the files or fails.
    """
    program, home, cpu = built(), folder(), core(core_name)
    command = [shutil.which(EMULATOR) or EMULATOR, "-L", str(home / "roots" / cpu.name)]
    command += ["-cpu", cpu.cpu, "-plugin", str(home / "libcount.so"), str(program)]
    # An empty environment: where variables lie on the stack would move what is counted.
    client = ClientProcess([*command, str(pair.bundle.resolve()), pair.encoder, pair.step], {})
    client.add(swipes)
    words = tuple(client.words(number) for number in range(len(swipes)))
    for number in range(len(swipes)):
        client.ask(f"count {number}")
    found = tuple(map(int, _COUNTED.findall(client.said())))
    if len(found) != len(swipes) or min(found, default=0) <= 0:
        msg = f"{pair.encoder}: the plugin counted {found}, but should count {len(swipes)} swipes"
        raise UnitError(msg)
    return Counted(found, words)


def described(core_name: str = CORE) -> Environment:
    """Describe the emulated core.

    Raises:
        NotThereError: The emulated runtime is not installed.
    """
    if reason := missing():
        raise NotThereError(reason)
    return Arm64(core(core_name)).environment()


def built() -> Path:
    """Cross-compile the client against the arm64 wheel; return the program.

    Raises:
        NotThereError: The emulated runtime is not installed.
        UnitError: It does not compile.
    """
    if reason := missing():
        raise NotThereError(reason)
    sources, torch = source_folder("android"), find_spec("torch")
    if torch is None or torch.origin is None:
        msg = "torch is not installed; its headers are needed"
        raise NotThereError(msg)
    digest = hashlib.sha256()
    for path in [MAIN, *sorted(sources.rglob("*.hpp"))]:
        digest.update(path.name.encode() + path.read_bytes())
    program = folder() / f"run_client-{digest.hexdigest()[:12]}"
    if program.is_file():
        return program
    wheel = folder() / "executorch" / "executorch"
    (library,) = (wheel / "extension" / "pybindings").glob("_portable_lib.*.so")
    draft = program.with_suffix(".part")
    command = [_COMPILER, "-O2", "-std=c++17", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command += ["-DET_LOG_ENABLED=0", f"-I{sources / 'src'}", f"-I{sources / 'support'}"]
    command += [f"-isystem{wheel / 'include'}", f"-idirafter{Path(torch.origin).parent}/include"]
    command += [f"-isystem{wheel / 'include/executorch/runtime/core/portable_type/c10'}"]
    command += [str(MAIN), f"-L{library.parent}", f"-l:{library.name}"]
    command += ["-Wl,--allow-shlib-undefined", f"-Wl,-rpath,{library.parent}", "-o", str(draft)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr.strip())
        msg = f"the C++ client does not compile for arm64: {said[:300]}"
        raise UnitError(msg)
    draft.rename(program)
    return program
