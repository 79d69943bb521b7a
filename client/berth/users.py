"""The users of a tenant, for its administrators; and everyone's own profile."""

from __future__ import annotations

from collections.abc import Iterator

from berth.paging import pages
from berth.records import Raw
from berth.session import Session, segment

PROFILES = "/v3/oauth2/profiles"


class Users:
    """Everything about users; reach it as ``client.users``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def me(self) -> Raw:
        """Who the server takes us for."""
        return dict(self._session.get("/v3/oauth2/userinfo"))

    def list(self) -> Iterator[Raw]:
        """The users' profiles."""
        return pages(self._session, PROFILES, skip_by="offset")

    def get(self, username: str) -> Raw:
        """One user's profile."""
        return dict(self._session.get(f"{PROFILES}/{segment(username)}"))

    def add(
        self,
        username: str,
        password: str | None = None,
        *,
        email: str | None = None,
        name: str | None = None,
        admin: bool = False,
    ) -> Raw:
        """Add a user. Without a password the server makes one up and answers it, this once."""
        asked = {"username": username, "password": password, "email": email, "name": name, "admin": admin or None}
        return dict(self._session.create(PROFILES, {key: value for key, value in asked.items() if value is not None}))

    def remove(self, username: str) -> None:
        """Remove a user; jobs that are under way go on."""
        self._session.call("DELETE", f"{PROFILES}/{segment(username)}")

    def set_password(self, username: str, password: str) -> None:
        """Give a user a new password: one's own, or anyone's for an administrator."""
        self._session.post(f"{PROFILES}/{segment(username)}/password", {"password": password})
