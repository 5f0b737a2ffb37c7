"""Plain values and arrays as one safetensors file: nothing in it is run when it is read.

The arrays are safetensors' own; how they belong together is JSON in the file's header. Dataclasses
are known by name, and only those that the reader lists are made.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from exportgate.errors import ExportGateError

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

_HEADER = "value"


class PackedError(ExportGateError, ValueError):
    """A file that holds no packed value, or a value that none can hold."""


def pack(value: Any) -> bytes:  # noqa: ANN401 - any plain value
    """Return a file's bytes for a value.

    Args:
        value: Made of None, booleans, numbers, strings, bytes, arrays, tuples, lists, dictionaries
            with strings for keys, and dataclasses.

    Raises:
        PackedError: Something else is in it.
    """
    from safetensors.numpy import save  # noqa: PLC0415 - most commands need none

    arrays: dict[str, NDArray[Any]] = {}
    tree = _tree(value, arrays)
    return save(arrays, metadata={_HEADER: json.dumps(tree)})


def unpack(payload: bytes, types: Collection[type]) -> Any:  # noqa: ANN401 - as above
    """Return the value that was packed.

    Args:
        payload: From ``pack``.
        types: The dataclasses that may be in it.

    Raises:
        PackedError: The bytes are damaged, or hold another dataclass.
    """
    from safetensors import SafetensorError  # noqa: PLC0415 - most commands need none
    from safetensors.numpy import load  # noqa: PLC0415 - as above

    try:
        arrays = load(payload)
        size = int.from_bytes(payload[:8], "little")
        tree = json.loads(json.loads(payload[8 : 8 + size])["__metadata__"][_HEADER])
        return _value(tree, arrays, {kind.__name__: kind for kind in types})
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        msg = f"no packed value ({error}); expected what this version writes: make it again"
        raise PackedError(msg) from error


def _tree(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - a case for each kind
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        return {"array": _put(value, arrays), "fortran": _is_fortran(value)}
    if isinstance(value, bytes):
        return {"bytes": _put(np.frombuffer(value, np.uint8), arrays)}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_tree(item, arrays) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _tree(item, arrays) for key, item in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _tree(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, "fields": fields}
    msg = f"a {type(value).__name__} cannot be packed; expected plain values and arrays"
    raise PackedError(msg)


def _is_fortran(array: NDArray[Any]) -> bool:
    """Tell whether an array lies in memory column by column: sums over it add in that order."""
    return bool(array.flags.f_contiguous and not array.flags.c_contiguous)


def _put(array: NDArray[Any], arrays: dict[str, NDArray[Any]]) -> str:
    name = str(len(arrays))
    arrays[name] = np.asarray(array.T if _is_fortran(array) else array, order="C")
    return name


def _value(tree: Any, arrays: dict[str, NDArray[Any]], types: dict[str, type]) -> Any:  # noqa: ANN401, PLR0911 - as _tree
    if not isinstance(tree, dict):
        return tree
    if "array" in tree:
        array = arrays[tree["array"]]
        return array.T if tree["fortran"] else array
    if "bytes" in tree:
        return arrays[tree["bytes"]].tobytes()
    if "tuple" in tree:
        return tuple(_value(item, arrays, types) for item in tree["tuple"])
    if "list" in tree:
        return [_value(item, arrays, types) for item in tree["list"]]
    if "dict" in tree:
        return {key: _value(item, arrays, types) for key, item in tree["dict"].items()}
    fields = {key: _value(item, arrays, types) for key, item in tree["fields"].items()}
    return types[tree["type"]](**fields)
