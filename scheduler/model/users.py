"""Users, who they are when they call, and the keys that sign what says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from scheduler.model.units import zulu


class Permission(StrEnum):
    """What a user may be granted on a system or an app."""

    READ = "READ"
    MODIFY = "MODIFY"
    EXECUTE = "EXECUTE"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person (or script) of a tenant. ``password_hash`` is never printed."""

    tenant: str
    username: str
    email: str = ""
    given_name: str = ""
    last_name: str = ""
    password_hash: str = field(default="", repr=False)
    is_admin: bool = False
    enabled: bool = True
    created_at: datetime | None = None

    @property
    def account(self) -> str:
        """Tells this user from an earlier one of the same name."""
        return zulu(self.created_at) if self.created_at else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling, as a verified token says it."""

    tenant: str
    username: str
    is_admin: bool = False
    token_type: str = "access"  # noqa: S105 - the wire's word, not a secret
    account_type: str = "user"
    account: str = ""
    """Of the user to whom the token was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key pair that signs tokens, in PEM. The newest that is not retired signs; retired ones still verify."""

    kid: str
    private_pem: str = field(repr=False)
    public_pem: str
    created_at: datetime
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshGrant:
    """One refresh token that was given out. Rotation makes a new one of the same ``family``, counted by ``count``.

    That of an authorization code counts -1: it gives the first.
    """

    jti: str
    family: str
    tenant: str
    username: str
    count: int
    issued_at: datetime
    expires_at: datetime
    client_id: str | None = None
    """The client with which the login was made: nobody else may use the token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """A program that its owner's users log in with. ``client_key`` is its password, and is never printed."""

    tenant: str
    client_id: str
    owner: str
    client_key: str = field(repr=False)
    callback_url: str = ""
    display_name: str = ""
    description: str = ""
    created_at: datetime
    updated_at: datetime
