"""The C++ client (``clients/android``), compiled for this machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exportgate import resources
from harness.end_to_end.process import ClientProcess
from harness.end_to_end.unit import NotThereError, UnitError, keep_on_one_core, source_folder
from harness.measure.environment import environment

if TYPE_CHECKING:
    from harness.end_to_end.unit import Pair
    from harness.measure.environment import Environment

MAIN = Path(__file__).with_name("native") / "run_client.cpp"
HOW = "run: make setup-clients"


@dataclass(frozen=True, slots=True)
class Cpp:
    """See ``unit.Place``.

    Attributes:
        slower: Share of each run's processor time that is burnt beside it, to try what sees it.
    """

    name: str = "cpp"
    format: str = "pte"
    slower: float = 0.0

    def environment(self) -> Environment:
        """Describe this machine."""
        return environment()

    def start(self, pair: Pair) -> ClientProcess:
        """Start the client on one core."""
        files = [str(pair.bundle.resolve()), pair.encoder, pair.step]
        client = ClientProcess([str(built()), *files], None)
        keep_on_one_core(client.pid)
        if self.slower:
            client.ask(f"slower {self.slower}")
        return client


def built() -> Path:
    """Compile the client where it is older than its sources; return the program.

    Raises:
        NotThereError: There are no sources, or no compiler.
        UnitError: It does not compile.
    """
    sources = source_folder("android")
    for tool in ("make", "g++"):
        if shutil.which(tool) is None:
            msg = f"{tool} is not installed; {HOW}"
            raise NotThereError(msg)
    program = resources.build_folder() / "end_to_end" / "run_client"
    program.parent.mkdir(parents=True, exist_ok=True)
    command = ["make", "--silent", "-C", str(sources), f"MAIN={MAIN}", f"OUT={program}"]
    done = subprocess.run(
        [*command, f"PYTHON={sys.executable}"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr.strip())
        msg = f"the C++ client does not compile: {said[:300]}"
        raise UnitError(msg)
    return program
