"""What the gateway itself answers: short pages for people, with the reason and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from http import HTTPStatus

from gateway.headers import Header

RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of our own. again: the cause may pass, so clients are told when to come again."""

    status: int
    title: str
    text: str
    again: bool = False
    headers: Sequence[Header] = ()

    @property
    def body(self) -> bytes:
        lines = f"<h1>{escape(self.title)}</h1><p>{escape(self.text)}</p>"
        refresh = f'<meta http-equiv="refresh" content="{RETRY_AFTER_S}">' if self.again else ""
        page = f'<!doctype html><meta charset="utf-8">{refresh}<title>{escape(self.title)}</title>{lines}\n'
        return page.encode()

    def all_headers(self, length_bytes: int) -> list[Header]:
        """With the length of its body."""
        said = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"content-length", str(length_bytes).encode()),
            (b"cache-control", b"no-store"),
            *self.headers,
        ]
        return [*said, (b"retry-after", str(RETRY_AFTER_S).encode())] if self.again else said


def raw(page: Page) -> bytes:
    """A page as the last answer of a connection."""
    headers = [*page.all_headers(len(page.body)), (b"connection", b"close")]
    head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\n".encode() + head + b"\r\n" + page.body


def unknown(host_name: str) -> Page:
    return Page(404, "No such pod", f"Nothing has the name {host_name}. Look at the pod's networking for its names.")


def closed(reason: str) -> Page:
    return Page(503, "The pod does not answer now", f"{reason}.", again=True)


def misdirected(host: str | None, host_name: str) -> Page:
    return Page(
        421,
        "Another name was meant",
        f"This connection was made for {host_name}, the request is for {host or 'no name'}. Connect again.",
    )


def forbidden(text: str) -> Page:
    return Page(403, "Not allowed", text)


def bad_request(text: str) -> Page:
    return Page(400, "The request cannot be read", text)


def no_method(method: str) -> Page:
    return Page(405, "Not for a pod", f"{method} requests are not passed on.")


def bad_answer() -> Page:
    return Page(502, "The pod gave no answer that can be read", "What listens on this port does not speak HTTP.")


def no_header() -> Page:
    text = "What is said of this port under tapis_auth_response_headers makes no headers; its owner can change it."
    return Page(500, "The request cannot be passed on", text)


def too_large() -> Page:
    return Page(431, "The head is too large", "Send fewer or shorter headers; cookies, most likely.")


PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks TLS: write https:// in place of http://\n"
)
