"""The three routes by which levels on pods, templates, volumes and snapshots are shown, given and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.schemas.pods import PermissionBody, PermissionsView
from scheduler.model.pod_catalog import PodKind, PodLevel
from scheduler.services import pod_grants

User = Annotated[str, Path(max_length=60)]
Name = Annotated[str, Path(max_length=120)]


def permission_routes(router: APIRouter, kind: PodKind, path: str) -> None:
    """Add them to a router. path: of the thing, with its id as ``{name}``."""

    @router.get(
        f"{path}/permissions",
        operation_id=f"get_{kind}_permissions",
        response_model=Envelope[PermissionsView],
        name=f"get_{kind}_permissions",
    )
    async def show(ports: ThePorts, caller: Caller, name: Name) -> Response:
        """Everyone's level, for those who have USER."""
        return _answer(await pod_grants.permissions(ports, caller, kind, name))

    @router.post(
        f"{path}/permissions",
        operation_id=f"set_{kind}_permission",
        response_model=Envelope[PermissionsView],
        name=f"set_{kind}_permission",
    )
    async def give(ports: ThePorts, caller: Caller, name: Name, body: PermissionBody) -> Response:
        """Give a user a level in place of an earlier one, for those who have ADMIN."""
        level = pod_grants.level_of(body.level)
        return _answer(await pod_grants.grant(ports, caller, kind, name, body.user, level))

    @router.delete(
        f"{path}/permissions/{{user}}",
        operation_id=f"delete_{kind}_permission",
        response_model=Envelope[PermissionsView],
        name=f"delete_{kind}_permission",
    )
    async def take(ports: ThePorts, caller: Caller, name: Name, user: User) -> Response:
        """Take a user's level back, for those who have ADMIN. The last ADMIN stays."""
        return _answer(await pod_grants.revoke(ports, caller, kind, name, user))


def _answer(levels: Mapping[str, PodLevel]) -> Response:
    return answer({"permissions": [f"{user}:{level.name}" for user, level in levels.items()]}, "permissions")
