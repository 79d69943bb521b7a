"""Logins for registries on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from api.schemas.base import Body, Line, Lines, View, showing
from scheduler.model.registries import RegistryLogin
from scheduler.model.units import zulu

FIELDS: Mapping[str, str] = {
    "registry": "registry",
    "username": "username",
    "verifiedAt": "verified_at",
    "created": "created_at",
}
"""What logins may be searched and sorted by."""


def _no_colon(text: str) -> str:
    if ":" in text:
        raise ValueError("holds ':', which no registry could tell from the password; leave it out")
    return text


class RegistryLoginBody(Body):
    """How a user is known to a registry; the password, or an access token in its place, is never shown again."""

    model_config = showing({"username": "ada", "password": "an access token"})

    username: Annotated[Line, Field(min_length=1, max_length=255), AfterValidator(_no_colon)]
    password: Annotated[Lines, Field(max_length=16_384)]


class RegistryLoginView(View):
    """What may be told of a login: never its secret. ``verifiedAt``: when the registry took it, null if it was not
    asked or asks nobody."""

    registry: str
    username: str
    verifiedAt: str | None
    created: str | None

    @classmethod
    def of(cls, login: RegistryLogin) -> RegistryLoginView:
        return cls(
            registry=login.registry,
            username=login.username,
            verifiedAt=zulu(login.verified_at) if login.verified_at else None,
            created=zulu(login.created_at) if login.created_at else None,
        )
