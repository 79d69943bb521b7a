"""Tokens and profiles on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from api.schemas.base import Body, Flag, Id, Line, UserName, View
from scheduler.model.units import zulu
from scheduler.model.users import OAuthClient, User
from scheduler.security.tokens import Issued
from scheduler.services.auth import TokenPair

Password = Annotated[str, Field(min_length=1, max_length=1024)]


def _long_enough(password: str) -> str:
    if len(password) < 8:
        raise ValueError("must have at least 8 characters")
    return password


NewPassword = Annotated[Password, AfterValidator(_long_enough)]


NEEDED = {
    "password": ("username", "password"),
    "authorization_code": ("code", "redirect_uri"),
    "refresh_token": ("refresh_token",),
}
"""By grant, what must be said."""


class TokenBody(Body):
    """A grant: password, authorization_code or refresh_token."""

    grant_type: Literal["password", "authorization_code", "refresh_token"]
    username: Annotated[str, Field(max_length=255)] | None = None
    password: Password | None = None
    refresh_token: Annotated[str, Field(max_length=16_384)] | None = None
    client_id: Line | None = None
    client_key: Line | None = None
    redirect_uri: Line | None = None
    code: Annotated[str, Field(max_length=16_384)] | None = None
    code_verifier: Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{43,128}$")] | None = None
    device_code: Line | None = None
    scope: Line | None = None

    @model_validator(mode="after")
    def _complete(self) -> TokenBody:
        missing = [name for name in NEEDED[self.grant_type] if not getattr(self, name)]
        if missing:
            raise ValueError(f"{', '.join(missing)}: needed for grant_type {self.grant_type}")
        return self


class RevokeBody(Body):
    """A refresh token that shall hold no more."""

    token: Annotated[str, Field(min_length=1, max_length=16_384)]


class NewClient(Body):
    """A new client; id and key are made up where they are left out."""

    client_id: Id | None = None
    client_key: Annotated[Line, Field(min_length=16, max_length=255)] | None = None
    callback_url: Line = ""
    display_name: Line = ""
    description: Line = ""


class UpdateClient(Body):
    """What changes of a client."""

    callback_url: Line | None = None
    display_name: Line | None = None


class ClientView(View):
    """A client as its owner sees it."""

    client_id: str
    client_key: str
    callback_url: str
    display_name: str
    description: str
    owner: str
    tenant_id: str
    create_time: str
    last_update_time: str

    @classmethod
    def of(cls, client: OAuthClient) -> ClientView:
        return cls(
            client_id=client.client_id,
            client_key=client.client_key,
            callback_url=client.callback_url,
            display_name=client.display_name,
            description=client.description,
            owner=client.owner,
            tenant_id=client.tenant,
            create_time=zulu(client.created_at),
            last_update_time=zulu(client.updated_at),
        )


class ProfileBody(Body):
    """A new user. Without a password one is made up and told once."""

    username: UserName
    password: NewPassword | None = None
    email: Annotated[Line, Field(max_length=254)] | None = None
    name: Annotated[Line, Field(max_length=254)] | None = None
    admin: Flag = False


class PasswordBody(Body):
    password: NewPassword | None = None


def token_view(pair: TokenPair) -> dict[str, Any]:
    """A pair of tokens in Tapis's words."""
    view = {"access_token": {"access_token": pair.access.token, **_when(pair.access)}}
    if pair.refresh is not None:
        view["refresh_token"] = {"refresh_token": pair.refresh.token, **_when(pair.refresh)}
    return view


def profile_view(user: User) -> dict[str, Any]:
    """A user as others may see them: the union of what Tapis's servers and documents show."""
    return {
        "username": user.username,
        "email": user.email,
        "name": f"{user.given_name} {user.last_name}".strip(),
        "given_name": user.given_name,
        "last_name": user.last_name,
        "phone": None,
        "mobile_phone": None,
        "create_time": zulu(user.created_at) if user.created_at else None,
        "dn": f"cn={user.username},ou=tenants.{user.tenant},dc=berth",
        "admin": user.is_admin,
    }


def _when(issued: Issued) -> dict[str, Any]:
    return {
        "expires_at": issued.expires_at.isoformat(),
        "expires_in": issued.expires_in_s,
        "jti": issued.jti,
    }
