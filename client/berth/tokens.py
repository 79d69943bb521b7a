"""What a client proves itself with, and where it comes from."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from berth.errors import NotLoggedIn


@dataclass(frozen=True, slots=True)
class TokenPair:
    """An access token and, where the server gave one, the refresh token that renews it once."""

    access: str
    refresh: str | None = None

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> TokenPair:
        """From the answer of ``POST /v3/oauth2/tokens``."""
        return cls(result["access_token"]["access_token"], (result.get("refresh_token") or {}).get("refresh_token"))

    @property
    def claims(self) -> Mapping[str, Any]:
        """What the access token says of itself; not verified, empty when it cannot be read."""
        try:
            body = self.access.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        except (IndexError, ValueError, binascii.Error):
            return {}
        return claims if isinstance(claims, dict) else {}

    @property
    def expires_at_s(self) -> float | None:
        """Unix time at which the access token ends; None when it does not say."""
        exp = self.claims.get("exp")
        return float(exp) if isinstance(exp, int | float) else None


class Tokens(Protocol):
    """Where a session takes its tokens from."""

    def current(self) -> TokenPair:
        """The tokens to use now; NotLoggedIn when there are none."""
        ...

    def renew(self, stale: TokenPair, fetch: Callable[[str], TokenPair]) -> TokenPair | None:
        """Tokens newer than ``stale``; ``fetch`` trades a refresh token for a new pair. None: log in again."""
        ...


class NoTokens:
    """For routes that are public."""

    def current(self) -> TokenPair:
        raise NotLoggedIn("not logged in", "berth login URL --user NAME")

    def renew(self, stale: TokenPair, fetch: Callable[[str], TokenPair]) -> TokenPair | None:
        return None


class HeldTokens:
    """Tokens kept in memory."""

    def __init__(self, pair: TokenPair) -> None:
        self._pair = pair

    def current(self) -> TokenPair:
        return self._pair

    def renew(self, stale: TokenPair, fetch: Callable[[str], TokenPair]) -> TokenPair | None:
        if self._pair == stale and stale.refresh:
            self._pair = fetch(stale.refresh)
        return self._pair if self._pair != stale else None
