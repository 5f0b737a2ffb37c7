"""Build what the gate itself writes: sidecars, bundles with their signed verdict, histories."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any

from tests.vectors.texts import edited

if TYPE_CHECKING:
    from pathlib import Path

ATTESTATION = "verdict.intoto.json"
KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
"""
"""Ed25519, of the bytes 0 to 31: it signs nothing but these."""
_NAMES = ("encoder_int8.onnx", "step_fp32.pte")


def sidecar(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a file and its sidecar; edits are of the sidecar's text."""
    from tests.test_bundle import artifact

    path = artifact(folder / "step_fp32.onnx", "step_fp32.onnx")
    beside = folder / "step_fp32.onnx.json"
    own = [step for step in steps if step[0] != "artifact"]
    beside.write_bytes(edited(beside.read_text(encoding="utf-8"), own))
    for _, what, *arguments in (step for step in steps if step[0] == "artifact"):
        path.unlink()
        if what == "link":
            path.symlink_to(arguments[0])
        elif what == "folder":
            path.mkdir()
    return path


def bundle(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a bundle; edits name a file in it: ``["bundle.json", "data", "verdict", 5]``."""
    from exporters.pipeline.bundle import write_bundle
    from tests.test_bundle import artifact

    made = folder / "made"
    made.mkdir()
    paths = [artifact(made / f"mine{place}", name) for place, name in enumerate(_NAMES)]
    words = made / "words"
    words.write_text("ab\nba\n", encoding="utf-8")
    path = folder / "bundle"
    write_bundle(path, paths, lexicon=words)
    _edit(path, steps)
    return path


def answered(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a bundle that has what clients need."""
    from tests.test_bundle import answer

    path = bundle(folder, [])
    answer(path, *_NAMES)
    _edit(path, steps)
    return path


def verdict(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a bundle, sealed and signed, with ``key.pub`` beside it.

    Edits of ``payload`` leave the signature as it was, those of ``statement`` are signed anew, as
    whoever holds the key can; those of ``key`` change what it is verified with.
    """
    from harness.gate.bundle import seal
    from harness.gate.proof.proving import sign
    from tests.test_bundle import report

    path = answered(folder, [])
    seal(path, report(path, folder / "report.json"))
    private, public = folder / "gate.pem", folder / "key.pub"
    private.write_text(KEY, encoding="utf-8")
    public.write_text(_public(KEY), encoding="utf-8")
    sign(path, private)
    own = {"payload": _restated, "statement": _signed_anew}
    for name, *edit in steps:
        if name in own:
            _edit(path, [[ATTESTATION, "made", own[name], edit]])
        elif name == "key":
            public.write_bytes(edited(public.read_text(encoding="utf-8"), [edit]))
        else:
            _edit(path, [[name, *edit]])
    return path


def _public(private: str) -> str:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(private.encode(), None).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def _restated(text: str, edit: list[Any]) -> bytes:
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"]).decode()
    envelope["payload"] = base64.b64encode(edited(payload, [edit])).decode()
    return json.dumps(envelope).encode()


def _signed_anew(text: str, edit: list[Any]) -> bytes:
    payload = base64.b64decode(json.loads(text)["payload"]).decode()
    return resigned(edited(payload, [edit]))


def resigned(payload: bytes) -> bytes:
    """Return the envelope of a payload, signed with ``KEY``."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer._crypto_signer import CryptoSigner

    envelope = Envelope(payload, "application/vnd.in-toto+json", {})
    envelope.sign(CryptoSigner(load_pem_private_key(KEY.encode(), None)))
    return json.dumps(envelope.to_dict()).encode()


def _edit(path: Path, steps: list[list[Any]]) -> None:
    from tests.test_bundle import rehash

    for name, *edit in steps:
        if name == "rehash":
            rehash(path, *edit)
        elif edit[0] == "made":
            (path / name).write_bytes(edit[1]((path / name).read_text("utf-8"), edit[2]))
        elif edit[0] == "link":
            (path / name).unlink(missing_ok=True)
            (path / name).symlink_to(edit[1])
        elif edit[0] == "folder":
            (path / name).unlink(missing_ok=True)
            (path / name).mkdir()
        elif edit[0] == "pipe":
            (path / name).unlink(missing_ok=True)
            os.mkfifo(path / name)
        else:
            old = (path / name).read_text("utf-8") if (path / name).is_file() else ""
            (path / name).write_bytes(edited(old, [edit]))


def history(folder: Path, steps: list[list[Any]]) -> Path:
    """Write a history of one run; edits are statements, or of the file's bytes."""
    from harness.history.store import append
    from tests.report_page.reports import green

    path = folder / "history.db"
    append(path, json.loads(green(("step_fp32.onnx",)).to_json()))
    for name, *arguments in steps:
        if name == "sql":
            connection = sqlite3.connect(path)
            connection.executescript(arguments[0])
            connection.close()
        elif name == "report":
            _set_report(path, *arguments)
        else:
            path.write_bytes(_FILE[name](path.read_bytes(), *arguments))
    return path


def _set_report(path: Path, kind: str, *arguments: Any) -> None:
    blob = {
        "zeros": lambda count: zlib.compress(bytes(count), 9),
        "text": lambda text: zlib.compress(text.encode()),
        "raw": lambda text: text.encode(),
    }[kind](*arguments)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE runs SET report = ?", (blob,))
    connection.commit()
    connection.close()


_FILE = {
    "cut": lambda data, kept: data[:kept],
    "overwrite": lambda data, at, digits: (
        data[:at] + bytes.fromhex(digits) + data[at + len(digits) // 2 :]
    ),
    "text": lambda _, text, times=1: text.encode() * times,
}
