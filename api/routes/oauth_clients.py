"""OAuth clients: programs of users, with which people log in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response

from api.context import Caller, MayRepeat, ThePorts
from api.envelope import Envelope, answer
from api.schemas.auth import ClientView, NewClient, UpdateClient
from api.strict import StrictRoute
from scheduler.services import oauth_clients

router = APIRouter(prefix="/v3/oauth2/clients", tags=["authenticator"], route_class=StrictRoute)

ClientId = Annotated[str, Path(max_length=80)]
NOT_KEPT = {"Cache-Control": "no-store"}
"""On answers that hold a key."""


@router.get("", operation_id="list_clients", response_model=Envelope[list[ClientView]])
async def list_clients(
    ports: ThePorts,
    caller: Caller,
    limit: Annotated[int, Query(ge=-1, le=2_147_483_647)] = 1000,
    offset: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
) -> Response:
    """The caller's clients, by id, with their keys."""
    found = await oauth_clients.clients(ports, caller, limit if limit > 0 else None, offset)
    metadata = {"limit": limit, "offset": offset, "count": len(found)}
    return answer([ClientView.of(each) for each in found], "Clients retrieved", metadata=metadata, headers=NOT_KEPT)


@router.post("", operation_id="create_client", status_code=201, response_model=Envelope[ClientView])
async def create_client(ports: ThePorts, caller: Caller, body: NewClient, repeatable: MayRepeat) -> Response:
    """Make a client; its id and key are made up where they are left out."""
    made = await oauth_clients.create(ports, caller, **body.model_dump(), repeatable=repeatable)
    return answer(ClientView.of(made), "Client created", status_code=201, headers=NOT_KEPT)


@router.get("/{client_id}", operation_id="get_client", response_model=Envelope[ClientView])
async def get_client(ports: ThePorts, caller: Caller, client_id: ClientId) -> Response:
    """A client of the caller's, with its key."""
    found = await oauth_clients.get(ports, caller, client_id)
    return answer(ClientView.of(found), "Client retrieved", headers=NOT_KEPT)


@router.put("/{client_id}", operation_id="update_client", response_model=Envelope[ClientView])
async def update_client(ports: ThePorts, caller: Caller, client_id: ClientId, body: UpdateClient) -> Response:
    """Change where a client is called back, or its name."""
    changed = await oauth_clients.update(ports, caller, client_id, body.callback_url, body.display_name)
    return answer(ClientView.of(changed), "Client updated", headers=NOT_KEPT)


@router.delete("/{client_id}", operation_id="delete_client", response_model=Envelope[dict[str, Any]])
async def delete_client(ports: ThePorts, caller: Caller, client_id: ClientId) -> Response:
    """End a client, and the refresh tokens of logins that it made."""
    await oauth_clients.remove(ports, caller, client_id)
    return answer({"changes": 1}, f"Client '{client_id}' deleted")
