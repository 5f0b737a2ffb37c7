"""Assemble pickles from opcodes, as a hostile writer does; Python's own pickler never would."""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile

_CODES = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}
_RAW = {"PROTO": "<B", "BINPUT": "<B", "BINGET": "<B", "LONG_BINPUT": "<I", "LONG_BINGET": "<I",
        "BININT": "<i", "BININT1": "<B", "BININT2": "<H", "EXT1": "<B", "EXT2": "<H", "EXT4": "<i",
        "FRAME": "<Q", "BINFLOAT": ">d"}  # fmt: skip
_COUNTED = {"SHORT_BINSTRING": "<B", "BINSTRING": "<i", "BINUNICODE": "<I",
            "SHORT_BINUNICODE": "<B",
            "BINUNICODE8": "<Q", "BINBYTES": "<I", "SHORT_BINBYTES": "<B", "BINBYTES8": "<Q",
            "BYTEARRAY8": "<Q"}  # fmt: skip


def assembled(program: list[str]) -> bytes:
    """Return a pickle: an opcode a line with its argument, ``GLOBAL os system``.

    ``@N BINUNICODE text`` claims a length of N instead of the text's own; ``* N LINE`` repeats it.
    """
    out = b""
    for line in program:
        times, claimed, text = 1, None, line
        if text.startswith("* "):
            _, count, text = text.split(" ", 2)
            times = int(count)
        if text.startswith("@"):
            length, _, text = text[1:].partition(" ")
            claimed = int(length)
        name, _, argument = text.partition(" ")
        out += _encoded(name, argument, claimed) * times
    return out


def _encoded(name: str, argument: str, claimed: int | None) -> bytes:
    code = _CODES[name]
    if name in _RAW:
        form = _RAW[name]
        value = float(argument) if form == ">d" else int(argument)
        return code + struct.pack(form, value)
    if name in _COUNTED:
        data = argument.encode()
        return code + struct.pack(_COUNTED[name], len(data) if claimed is None else claimed) + data
    if name in ("GLOBAL", "INST"):
        module, _, attribute = argument.partition(" ")
        return code + f"{module}\n{attribute}\n".encode()
    if name in ("LONG1", "LONG4"):
        data = pickle.encode_long(int(argument))
        head = struct.pack(
            "<B" if name == "LONG1" else "<i", len(data) if claimed is None else claimed
        )
        return code + head + data
    if argument:  # an opcode whose argument ends with its line
        return code + argument.encode() + b"\n"
    return code


def stored(
    pickled: bytes, storages: dict[str, bytes] | None = None, *, deflate: bool = False,
    more: list[tuple[str, bytes]] | None = None,
) -> bytes:  # fmt: skip
    """Return what ``torch.save`` would have written around a pickle."""
    out = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", b"little")
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in more or []:
            archive.writestr(name, data)
        archive.writestr("archive/version", b"3\n")
    return out.getvalue()


def tensor_program(
    key: str, *, numel: int, offset: int, size: list[int], stride: list[int], kind: str = "Float"
) -> list[str]:
    """Return the opcodes of a tensor over a storage, whatever its numbers say."""
    number = [f"LONG1 {value}" for value in size], [f"LONG1 {value}" for value in stride]
    return [
        "GLOBAL torch._utils _rebuild_tensor_v2", "MARK", "MARK",
        "BINUNICODE storage", f"GLOBAL torch {kind}Storage", f"BINUNICODE {key}",
        "BINUNICODE cpu", f"LONG1 {numel}", "TUPLE", "BINPERSID", f"LONG1 {offset}",
        "MARK", *number[0], "TUPLE", "MARK", *number[1], "TUPLE", "NEWFALSE",
        "GLOBAL collections OrderedDict", "EMPTY_TUPLE", "REDUCE", "TUPLE", "REDUCE",
    ]  # fmt: skip
