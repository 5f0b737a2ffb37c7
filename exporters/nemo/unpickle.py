"""Read what ``torch.save`` wrote without running any code that the file names.

Only tensors and plain containers are built. Every other class that a pickle names (a path of a
callback, a NumPy scalar, an OmegaConf node) becomes a ``Recorded``: its name, arguments and state,
which do nothing. What the project needs of them is then read as data by ``plain``.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from exporters.nemo.archive import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ZIP = b"PK\x03\x04"
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, its storages' keys
_NEWEST_PROTOCOL = 3
_MOST_NESTED = 200
_NUMBER = re.compile(r"[<>|=](b1|[iu][1248]|f[248])")  # of NumPy's type codes

# A checkpoint has no honest use of these. Nothing of them would run, but a file that names them
# is an attack, and to load the rest of it would hide that.
_ACTING = re.compile(
    r"(_pickle|_posixsubprocess|asyncio|code|codeop|commands|ctypes|ftplib|http|importlib|imp"
    r"|marshal|multiprocessing|nt|os|pdb|pickle|pip|posix|pty|runpy|shutil|socket|subprocess|sys"
    r"|telnetlib|timeit|urllib|webbrowser)\..*"
    r"|builtins\.(__import__|breakpoint|compile|eval|exec|execfile|input|open)|_?io\.open"
)


class Recorded:
    """Stands for an object whose class is not loaded.

    Attributes:
        name: The class or function that the pickle names.
        args: What it would have been called with.
        state: What would have been put into it.
    """

    name = "a structure nested too deep"
    args: tuple[object, ...]
    state: object

    def __new__(cls, *args: object, **_named: object) -> Self:
        """Keep the arguments; nothing is called."""
        self = object.__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: object) -> None:
        """Keep the state; nothing is set."""
        self.state = state

    def __repr__(self) -> str:
        return f"<an object of {self.name}>"


class _PlainDict:
    """Stands for subclasses of dict: their items follow, and torch fills only a plain dict."""

    def __new__(cls, *_args: object) -> dict[object, object]:  # type: ignore[misc]
        return {}


class _PlainList:
    """The same for sequences that are filled after they were made."""

    def __new__(cls, *args: object) -> list[object]:  # type: ignore[misc]
        return list(args[0]) if args and isinstance(args[0], (list, tuple)) else []


_CONTAINERS: dict[str, type] = {
    "builtins.dict": _PlainDict,
    "builtins.list": _PlainList,
    "collections.defaultdict": _PlainDict,
    "collections.deque": _PlainList,
    "lightning.fabric.utilities.data.AttributeDict": _PlainDict,
    "lightning_fabric.utilities.data.AttributeDict": _PlainDict,
    "pytorch_lightning.utilities.parsing.AttributeDict": _PlainDict,
}


def load_tensors(path: Path, data: bytes, *, values: bool = True) -> object:
    """Unpickle tensors and containers; other objects become ``Recorded``.

    Args:
        path: Named in errors.
        data: What ``torch.save`` wrote, as a zip or in the form before it.
        values: False leaves the tensors without their values, which is fast.

    Raises:
        CheckpointError: Damaged, or it names a function that acts on the system.
    """
    import torch  # noqa: PLC0415 - a second, which configurations of .nemo files do without

    try:
        allowed = _stand_ins(path, data)
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a protocol that works
            where = "cpu" if values else "meta"
            return torch.load(io.BytesIO(data), map_location=where, weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path, _first_line(error))) from error
    except (
        RuntimeError,
        EOFError,
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        TypeError,
        AssertionError,
        OverflowError,
        struct.error,
    ) as error:
        if isinstance(error, CheckpointError):
            raise
        if "maximum supported version" in str(error):
            msg = (
                f"{path}: written by a newer PyTorch than {torch.__version__}, which cannot read "
                "its format; save it again with this one"
            )
            raise CheckpointError(msg) from error
        msg = (
            f"{path}: the weights are damaged or cut off ({_first_line(error):.200}); "
            "copy or save the file again"
        )
        raise CheckpointError(msg) from error


def _first_line(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it refers to {error}, which it never stored"
    text = str(error).partition("WeightsUnpickler error: ")[2] or str(error)
    for tail in ("Please file an issue", ". This is an internal", "(Could this", "Check the doc"):
        text = text.split(tail)[0]
    lines = text.strip().splitlines()
    marks = ("GLOBAL", "Can only", "Unsupported")
    named = (line for line in lines if any(mark in line for mark in marks))
    return next(named, lines[0] if lines else type(error).__name__).strip()


def _refusal(path: Path, detail: str) -> str:
    return (
        f"{path}: refused to unpickle it, because it would run code or build objects that are not "
        f"tensors ({detail}); nothing was executed; save weights and configuration only"
    )


def _stand_ins(path: Path, data: bytes) -> list[Any]:
    """Return, for every name in the pickles, what torch shall take for it."""
    found: list[Any] = []
    for module, attribute in sorted(_named(path, data)):
        name = f"{module}.{attribute}"
        if _ACTING.fullmatch(name):
            raise CheckpointError(_refusal(path, f"it names {name}"))
        kind = _CONTAINERS.get(name) or type("Recorded", (Recorded,), {"name": name})
        found.append((kind, name))
    return found


def _named(path: Path, data: bytes) -> set[tuple[str, str]]:
    """Return module and name of each global in the pickles, by their names in Python 3."""
    names = set()
    for stream in _pickles(data):
        for operation, argument, _ in pickletools.genops(stream):
            if operation.name == "PROTO" and int(argument or 0) > _NEWEST_PROTOCOL:
                msg = (
                    f"{path}: pickled with protocol {argument}, expected torch.save's own, 2, "
                    "which alone is read without running code; save it again with that"
                )
                raise CheckpointError(msg)
            if operation.name == "GLOBAL":
                module, attribute = str(argument).split(" ", 1)
                key = (module, attribute)
                modern = _compat_pickle.IMPORT_MAPPING.get(module, module)
                names.add(_compat_pickle.NAME_MAPPING.get(key, (modern, attribute)))
    return names


def _pickles(data: bytes) -> Iterator[io.BytesIO]:
    if data.startswith(_ZIP):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _check_members(archive)
            for name in archive.namelist():
                if name.rpartition("/")[2] == "data.pkl":
                    yield io.BytesIO(archive.read(name))
        return
    stream = io.BytesIO(data)
    for _ in range(_LEGACY_PICKLES):
        yield stream


def _check_members(archive: zipfile.ZipFile) -> None:
    """Refuse what torch.save never writes: a name twice, of which readers take either; packing."""
    seen: set[str] = set()
    for info in archive.infolist():
        if info.filename in seen:
            msg = f"{info.filename} is there twice"
            raise ValueError(msg)
        if info.compress_type != zipfile.ZIP_STORED:
            msg = f"{info.filename} is compressed, which torch.save never does"
            raise ValueError(msg)
        seen.add(info.filename)


def plain(value: object) -> object:
    """Return containers and scalars of what was unpickled, OmegaConf's and NumPy's among them.

    What cannot be told stays a ``Recorded``; who needs the value refuses it by name. What is there
    once and referred to twice stays so.
    """
    return _plain(value, {}, 0)


def _plain(value: object, done: dict[int, object], depth: int) -> object:
    if id(value) in done:
        return done[id(value)]
    if depth > _MOST_NESTED:
        return Recorded()  # deeper than any configuration: refused where it is asked for
    done[id(value)] = value  # whoever refers to itself
    found = value
    if isinstance(value, Recorded):
        found = _plain_recorded(value, done, depth)
    elif isinstance(value, dict):
        found = {key: _plain(item, done, depth + 1) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        found = [_plain(item, done, depth + 1) for item in value]
    done[id(value)] = found
    return found


def _plain_recorded(value: Recorded, done: dict[int, object], depth: int) -> object:
    state = state_of(value)
    if value.name.startswith("omegaconf.") and "_content" in state:
        return _plain(state["_content"], done, depth + 1)
    if value.name.startswith("omegaconf.nodes.") and "_val" in state:
        return _plain(state["_val"], done, depth + 1)
    if value.name.startswith("numpy.") and value.name.endswith(".multiarray.scalar"):
        return _numpy_scalar(value)
    return value


def state_of(value: object) -> dict[str, Any]:
    """Return the attributes that a recorded object would have; empty if it has none."""
    state = value.state if isinstance(value, Recorded) else None
    if isinstance(state, tuple) and len(state) == 2:  # attributes and slots
        state = state[0]
    return state if isinstance(state, dict) else {}


def _numpy_scalar(value: Recorded) -> object:
    """Return the Python number of ``numpy.core.multiarray.scalar(dtype, bytes)``."""
    dtype, data = value.args if len(value.args) == 2 else (None, None)
    if not isinstance(dtype, Recorded) or not isinstance(data, bytes):
        return value
    name = dtype.args[0] if dtype.args else None
    state = dtype.state if isinstance(dtype.state, tuple) else (0, "|")
    if not isinstance(name, str) or not _NUMBER.fullmatch(f"{state[1]}{name}"):
        return value
    kind = np.dtype(f"{state[1]}{name}")
    return np.frombuffer(data, kind)[0].item() if len(data) == kind.itemsize else value
