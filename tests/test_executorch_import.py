"""The runtime comes without its compiler, and does not stand in the compiler's way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIGHT = """
import sys
from exportgate.runtime.executorch_import import import_runtime
runtime = import_runtime()
assert runtime.Runtime.get().backend_registry.is_available("XnnpackBackend")
assert not [name for name in sys.modules if name.startswith(("executorch.exir", "torch._dynamo"))]
import executorch.exir
from executorch.exir import to_edge_transform_and_lower
assert import_runtime() is runtime
print(executorch.exir.__file__)
"""
NEEDS_MORE = """
import sys
from exportgate.runtime.executorch_import import import_runtime
assert import_runtime().needed == 1
print(sys.modules["executorch.exir"].__file__)
"""


def said_by(program: str, *folders: Path) -> str:
    """Return what a program prints that finds packages in these folders first."""
    paths = {"PYTHONPATH": os.pathsep.join(map(str, (*folders, ROOT)))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_runtime_comes_alone_and_the_compiler_can_follow() -> None:
    assert said_by(LIGHT).endswith("exir/__init__.py")


def test_a_runtime_that_takes_more_from_its_compiler_gets_it(tmp_path: Path) -> None:
    """Another version's, in packages of its name."""
    texts = {"": "", "exir": "needed = 1\n", "runtime": "from executorch.exir import needed\n"}
    for name, text in texts.items():
        folder = tmp_path / "executorch" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(text)
    assert said_by(NEEDS_MORE, tmp_path) == str(tmp_path / "executorch" / "exir" / "__init__.py")
