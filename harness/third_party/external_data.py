"""ONNX files whose weights lie in other files: taken in, so that one file is hashed and counted."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from harness.third_party.folder import ThirdPartyError, check_no_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_PROTOBUF = 2**31 - 1


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
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        msg = f"{path}: no ONNX file, or a damaged one ({error}); copy or export it again"
        raise ThirdPartyError(msg) from error
    files = _check_files(path, model)
    if not files:
        return None
    size = path.stat().st_size + sum(file.stat().st_size for file in files)
    if size > _LARGEST_PROTOBUF:
        msg = f"{path}: {size / 2**30:.1f} GiB with its weights; more than 2 GiB cannot be judged"
        raise ThirdPartyError(msg)
    for tensor in _tensors(model):
        _take_in(path, tensor)
    return bytes(model.SerializeToString(deterministic=True))


def _tensors(model: Any) -> list[Any]:  # noqa: ANN401 - protobuf has no types here
    from onnx import external_data_helper as helper  # noqa: PLC0415 - as above

    # The one walk over initialisers, attributes and subgraphs that onnx itself uses.
    found = helper._get_all_tensors(model)  # noqa: SLF001
    return [tensor for tensor in found if helper.uses_external_data(tensor)]


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
    real = file.resolve()
    if not any(real.is_relative_to(top) for top in (path.parent.resolve(), path.resolve().parent)):
        msg = f"{file}: a link to {real}, out of the folder; copy the file itself (cp -L)"
        raise ThirdPartyError(msg)
    return real


def _take_in(path: Path, tensor: Any) -> None:  # noqa: ANN401 - as above
    from onnx import TensorProto  # noqa: PLC0415 - as above

    file = _located(path, _entry(tensor, "location"))
    offset = int(_entry(tensor, "offset") or 0)
    with file.open("rb") as data:
        data.seek(offset)
        length = _entry(tensor, "length")
        tensor.raw_data = data.read(int(length)) if length else data.read()
    if length and len(tensor.raw_data) != int(length):
        msg = f"{file}: ends before the weights of {tensor.name!r}; it is cut off, copy it again"
        raise ThirdPartyError(msg)
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _entry(tensor: Any, key: str) -> str:  # noqa: ANN401 - as above
    return next((str(entry.value) for entry in tensor.external_data if entry.key == key), "")
