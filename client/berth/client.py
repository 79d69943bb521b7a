"""The typed client of one Berth server."""

from __future__ import annotations

import os
from typing import Self

import httpx

from berth.apps import Apps
from berth.config import ConfigFile, StoredTokens, clean_url
from berth.errors import NotLoggedIn
from berth.images import Images
from berth.jobs import Jobs
from berth.pods import Pods
from berth.records import Raw
from berth.session import PATIENT, Patience, Session
from berth.systems import Systems
from berth.tokens import HeldTokens, TokenPair, Tokens
from berth.users import Users


class Client:
    """One server as one user: ``client.jobs``, and ``pods``, ``systems``, ``apps``, ``images`` and ``users`` likewise.

    Without arguments it uses what `berth login` stored; ``BERTH_URL`` and ``BERTH_TOKEN`` come before that, arguments
    before both. ``token`` is an access token. Close it, or use it in a ``with`` block. Every error is a BerthError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        patience: Patience = PATIENT,
        transport: httpx.BaseTransport | None = None,
        config: ConfigFile | None = None,
    ) -> None:
        file = config or ConfigFile()
        self.url = server_url(url, file)
        self._session = Session(
            self.url, _tokens(self.url, token, file), timeout_s=timeout_s, patience=patience, transport=transport
        )
        self.jobs = Jobs(self._session)
        self.systems = Systems(self._session)
        self.apps = Apps(self._session)
        self.images = Images(self._session)
        self.pods = Pods(self._session)
        self.users = Users(self._session)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def login(self, user: str, password: str) -> TokenPair:
        """Get tokens for a user and use them from now on; nothing is stored on disk."""
        return self._session.login(user, password)

    @property
    def username(self) -> str:
        """The user that the token names. NotLoggedIn when there is none."""
        claims = self._session.tokens.current().claims
        name = claims.get("tapis/username") or str(claims.get("sub", "")).partition("@")[0]
        if not name:
            raise NotLoggedIn("the token does not say whose it is", "log in again: berth login")
        return str(name)

    @property
    def token_expires_at_s(self) -> float | None:
        """Unix time at which the access token in use ends; None when it does not say. NotLoggedIn without one."""
        return self._session.tokens.current().expires_at_s

    def answer_date(self) -> str | None:
        """The ``Date`` header of an answer: that the server answers, and its clock. Unreachable when it does not."""
        return self._session.date()

    def tenants(self) -> list[Raw]:
        """The tenants of the server; public."""
        return list(self._session.call("GET", "/v3/tenants", public=True)["result"])


def server_url(url: str | None, file: ConfigFile) -> str:
    """Which server is meant: the argument, ``BERTH_URL``, the one logged in to last. NotLoggedIn when none is known."""
    meant = url or os.environ.get("BERTH_URL") or file.read().current
    if not meant:
        raise NotLoggedIn("no server is named", "berth login URL --user NAME, or set BERTH_URL")
    return clean_url(meant)


def _tokens(url: str, token: str | None, file: ConfigFile) -> Tokens:
    given = token or os.environ.get("BERTH_TOKEN")
    return HeldTokens(TokenPair(given)) if given else StoredTokens(file, url)
