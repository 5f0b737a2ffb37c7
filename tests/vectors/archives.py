"""Build checkpoints: .nemo archives and Lightning's .ckpt, member by member and byte by byte."""

from __future__ import annotations

import bz2
import copy
import functools
import gzip
import io
import lzma
import tarfile
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import yaml

from tests.vectors.entries import ROOT
from tests.vectors.pickles import assembled, stored, tensor_program

if TYPE_CHECKING:
    from pathlib import Path

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
_KINDS = {
    "link": tarfile.SYMTYPE, "hardlink": tarfile.LNKTYPE, "device": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE, "block": tarfile.BLKTYPE, "folder": tarfile.DIRTYPE,
    "unknown": b"Z",
}  # fmt: skip
_PACKERS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
Member = tuple[tarfile.TarInfo, bytes]


@functools.cache
def seed() -> tuple[bytes, bytes]:
    """Return configuration and weights of the smallest checkpoint that loads."""
    with tarfile.open(ROOT / "golden" / "zoo" / "tiny-tanh.nemo") as archive:
        found = {info.name.removeprefix("./"): archive.extractfile(info) for info in archive}
        config, weights = (found[name] for name in (CONFIG, WEIGHTS))
        assert config
        assert weights
        return config.read(), weights.read()


def member(name: str, data: bytes) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def nemo(folder: Path, steps: list[list[Any]]) -> Path:
    """Write an archive after the edits; the last of them may pack, cut or patch its bytes."""
    config, weights = seed()
    members = [member(CONFIG, config), member(WEIGHTS, weights)]
    path = folder / "model.nemo"
    data: bytes | None = None
    for name, *arguments in steps:
        if name in _BYTES:
            data = _BYTES[name](packed(members) if data is None else data, *arguments)
        else:
            members = _MEMBERS[name](members, *arguments)
    path.write_bytes(packed(members) if data is None else data)
    return path


def packed(members: list[Member]) -> bytes:
    """Return a tar of members."""
    out = io.BytesIO()
    pax = any(info.pax_headers for info, _ in members)
    form = tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if info.size else None)
    return out.getvalue()


# -- operations on members -------------------------------------------------------------------


def _find(members: list[Member], name: str) -> int:
    return next(place for place, (info, _) in enumerate(members) if info.name == name)


def _repeat(members: list[Member], name: str, new: str | None = None) -> list[Member]:
    info, data = members[_find(members, name)]
    again = copy.copy(info)
    again.name = new or name
    return [*members, (again, data)]


def _rename(members: list[Member], name: str, new: str) -> list[Member]:
    place = _find(members, name)
    info = copy.copy(members[place][0])
    info.name = new
    return [*members[:place], (info, members[place][1]), *members[place + 1 :]]


def _retype(members: list[Member], name: str, kind: str, target: str = "") -> list[Member]:
    place = _find(members, name)
    info = tarfile.TarInfo(name)
    info.type, info.linkname = _KINDS[kind], target
    return [*members[:place], (info, b""), *members[place + 1 :]]


def _add(members: list[Member], name: str, kind: str, target: str = "") -> list[Member]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = _KINDS[kind], target
    return [(info, b""), *members]


def _content(members: list[Member], name: str, data: bytes) -> list[Member]:
    kept = [item for item in members if item[0].name != name]
    return [*kept, member(name, data)]


def _text(members: list[Member], name: str, text: str, times: int = 1) -> list[Member]:
    return _content(members, name, text.encode() * times)


def _without(members: list[Member], name: str) -> list[Member]:
    return [item for item in members if item[0].name != name]


def _set(members: list[Member], place: str, value: object) -> list[Member]:
    config = yaml.safe_load(members[_find(members, CONFIG)][1])
    node = config
    *parents, last = place.split(".")
    for key in parents:
        node = node[key]
    node[last] = value
    return _content(members, CONFIG, yaml.safe_dump(config).encode())


def _zeros(members: list[Member], name: str, count: int) -> list[Member]:
    return _content(members, name, bytes(count))


def _many(members: list[Member], count: int) -> list[Member]:
    return [*members, *(member(f"m{number}", b"") for number in range(count))]


def _pickle(members: list[Member], program: list[str], **how: Any) -> list[Member]:
    return _content(members, WEIGHTS, stored(assembled(program), **how))


def _tensor(
    members: list[Member], storage_bytes: int, fields: dict[str, Any], **how: Any
) -> list[Member]:
    program = ["PROTO 2", "EMPTY_DICT", "BINUNICODE w", *tensor_program("0", **fields), "SETITEM",
               "STOP"]  # fmt: skip
    return _pickle(members, program, storages={"0": bytes(storage_bytes)}, **how)


def _deflated(members: list[Member], zeros: int) -> list[Member]:
    program = ["PROTO 2", f"BINUNICODE {'A' * zeros}", "STOP"]
    return _pickle(members, program, deflate=True)


def _deflated_storage(members: list[Member], numel: int) -> list[Member]:
    fields = {"numel": numel, "offset": 0, "size": [numel], "stride": [1]}
    return _tensor(members, 4 * numel, fields, deflate=True)


def _pickle_twice(members: list[Member], program: list[str]) -> list[Member]:
    more = [("archive/data.pkl", assembled(program))]
    return _pickle(members, ["PROTO 2", "EMPTY_DICT", "STOP"], more=more)


def _pax(members: list[Member], name: str, headers: dict[str, str]) -> list[Member]:
    members[_find(members, name)][0].pax_headers = headers
    return members


def _labels(members: list[Member], count: int) -> list[Member]:
    return _set(members, "labels", ["a"] * count)


def _storage(value: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return value.storage()


def _weight(members: list[Member], how: str) -> list[Member]:
    """Let one weight be a tensor that torch saves and no model has."""
    import torch

    state = torch.load(io.BytesIO(seed()[1]), weights_only=True)
    key = next(key for key, value in state.items() if value.dim() == 2)
    state[key] = {
        "expanded": lambda _: torch.zeros(1).expand(200_000, 200_000),
        "complex": lambda value: value.to(torch.complex64),
        "without values": lambda value: value.to("meta"),
        "sparse": lambda value: value.to_sparse(),
        "storage": _storage,
    }[how](state[key])
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of storages
        torch.save(state, out)
    return _content(members, WEIGHTS, out.getvalue())


_MEMBERS = {
    "pax": _pax, "labels": _labels, "weight": _weight,
    "repeat": _repeat, "rename": _rename, "become": _retype, "add": _add, "text": _text,
    "without": _without, "set": _set, "zeros": _zeros, "many": _many, "pickle": _pickle,
    "tensor": _tensor, "deflated": _deflated, "deflated_storage": _deflated_storage,
    "pickle_twice": _pickle_twice,
    "raw_weights": lambda members, program: _content(members, WEIGHTS, assembled(program)),
}  # fmt: skip


# -- operations on the archive's bytes -------------------------------------------------------


def _claim(data: bytes, name: str, size: int) -> bytes:
    """Let a member's header claim a size, with a checksum that fits."""
    at = data.index(name.encode().ljust(100, b"\0"))
    field = f"{size:011o}\0".encode() if size < 8**11 else (b"\x80" + size.to_bytes(11, "big"))
    header = bytearray(data[at : at + 512])
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return data[:at] + bytes(header) + data[at + 512 :]


def _sparse(data: bytes, name: str, size: int) -> bytes:
    """Turn a member into a GNU sparse one: its few bytes stand for so many."""
    at = data.index(name.encode().ljust(100, b"\0"))
    header = bytearray(data[at : at + 512])
    stored_bytes = int(header[124:135], 8)
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[257:265] = b"ustar  \0"
    header[386:410] = f"{0:011o}\0{stored_bytes:011o}\0".encode()
    header[410:482] = bytes(72)
    header[483:495] = f"{size:011o}\0".encode() if size < 8**11 else (
        b"\x80" + size.to_bytes(11, "big"))  # fmt: skip
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return data[:at] + bytes(header) + data[at + 512 :]


def _long_header(data: bytes, kind: str, size: int) -> bytes:
    """Put a header before the archive whose text (a long name, a table) is all zeros."""
    info = tarfile.TarInfo("x")
    info.type = {"name": tarfile.GNUTYPE_LONGNAME, "pax": tarfile.XHDTYPE}[kind]
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(size + -size % 512) + data


_BYTES = {
    "claim": _claim,
    "sparse": _sparse,
    "header": _long_header,
    "pack": lambda data, how: _PACKERS[how](data),
    "cut": lambda data, kept: data[:kept],
    "patch": lambda data, at, value: (
        data[:at] + bytes.fromhex(value) + data[at + len(value) // 2 :]
    ),
    "append": lambda data, text: data + text.encode(),
    "twice": lambda data: data + data,
}


# -- Lightning -------------------------------------------------------------------------------


def ckpt(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a .ckpt of assembled opcodes, or one of torch's own with a member changed."""
    path = folder / "last.ckpt"
    data = _seed_ckpt()
    for name, *arguments in steps:
        data = _CKPT[name](data, *arguments)
    path.write_bytes(data)
    return path


@functools.cache
def _seed_ckpt() -> bytes:
    import torch

    config, weights = seed()
    state = torch.load(io.BytesIO(weights), weights_only=True)
    out = io.BytesIO()
    torch.save({"state_dict": state, "hyper_parameters": {"cfg": yaml.safe_load(config)}}, out)
    return out.getvalue()


def _zip_edit(data: bytes, name: str, change: str, *arguments: Any) -> bytes:
    """Rewrite the archive with one member renamed, repeated, emptied or compressed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith(name):
                if change == "rename":
                    new.writestr(arguments[0], content)
                    continue
                if change == "repeat":
                    new.writestr(info.filename, content[:-1] + b"\0")
                if change == "drop":
                    continue
            new.writestr(info.filename, content)
    return out.getvalue()


_CKPT = {
    "pickle": lambda _, program, **how: stored(assembled(program), **how),
    "raw": lambda _, program: assembled(program),
    "member": _zip_edit,
    "cut": lambda data, kept: data[:kept],
    "overwrite": lambda data, at, text: data[:at] + text.encode() + data[at + len(text) :],
    "prefix": lambda data, text: text.encode() + data,
    "append": lambda data, text: data + text.encode(),
    "text": lambda _, text, times=1: text.encode() * times,
}
