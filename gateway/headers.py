"""What becomes of HTTP headers between a client and a pod. Pure; names are lower-case bytes, as h11 gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Header = tuple[bytes, bytes]
Headers = Sequence[Header]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, 7.6.1: they speak of one connection, not of the message."""

KEPT_ANYHOW = frozenset({b"host", b"content-length"})
"""What a message cannot do without, though a client calls it one of a connection's."""

OURS = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)
"""What pods believe of us; nobody else may say it."""

UPGRADES = frozenset({b"websocket"})
"""Others would let a client speak past the checks of its requests (h2c)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a client beside its request. added: headers (lower case) that a login adds to requests.

    withheld: names of cookies that pods do not see; hidden: headers that they do not see (lower case).
    """

    address: str
    port: int
    added: Mapping[str, str] = field(default_factory=dict)
    withheld: frozenset[str] = frozenset()
    hidden: frozenset[bytes] = frozenset()


def get(headers: Iterable[Header], name: bytes) -> bytes:
    """The value of a header; several as one list, none as nothing."""
    return b", ".join(value for key, value in headers if key == name)


def tokens(value: bytes) -> frozenset[bytes]:
    """The words of a comma-separated header, in lower case."""
    return frozenset(word.strip().lower() for word in value.split(b",") if word.strip())


def upgrade_of(headers: Headers) -> bytes | None:
    """The protocol to which a client wants to change, if pods may be asked for it."""
    asked = get(headers, b"upgrade").strip().lower()
    return asked if asked in UPGRADES and b"upgrade" in tokens(get(headers, b"connection")) else None


def host_of(headers: Headers) -> str | None:
    """The host that a request names, in lower case and without its port; None when that is no host name."""
    value = get(headers, b"host").decode("ascii", "replace").strip().lower()
    host, colon, port = value.rpartition(":") if ":" in value else (value, "", "")
    if colon and not (port.isdecimal() and len(port) <= 5):
        return None
    return host.rstrip(".") or None


def to_pod(headers: Headers, seen: Seen) -> list[Header]:
    """A request's headers as the pod gets them, but for its framing, which goes on unchanged."""
    added = {name.lower().encode(): value.encode("latin-1", "replace").strip() for name, value in seen.added.items()}
    hop = tokens(get(headers, b"connection")) - KEPT_ANYHOW
    gone = HOP_BY_HOP | OURS | seen.hidden | added.keys() | hop
    kept = [(name, value) for name, value in headers if name.replace(b"_", b"-") not in gone and name != b"cookie"]
    if cookies := _cookies(get(headers, b"cookie"), seen.withheld):
        kept.append((b"cookie", cookies))
    if transfer := get(headers, b"transfer-encoding"):
        kept.append((b"transfer-encoding", transfer))
    if upgrade := upgrade_of(headers):
        kept += [(b"connection", b"Upgrade"), (b"upgrade", upgrade)]
    address = seen.address.encode()
    return [
        *kept,
        (b"x-forwarded-for", address),
        (b"x-real-ip", address),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", get(headers, b"host")),
        (b"x-forwarded-port", str(seen.port).encode()),
        *added.items(),
    ]


def to_client(headers: Headers, cors: Headers = ()) -> list[Header]:
    """An answer's headers as the client gets them; ``cors`` takes the place of what the pod says of the like."""
    gone = HOP_BY_HOP | tokens(get(headers, b"connection"))
    if cors:
        gone |= {name for name, _ in headers if name.startswith(b"access-control-")}
    return [(name, value) for name, value in headers if name not in gone] + list(cors)


def _cookies(value: bytes, withheld: frozenset[str]) -> bytes:
    pairs = [pair.strip() for pair in value.replace(b", ", b"; ").split(b";")] if withheld else []
    if not pairs:
        return value
    return b"; ".join(pair for pair in pairs if pair and pair.partition(b"=")[0].decode("latin-1") not in withheld)


# -- pages of other origins (CORS) -----------------------------------------------------------------------------------


def cors_headers(cors: Mapping[str, Any], headers: Headers) -> list[Header]:
    """What lets the page that sent a request read the answer; nothing where the net says nothing or not this page."""
    origin = get(headers, b"origin")
    allowed = {str(each).strip().lower().encode() for each in cors.get("cors_allow_origins") or ()}
    if not origin or not allowed:
        return []
    vary = (b"vary", b"Origin")
    if origin.lower() in allowed:
        named = [(b"access-control-allow-origin", origin), vary]
        return [*named, (b"access-control-allow-credentials", b"true")] if _credentials(cors) else named
    return [(b"access-control-allow-origin", b"*")] if b"*" in allowed else [vary]


def is_preflight(cors: Mapping[str, Any], method: bytes, headers: Headers) -> bool:
    """Whether a browser asks for leave, and the net says itself who has it."""
    asked = get(headers, b"origin") and get(headers, b"access-control-request-method")
    return bool(method == b"OPTIONS" and asked and cors.get("cors_allow_origins"))


def preflight_headers(cors: Mapping[str, Any], headers: Headers) -> list[Header]:
    """The answer to a browser that asks for leave."""
    answer = cors_headers(cors, headers)
    lists = {
        "cors_allow_methods": b"access-control-allow-methods",
        "cors_allow_headers": b"access-control-allow-headers",
    }
    answer += [
        (header, ", ".join(map(str, cors[field])).encode("latin-1", "replace").strip())
        for field, header in lists.items()
        if cors.get(field)
    ]
    age_s = cors.get("cors_max_age")
    return [*answer, (b"access-control-max-age", str(int(age_s)).encode())] if age_s is not None else answer


def _credentials(cors: Mapping[str, Any]) -> bool:
    return cors.get("cors_allow_credentials") is True
