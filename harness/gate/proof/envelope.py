"""Sign bytes with a key, and tell who signed them: DSSE envelopes of ``securesystemslib``.

Keys are PEM files as OpenSSL writes them: Ed25519, ECDSA (P-256, P-384, P-521) or RSA. Nothing is
looked up anywhere, and no certificate is involved: a key is trusted because its file was given.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as LibraryError
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from exportgate.errors import ExportGateError
from exportgate.reading import MALFORMED, parse_json, read_text, reason

if TYPE_CHECKING:
    from pathlib import Path

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PASSPHRASE = "EXPORTGATE_PASSPHRASE"  # noqa: S105 - the name of a variable
"""Names the environment variable with the passphrase of an encrypted private key."""
_LARGEST_KEY_BYTES = 1 << 16
_SHOWN_DIGITS = 12
_PEM_WANTED = "give a PEM file as OpenSSL writes it"


class KeyFileError(ExportGateError, ValueError):
    """A file holds no key of the kind that is needed."""


class SignatureError(ExportGateError, ValueError):
    """An envelope is malformed, or nobody whose key was given signed it."""


def signed(payload: bytes, private_key: Path) -> str:
    """Return the text of an envelope around a payload, signed by a private key.

    Raises:
        KeyFileError: The file holds no private key that can be used.
    """
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(_signer(private_key))
    return json.dumps(envelope.to_dict(), indent=1) + "\n"


def opened(where: Path, text: str, public_key: Path) -> bytes:
    """Return the payload of an envelope that the owner of a key signed.

    Args:
        where: The envelope's file, for messages.
        text: Its content.
        public_key: Of who is trusted.

    Raises:
        KeyFileError: The file holds no public key that can be used.
        SignatureError: Somebody else signed it, or it was changed since, or it is no envelope.
    """
    key = _public(public_key)
    try:
        envelope = Envelope.from_dict(parse_json(text))
        if envelope.payload_type != PAYLOAD_TYPE:
            msg = f"payload of type {envelope.payload_type!r:.60}"
            raise ValueError(msg)
        if not envelope.signatures:
            msg = "nobody signed it"
            raise ValueError(msg)
    except (*MALFORMED, LibraryError) as error:
        msg = f"{where}: no signed statement ({reason(error):.200}); sign the bundle again"
        raise SignatureError(msg) from error
    if key.keyid not in envelope.signatures:
        signers = ", ".join(sorted(f"{name!s:.{_SHOWN_DIGITS}}" for name in envelope.signatures))
        msg = (
            f"{where}: signed with another key ({signers}), not with {public_key} "
            f"({key.keyid:.{_SHOWN_DIGITS}}); verify it with the key of who releases"
        )
        raise SignatureError(msg)
    try:
        envelope.verify([key], 1)
    except (LibraryError, ValueError) as error:
        msg = (
            f"{where}: the signature is not of this verdict: it was changed after it was signed; "
            "copy the bundle again"
        )
        raise SignatureError(msg) from error
    return envelope.payload


def _signer(path: Path) -> CryptoSigner:
    passphrase = os.environ.get(PASSPHRASE)
    pem = _pem(path)
    try:
        key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
        return CryptoSigner(key)
    except (ValueError, TypeError, UnsupportedAlgorithm, LibraryError) as error:
        how = "openssl genpkey -algorithm ed25519 -out gate.pem makes one"
        if isinstance(error, TypeError) or "password" in str(error).lower():
            how = f"give the passphrase of an encrypted key in {PASSPHRASE}, and of others none"
        msg = f"{path}: no private key to sign with ({_why(error, pem)}); {how}"
        raise KeyFileError(msg) from error


def _public(path: Path) -> SSlibKey:
    pem = _pem(path)
    try:
        return SSlibKey.from_crypto(load_pem_public_key(pem))
    except (ValueError, TypeError, UnsupportedAlgorithm, LibraryError) as error:
        msg = (
            f"{path}: no public key ({_why(error, pem)}); "
            "openssl pkey -in gate.pem -pubout -out gate.pub makes one of the private key"
        )
        raise KeyFileError(msg) from error


def _pem(path: Path) -> bytes:
    try:
        return read_text(path, _LARGEST_KEY_BYTES).encode()
    except OSError as error:
        msg = f"{path}: no key can be read ({error.strerror}); {_PEM_WANTED}"
        raise KeyFileError(msg) from error
    except ValueError as error:  # too large, or not text
        msg = f"{path}: no public key and no private one ({reason(error)}); {_PEM_WANTED}"
        raise KeyFileError(msg) from error


def _why(error: Exception, pem: bytes) -> str:
    """Return what a file holds instead of the key; the libraries' words are for programmers."""
    labels = re.findall(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----", pem)
    if not labels:
        return "it is no PEM file"
    if isinstance(error, LibraryError) or "unsupported key" in str(error):
        return "a key of a kind that does not sign here: Ed25519, ECDSA or RSA are wanted"
    held = labels[0].decode().lower()
    if isinstance(error, TypeError) or "password" in str(error).lower():
        return " ".join(str(error).split())[:100]
    return f"the file holds a {held}" if "PEM but no" in str(error) else f"a broken {held}"
