"""The name that a TLS handshake asks for, read from its first message before anything is answered."""

from __future__ import annotations

import ssl


class Hellos:
    """Reads ClientHellos with the library's own parser, in a handshake that ends with the name."""

    def __init__(self) -> None:
        self._name = ""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.sni_callback = self._noted

    def read(self, hello: bytes) -> tuple[str, bytes]:
        """The name in lower case, empty where there is none, and the alert that refuses it.

        ValueError when this is no whole ClientHello.
        """
        self._name = ""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(hello)
        try:
            self._context.wrap_bio(incoming, outgoing, server_side=True).do_handshake()
        except ssl.SSLWantReadError:
            raise ValueError("half a ClientHello") from None
        except ssl.SSLError:
            pass  # as meant: it ends with the name, or earlier where it is none
        return self._name.lower().rstrip("."), outgoing.read()

    def _noted(self, tls: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int:
        self._name = name or ""
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
