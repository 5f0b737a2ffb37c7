"""Import ExecuTorch's runtime without its compiler, which takes two and a half seconds.

``executorch.runtime`` takes one class of warnings from ``executorch.exir``. To import it is to
import that package, and with it torch._dynamo, torch._inductor and torchao, in each process that
only runs a file. Here the package is an empty one of the same folder for as long as the runtime is
imported, and gone again afterwards: who lowers programs imports the real one.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

RUNTIME = "executorch.runtime"
_COMPILER = "executorch.exir"


def import_runtime() -> ModuleType:
    """Return ``executorch.runtime``.

    Raises:
        ImportError: It is not installed, or does not load.
    """
    if RUNTIME in sys.modules or _COMPILER in sys.modules:
        return importlib.import_module(RUNTIME)
    found = importlib.util.find_spec(_COMPILER)
    if found is None or found.submodule_search_locations is None:
        return importlib.import_module(RUNTIME)
    bare = ModuleType(_COMPILER)
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules[_COMPILER] = bare
    try:
        return importlib.import_module(RUNTIME)
    except (ImportError, AttributeError):  # another version takes more from it
        _forget(_COMPILER)
        return importlib.import_module(RUNTIME)
    finally:
        if sys.modules.get(_COMPILER) is bare:
            _forget(_COMPILER)


def _forget(package: str) -> None:
    for name in [*sys.modules]:
        if name == package or name.startswith(f"{package}."):
            del sys.modules[name]
