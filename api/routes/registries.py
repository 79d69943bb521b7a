"""Logins for registries: how a user is known to those that do not show their images to everyone."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from api.context import Caller, ThePorts
from api.envelope import Envelope, answer
from api.lists import Listing, listing, selected
from api.schemas.registries import FIELDS, RegistryLoginBody, RegistryLoginView
from api.strict import StrictRoute
from scheduler.services import registries

router = APIRouter(prefix="/v3/images/logins", tags=["images"], route_class=StrictRoute)

Registry = Annotated[str, Path(max_length=300, description="As in an image's name: ghcr.io, docker.io, localhost:5000")]


@router.get("", operation_id="getRegistryLogins", response_model=Envelope[list[dict[str, Any]]])
async def list_logins(ports: ThePorts, caller: Caller, asked: Annotated[Listing, Depends(listing)]) -> Response:
    """The caller's logins, without their secrets."""
    found = await registries.list_logins(ports, caller, asked.page(FIELDS), total=asked.compute_total)
    views = [RegistryLoginView.of(each).model_dump() for each in found.items[: asked.most]]
    items = [selected(view, asked.select, tuple(view)) for view in views]
    return answer(items, "logins found", metadata=asked.metadata(len(found.items), found.total))


@router.get("/{registry}", operation_id="getRegistryLogin", response_model=Envelope[RegistryLoginView])
async def get_login(ports: ThePorts, caller: Caller, registry: Registry) -> Response:
    """The caller's login for a registry, without its secret."""
    return answer(RegistryLoginView.of(await registries.get(ports, caller, registry)), "login found")


@router.put("/{registry}", operation_id="putRegistryLogin", response_model=Envelope[RegistryLoginView])
async def put_login(
    ports: ThePorts, caller: Caller, registry: Registry, body: RegistryLoginBody, skipCredentialCheck: bool = False
) -> Response:
    """Keep the caller's login for a registry, tried there first; it is shown for this caller's images alone."""
    login = await registries.put(ports, caller, registry, body.username, body.password, check=not skipCredentialCheck)
    tried = "works and is stored" if login.verified_at else "is stored; the registry was not asked, or asks nobody"
    return answer(RegistryLoginView.of(login), f"the login of '{login.username}' for {login.registry} {tried}")


@router.delete("/{registry}", operation_id="removeRegistryLogin", response_model=Envelope[dict[str, Any]])
async def remove_login(ports: ThePorts, caller: Caller, registry: Registry) -> Response:
    """Forget the caller's login for a registry."""
    await registries.remove(ports, caller, registry)
    return answer({"changes": 1}, f"login for {registry} removed")
