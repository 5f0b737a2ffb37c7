"""The server's end of a web socket (RFC 6455): whole binary messages, nothing else."""

from __future__ import annotations

import base64
import hashlib
import struct
import threading
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import socket
    from io import BufferedIOBase

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _BINARY, _CLOSE, _PING = 0, 2, 8, 9
_FINAL, _MASKED = 0x80, 0x80


def accept_key(key: str) -> str:
    """Return what a server answers to a client's ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()  # noqa: S324 - the RFC's


class WebSocket:
    """A connection after its handshake.

    Attributes:
        over: Set when nobody needs the connection any more; who accepted it waits for that.
    """

    def __init__(self, connection: socket.socket, incoming: BufferedIOBase) -> None:
        """Take a connection over.

        Args:
            connection: The socket.
            incoming: A buffered reader of it, which may have read ahead.
        """
        self._connection, self._incoming = connection, incoming
        self.over = threading.Event()

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            OSError: The other end is gone.
        """
        size = len(message)
        if size < 126:
            head = struct.pack("!BB", _FINAL | _BINARY, size)
        elif size < 1 << 16:
            head = struct.pack("!BBH", _FINAL | _BINARY, 126, size)
        else:
            head = struct.pack("!BBQ", _FINAL | _BINARY, 127, size)
        self._connection.sendall(head + message)

    def receive(self, timeout_s: float) -> bytes:
        """Return the next message.

        Raises:
            TimeoutError: Nothing came for so long.
            ConnectionError: The other end is gone, or speaks another protocol.
        """
        self._connection.settimeout(timeout_s)
        parts = []
        while True:
            final, kind, part = self._frame()
            if kind == _CLOSE:
                msg = "the page closed its socket"
                raise ConnectionResetError(msg)
            if kind in {_BINARY, _CONTINUATION}:
                parts.append(part)
                if final:
                    return b"".join(parts)
            elif kind != _PING:  # browsers send none
                msg = f"a frame of kind {kind} came, but should be binary"
                raise ConnectionAbortedError(msg)

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self._exactly(8))
        mask = self._exactly(4) if second & _MASKED else bytes(4)
        masked = np.frombuffer(self._exactly(size), np.uint8)
        keys = np.resize(np.frombuffer(mask, np.uint8), size)
        return bool(first & _FINAL), first & 0x0F, (masked ^ keys).tobytes()

    def _exactly(self, size: int) -> bytes:
        found = self._incoming.read(size)
        if len(found) < size:
            msg = "the page is gone"
            raise ConnectionResetError(msg)
        return found
