"""ONNX files whose weights lie in other files: taken in, so that one file is hashed and counted."""

from __future__ import annotations

import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from exportgate.reading import check_regular, reason
from harness.third_party.folder import ThirdPartyError, check_no_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_PROTOBUF = 2**31 - 1
_MOST_SHARED = 4  # tied weights are one tensor twice
_COUNT = re.compile(r"[0-9]{1,18}")


@contextmanager
def in_one_file(path: Path) -> Iterator[Path]:
    """Yield a path of the whole model: the file's own, or that of a copy with its weights inside.

    Raises:
        ThirdPartyError: It is no ONNX file, a file of weights is missing or lies elsewhere, or all
            together are too large for one file.
    """
    check_no_pointer(path)
    payload = whole_model(path)
    if payload is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / path.name
        whole.write_bytes(payload)
        yield whole


def whole_model(path: Path) -> bytes | None:
    """Return an ONNX model with its weights inside; None if the file is whole already.

    Raises:
        ThirdPartyError: See ``in_one_file``.
    """
    if path.suffix != ".onnx":
        return None
    import onnx  # noqa: PLC0415 - only who judges such files pays for it
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - as above

    try:
        check_regular(path)
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError) as error:
        msg = f"{path}: no ONNX file, or a damaged one ({reason(error)}); copy or export it again"
        raise ThirdPartyError(msg) from error
    files = _check_files(path, model)
    if not files:
        return None
    beside = sum(file.stat().st_size for file in files)
    size = path.stat().st_size + beside
    if size > _LARGEST_PROTOBUF:
        msg = f"{path}: {size / 2**30:.1f} GiB with its weights; more than 2 GiB cannot be judged"
        raise ThirdPartyError(msg)
    places = [(tensor, _place(path, tensor)) for tensor in _tensors(model)]
    if sum(place.length for _, place in places) > _MOST_SHARED * beside:
        msg = (
            f"{path}: takes its weights from the same bytes more than {_MOST_SHARED} times, "
            "which no exporter does; export it again"
        )
        raise ThirdPartyError(msg)
    for tensor, place in places:
        _take_in(tensor, place)
    return bytes(model.SerializeToString(deterministic=True))


def _tensors(message: Any) -> list[Any]:  # noqa: ANN401 - protobuf has no types here
    """Return every tensor whose values lie elsewhere, wherever it stands.

    onnx's own walk leaves out sparse tensors, training graphs and more, which runtimes read.
    """
    from onnx import TensorProto  # noqa: PLC0415 - as above

    if isinstance(message, TensorProto):
        elsewhere = message.data_location == TensorProto.EXTERNAL or message.external_data
        return [message] if elsewhere else []
    found = []
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else value
            found += [tensor for part in parts for tensor in _tensors(part)]
    return found


def _check_files(path: Path, model: Any) -> set[Path]:  # noqa: ANN401 - as above
    """Return the files of weights that a model names, each checked."""
    files = {_located(path, _entry(tensor, "location")) for tensor in _tensors(model)}
    for file in files:
        check_no_pointer(file)
    return files


def _located(path: Path, location: str) -> Path:
    """Return where a file of weights is; a model may name files beside it and no others.

    A link is followed within the folder, or to where the model itself is linked to: download
    caches keep both in one place.
    """
    named = PurePosixPath(location)
    file = path.parent / location
    if not location or named.is_absolute() or ".." in named.parts:
        msg = f"{path}: its weights are in {location!r}; only files beside the model are read"
        raise ThirdPartyError(msg)
    if not file.is_file():
        msg = f"{path}: its weights are in {location}, which is not there; copy it beside the model"
        raise ThirdPartyError(msg)
    if file.stat().st_nlink > 1:  # as onnx itself: it may be any file of the machine
        msg = f"{file}: has a second name elsewhere (a hard link); give a copy of it (cp)"
        raise ThirdPartyError(msg)
    real = file.resolve()
    if not any(real.is_relative_to(top) for top in (path.parent.resolve(), path.resolve().parent)):
        msg = f"{file}: a link to {real}, out of the folder; copy the file itself (cp -L)"
        raise ThirdPartyError(msg)
    return real


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor's values lie, inside of the file."""

    file: Path
    offset: int
    length: int


def _place(path: Path, tensor: Any) -> _Place:  # noqa: ANN401 - as above
    file = _located(path, _entry(tensor, "location"))
    size = file.stat().st_size
    offset = _count(path, tensor, "offset", 0)
    length = _count(path, tensor, "length", max(size - offset, 0))
    if offset + length > size:
        msg = f"{file}: ends before the weights of {tensor.name!r}; it is cut off, copy it again"
        raise ThirdPartyError(msg)
    return _Place(file, offset, length)


def _count(path: Path, tensor: Any, key: str, default: int) -> int:  # noqa: ANN401 - as above
    text = _entry(tensor, key)
    if not text:
        return default
    if not _COUNT.fullmatch(text):
        msg = (
            f"{path}: the {key} of {tensor.name!r} is {text!r:.60}, but should be a number of "
            "bytes; export it again"
        )
        raise ThirdPartyError(msg)
    return int(text)


def _take_in(tensor: Any, place: _Place) -> None:  # noqa: ANN401 - as above
    from onnx import TensorProto  # noqa: PLC0415 - as above

    with place.file.open("rb") as data:
        data.seek(place.offset)
        tensor.raw_data = data.read(place.length)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _entry(tensor: Any, key: str) -> str:  # noqa: ANN401 - as above
    return next((str(entry.value) for entry in tensor.external_data if entry.key == key), "")
