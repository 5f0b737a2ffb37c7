"""Read the parts of a checkpoint: a .nemo archive, its unpacked folder or a Lightning .ckpt.

An archive is read here and extracted by NeMo elsewhere, so both must see the same files. Whatever
the two could take differently is refused by name: a member that is there twice, a link, a path
that leaves the archive.
"""

from __future__ import annotations

import codecs
import lzma
import os
import posixpath
import tarfile
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import yaml

from exportgate.data.foreign import GZIP, HEAD_BYTES, ZIP, foreign_file
from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"
_MAX_CONFIG_BYTES = 4 << 20
_KINDS = "expected a .nemo archive, the folder of an unpacked one, or a Lightning .ckpt"
_TAR_MAGIC_AT = 257
_MOST_PACKED = 100  # weights are noise: they pack by a tenth
_UNPACKED_BYTES = 1 << 20
_MOST_MEMBERS = 10_000
_LARGEST_HEADER_BYTES = 64 << 10
_LARGEST_MEMBER_BYTES = 1 << 50
_ABOUT_ANOTHER = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_NO_VALUE = "a value in it is none of the type that its form or its tag says"
_MOST_MERGED = 100_000
_MOST_VALUES = 200_000
_LATEST_S = 1 << 40
_MOST_OWNERS = 1 << 32
_OTHER_SUFFIXES = {
    ".onnx": "an ONNX file, which is made from a checkpoint; judge it with "
    "exportgate gate --artifacts FOLDER",
    ".pt": "a file of torch.save with an unknown content; save the model with NeMo's save_to() as "
    "a .nemo archive, or rename it to .ckpt if Lightning wrote it",
    ".jsonl": "a file of JSON lines; swipes are given with --manifest",
    ".yaml": "a configuration alone; give the .nemo archive, or the folder with the weights too",
}
_OTHER_SUFFIXES |= dict.fromkeys((".pth", ".bin"), _OTHER_SUFFIXES[".pt"])


class CheckpointError(ExportGateError, ValueError):
    """The checkpoint is missing, damaged, unsafe, incomplete or of an unsupported kind."""


class _Loader(yaml.SafeLoader):
    """Counts values and what merge keys (``<<``) multiply: nine of nine of nine fill memory."""

    _merged = _composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._composed += 1
        if self._composed > _MOST_VALUES:  # a parser in Python: 4 MB of them take a minute
            msg = f"it holds more than {_MOST_VALUES} values"
            raise yaml.YAMLError(msg)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > _MOST_MERGED:
            msg = f"its merge keys write out more than {_MOST_MERGED} values"
            raise yaml.YAMLError(msg)


class _Member(tarfile.TarInfo):
    """Refuses headers that no writer makes before what they claim is read into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Self:
        about_another = self.type in _ABOUT_ANOTHER and self.size > _LARGEST_HEADER_BYTES
        if about_another or not 0 <= self.size < _LARGEST_MEMBER_BYTES:
            name = os.fsdecode(archive.name or "")
            msg = (
                f"{name}: refused, because a header in it claims {self.size} bytes; "
                "copy it again, or save it with NeMo's save_to()"
            )
            raise CheckpointError(msg)
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


def is_lightning(path: Path) -> bool:
    """Return whether the path is a Lightning .ckpt (else a .nemo or its folder).

    Raises:
        CheckpointError: There is no such file, or it is something else; the message says what.
    """
    if path.is_dir():
        return False
    if not path.is_file():
        msg = f"{path}: {_absent(path)}"
        raise CheckpointError(msg)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    other = _something_else(path, head)
    if other:
        msg = f"{path}: is {other}"
        raise CheckpointError(msg)
    if path.suffix not in (".nemo", ".ckpt"):
        what = _OTHER_SUFFIXES.get(path.suffix)
        named = f"is {what}" if what else f"has no kind of checkpoint's suffix; {_KINDS}"
        msg = f"{path}: unknown kind of checkpoint {path.suffix!r}: it {named}"
        raise CheckpointError(msg)
    return path.suffix == ".ckpt"


def _absent(path: Path) -> str:
    """Return why there is no file, and the way out."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which is not there; {_KINDS}"
    if path.exists():
        return f"is no file but a device or a socket; {_KINDS}"
    if path.parts[:1] in (("https:",), ("http:",), ("hf:",), ("s3:",), ("gs:",)):
        return "is an address; download the file and give its path"
    if not path.suffix and len(path.parts) == 2 and not path.parent.exists():
        return f"no such checkpoint; if it is a model hub's name, download its file; {_KINDS}"
    return f"no such checkpoint; {_KINDS}"


def _something_else(path: Path, head: bytes) -> str | None:
    """Return what a file is that is named like a checkpoint, and the way out; None if unknown."""
    header_bytes = int.from_bytes(head[:8], "little")  # where a safetensors file says so
    known = (
        (
            head[8:9] == b"{" and 2 <= header_bytes <= path.stat().st_size - 8,
            (
                "a safetensors file: weights without a model configuration; save the model with "
                "NeMo's save_to() as a .nemo archive"
            ),
        ),
        (
            head.startswith(GZIP) and path.suffix != ".nemo",
            "compressed by gzip; unpack it with gunzip first",
        ),
        (
            head.startswith(ZIP) and path.suffix == ".nemo",
            (
                "a zip file: rename it to .ckpt if Lightning wrote it; if it is a zipped .nemo "
                "folder, unzip it and give the folder"
            ),
        ),
        (
            head[_TAR_MAGIC_AT:].startswith(b"ustar") and path.suffix == ".ckpt",
            "a tar archive; rename it to .nemo if NeMo's save_to() wrote it",
        ),
        (
            head[:1] == b"\x08" and head[2:3] in (b"\x12", b":", b"\x1a"),  # fields of a ModelProto
            _OTHER_SUFFIXES[".onnx"],
        ),
        (
            head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"{",
            "JSON; swipes are given with --manifest, the model as its .nemo archive",
        ),
        (
            _is_text(head) and path.suffix in (".nemo", ".ckpt"),
            "a text file, no model; give the file that NeMo's save_to() or Lightning wrote",
        ),
    )
    return foreign_file(head) or next((what for applies, what in known if applies), None)


def _is_text(head: bytes) -> bool:
    """Tell text from a pickle of protocol 0, which begins with an opcode, and from an archive."""
    printable = bytes(range(0x20, 0x7F)) + b"\t\r\n"
    return head[:1].isalnum() and b" " in head and not head.translate(None, printable)


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of a .nemo archive or folder as it stands there, unresolved.

    Raises:
        CheckpointError: It is missing, too long or no YAML mapping.
    """
    try:
        text = read_member(path, CONFIG, _MAX_CONFIG_BYTES)
        config = yaml.load(text, _Loader)  # noqa: S506 - a safe loader, and stricter
    except CheckpointError:
        raise
    except (yaml.YAMLError, RecursionError, *MALFORMED) as error:
        said = " ".join(str(error).split()) if isinstance(error, yaml.YAMLError) else _NO_VALUE
        said = "nested too deep" if isinstance(error, RecursionError) else said
        msg = f"{path}: {CONFIG} is not valid YAML ({said}); write it as NeMo's save_to() does"
        raise CheckpointError(msg) from error
    if not isinstance(config, dict):
        msg = (
            f"{path}: {CONFIG} holds {type(config).__name__}, but should be a mapping, as NeMo's "
            "save_to() writes it"
        )
        raise CheckpointError(msg)
    return config


def read_member(path: Path, name: str, limit_bytes: int | None = None) -> bytes:
    """Return the bytes of one file of a .nemo archive or of its unpacked folder.

    Raises:
        CheckpointError: The file is missing, cut off or longer than the limit; the archive is
            unreadable, or another reader could take other files from it.
    """
    if path.is_dir():
        return _read_from_folder(path, name, limit_bytes)
    with _members(path) as (archive, members):
        info = members.get(name)
        if info is None:
            msg = f"{path}: the archive has no {name} {_found_instead(members, name)}"
            raise CheckpointError(msg)
        _check_size(path, name, info.size, limit_bytes)
        file = archive.extractfile(info)
        data = file.read() if file else b""
        if len(data) != info.size:
            msg = f"{path}: {name} is cut off after {len(data)} of {info.size} bytes; copy it again"
            raise CheckpointError(msg)
        return data


def _found_instead(members: Mapping[str, tarfile.TarInfo], name: str) -> str:
    inner = next((other for other in members if other.endswith(f"/{name}")), None)
    if inner is not None:
        folder = posixpath.dirname(inner)
        return (
            f"at its top, but {inner}: the folder was packed and not what is in it; "
            f"pack it with tar -cf my.nemo -C {folder} {CONFIG} {WEIGHTS}"
        )
    found = ", ".join(sorted(members)[:8]) or "nothing"
    return f"(found {found}); give what NeMo's save_to() writes, or Lightning's .ckpt"


def size_bytes(path: Path, name: str) -> int | None:
    """Return the size of one file of a .nemo archive or folder; None if there is no such file."""
    if path.is_dir():
        file = path / name
        return file.stat().st_size if file.is_file() else None
    with _members(path) as (_, members):
        return members[name].size if name in members else None


def _read_from_folder(folder: Path, name: str, limit_bytes: int | None) -> bytes:
    file = folder / name
    try:
        _check_size(folder, name, file.stat().st_size, limit_bytes)
        return file.read_bytes()
    except OSError as error:
        msg = (
            f"{folder}: cannot read {name} in this folder ({error.strerror}); expected an unpacked "
            f".nemo archive: {CONFIG} and {WEIGHTS}{_inside(folder)}"
        )
        raise CheckpointError(msg) from error


def _inside(folder: Path) -> str:
    """Name a checkpoint that a folder holds, as the folder of a training or of a download does."""
    patterns = ("*.nemo", f"*/{CONFIG}", "*.ckpt", "*/*.nemo", "*/*.ckpt")
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    path = next(found, None)
    if path is None:
        return ""
    return f"; or give {path.parent if path.name == CONFIG else path}, which is in it"


def _check_size(path: Path, name: str, found: int, limit_bytes: int | None) -> None:
    if limit_bytes is not None and found > limit_bytes:
        msg = (
            f"{path}: {name} has {found} bytes, more than the {limit_bytes} that are read; "
            "expected what NeMo's save_to() writes"
        )
        raise CheckpointError(msg)


@contextmanager
def _members(path: Path) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo]]]:
    """Open an archive and list its files by their normal names, each of which is there once."""
    try:
        with tarfile.open(path, mode="r:*", tarinfo=_Member) as archive:
            yield archive, _files(path, archive)
    except CheckpointError:
        raise
    except (tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error, *MALFORMED) as error:
        reason = " ".join(str(error).split()).partition(": - method")[0]  # of every compression
        if reason.startswith("file could not be opened"):
            reason = "neither a tar nor a compressed one, or its first header is damaged"
        msg = (
            f"{path}: not a readable .nemo archive ({reason}); it should be "
            f"a tar of {CONFIG} and {WEIGHTS}; copy or save it again"
        )
        raise CheckpointError(msg) from error


def _files(path: Path, archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    files: dict[str, tarfile.TarInfo] = {}
    room = path.stat().st_size * _MOST_PACKED + _UNPACKED_BYTES
    for number, info in enumerate(archive):
        room -= info.size
        if room < 0 or number == _MOST_MEMBERS:
            msg = (
                f"{path}: holds more than {_MOST_MEMBERS} members, or one {_MOST_PACKED} times "
                "as large as the file: it would fill memory; copy or save it again"
            )
            raise CheckpointError(msg)
        if info.isdir() and ".." not in info.name.split("/"):
            continue
        name = posixpath.normpath(info.name)
        reason = None
        if info.name.startswith("/") or ".." in info.name.split("/"):
            reason = "leaves the archive by its path"
        elif not info.isreg() or info.issparse():
            reason = "is a link or no regular file"
        elif not _is_extractable(info):
            reason = "has a time or an owner that no system takes"
        elif name in files:
            reason = f"is there twice (as {files[name].name!r} before): NeMo would take the last"
        if reason:
            msg = (
                f"{path}: refused, because its member {info.name!r} {reason}; "
                "expected each file once under its plain name, as NeMo's save_to() writes them"
            )
            raise CheckpointError(msg)
        files[name] = info
    return files


def _is_extractable(info: tarfile.TarInfo) -> bool:
    """Tell whether a reader that writes the member to a disk can say when it was changed, by whom.

    A pax header may give any number (``nan`` among them), and only such a reader fails at it.
    """
    return abs(info.mtime) < _LATEST_S and all(0 <= n < _MOST_OWNERS for n in (info.uid, info.gid))
