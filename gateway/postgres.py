"""As much of PostgreSQL's protocol as a door needs: how TLS is asked for, and how to say no in its words.

Source: PostgreSQL 17 documentation, "Message Formats" and "SSL Session Encryption".
"""

from __future__ import annotations

import struct

FIRST_BYTES = 8
"""Of a request for encryption: its length, and a code that no protocol version has."""
SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSS_REQUEST = struct.pack("!II", 8, 80877104)
YES, NO = b"S", b"N"
ALPN = "postgresql"
"""What clients say since PostgreSQL 17 that begin with TLS at once; the server must choose it."""


def refusal(code: str, text: str) -> bytes:
    """A fatal ErrorResponse; ``code`` is a SQLSTATE. Clients show the text."""
    fields = b"".join(
        kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", code), (b"M", text))
    )
    return b"E" + struct.pack("!I", 4 + len(fields) + 1) + fields + b"\0"


def needs_tls() -> bytes:
    return refusal("28000", "this port has no connections without TLS; connect with sslmode=require")


def closed(reason: str) -> bytes:
    return refusal("57P03", reason)


def unknown(host_name: str) -> bytes:
    return refusal("3D000", f"no pod has the name {host_name}")


def forbidden() -> bytes:
    return refusal("28000", "this address may not reach the pod")
