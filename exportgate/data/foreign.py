"""Tell by its first bytes what a file is that was taken for another, and what to do with it.

A checkpoint that is a Git LFS pointer and a manifest that is somebody else's recording are the
commonest first errors of all, and a parser's own message ("Expecting value: line 1") names neither.
"""

from __future__ import annotations

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
_TAR_MAGIC_AT = 257
_PTE_MAGIC_AT = 4
HEAD_BYTES = 512
"""How much of a file ``foreign_file`` wants to see."""

_PACKED = (
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it with unzstd first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it with 7z x first"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it with unrar x first"),
    (
        b"\0\5\x16\7",
        "what macOS keeps beside a file, named ._…; give the file itself",
    ),
)
_WEB_PAGES = (b"<!doctype html", b"<html")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HOW_WE_SWIPE = b"sentence timestamp keyb_width"


def foreign_file(head: bytes) -> str | None:
    """Return what a file is that is neither a checkpoint nor a manifest; None if not known.

    Args:
        head: Its first bytes, up to ``HEAD_BYTES``.

    Returns:
        A phrase that follows ``FILE: is``, with the way out.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    known = (
        (not head, "empty; copy or save it again"),
        (
            head.startswith(LFS_POINTER),
            "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'",
        ),
        (
            text.startswith(_WEB_PAGES),
            "a web page, perhaps one that asks to sign in; download the file again",
        ),
        (
            head[_PTE_MAGIC_AT : _PTE_MAGIC_AT + 2] == b"ET",
            (
                "an ExecuTorch program, which is made from a checkpoint; judge it with "
                "exportgate gate --artifacts FOLDER"
            ),
        ),
    )
    packed = next((what for magic, what in _PACKED if head.startswith(magic)), None)
    return packed or next((what for applies, what in known if applies), None)


def foreign_manifest(head: bytes) -> str | None:
    """Return what a file is that was given as a manifest of swipes; None if it may be one.

    Args:
        head: Its first bytes, up to ``HEAD_BYTES``.

    Returns:
        A phrase that follows ``FILE: is``, with the way out.
    """
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    known = (
        (head.startswith(GZIP), "compressed by gzip; unpack it with gunzip first"),
        (
            head.startswith(ZIP),
            "a zip file; unzip it, or, if it is a Lightning checkpoint, give it as --checkpoint",
        ),
        (
            head[_TAR_MAGIC_AT:].startswith(b"ustar"),
            "a tar archive; if it is a .nemo checkpoint, give it as --checkpoint",
        ),
        (
            head.startswith(_UTF16),
            "text in UTF-16; convert it to UTF-8, for example with iconv -f utf-16 -t utf-8",
        ),
        (
            head.startswith(b"PAR1"),
            "a Parquet file; write one JSON object a line, for example with pandas",
        ),
        (b"\0" in head, "a binary file, no text; give a manifest of swipes"),
        (
            text.startswith(_HOW_WE_SWIPE),
            "a log of How We Swipe; make a manifest of it with exportgate import how-we-swipe",
        ),
        (
            bool(text) and text[:1] not in b'{["' and b"," in text.splitlines()[0],
            "perhaps a table (CSV); write one JSON object a line",
        ),
    )
    return foreign_file(head) or next((what for applies, what in known if applies), None)


def foreign_record(keys: set[str]) -> str | None:
    """Return whose format a line of a manifest is in, by its keys, and how to import it."""
    known = (
        ({"data"}, "swipes as FUTO records them; make a manifest with exportgate import futo"),
        (
            {"curve"},
            "swipes as NeuroSwipe records them; make a manifest with exportgate import neuroswipe",
        ),
        (
            {"audio_filepath"},
            "a manifest of NeMo's speech recordings; this gate judges swipes: words and points",
        ),
    )
    return next((what for needed, what in known if needed <= keys), None)
