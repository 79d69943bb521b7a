"""Just enough of WebSocket (RFC 6455) for exec and port-forward through a Kubernetes API server."""

from __future__ import annotations

import base64
import os
import socket
import ssl
import struct
from collections.abc import Iterator, Sequence
from typing import Self
from urllib.parse import urlencode

from testbed.k8s.control_plane import ControlPlane

_BINARY, _CLOSE, _PING = 2, 8, 9


class Channels:
    """A connection that carries several numbered channels, as Kubernetes has them."""

    def __init__(self, plane: ControlPlane, path: str, query: Sequence[tuple[str, str]]) -> None:
        port = plane.spec.ports["kube-apiserver"]
        context = ssl.create_default_context(cafile=str(plane.ca))
        plain = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket = context.wrap_socket(plain, server_hostname="127.0.0.1")
        self._stream = self._socket.makefile("rb")
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {path}?{urlencode(query)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Authorization: Bearer {plane.token()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
        )
        self._socket.sendall(request.encode())
        status = self._stream.readline().decode()
        headers = list(iter(self._stream.readline, b"\r\n"))
        assert " 101 " in status, f"{status}{headers}{self._stream.read(500)!r}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, channel: int, content: bytes) -> None:
        self._send(_BINARY, bytes([channel]) + content)

    def received(self) -> Iterator[tuple[int, bytes]]:
        """(channel, content) of each frame, until the server closes."""
        while len(head := self._stream.read(2)) == 2:
            kind, length = head[0] & 0x0F, head[1] & 0x7F
            if length == 126:
                [length] = struct.unpack(">H", self._stream.read(2))
            elif length == 127:
                [length] = struct.unpack(">Q", self._stream.read(8))
            content = self._stream.read(length)
            if kind == _CLOSE:
                return
            if kind == _PING:
                self._send(10, content)
            elif content:
                yield content[0], content[1:]

    def _send(self, kind: int, content: bytes) -> None:
        assert len(content) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(content))
        self._socket.sendall(bytes([0x80 | kind, 0x80 | len(content)]) + mask + masked)
