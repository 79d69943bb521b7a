"""Credentials: how a user logs in to a system."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from api.context import Caller, MayRepeat, ThePorts
from api.envelope import Envelope, answer
from api.schemas.base import Id, UserName
from api.schemas.systems import CredentialBody, CredentialView
from api.strict import StrictRoute
from scheduler.services import credentials
from scheduler.services.credentials import GivenCredential, Kept

router = APIRouter(
    prefix="/v3/systems/credential/{systemId}/user/{userName}", tags=["systems"], route_class=StrictRoute
)


@router.get("", operation_id="getUserCredential", response_model=Envelope[CredentialView])
async def get_credential(ports: ThePorts, caller: Caller, systemId: Id, userName: UserName) -> Response:
    """What is kept, without its secrets."""
    credential = await credentials.get(ports, caller, systemId, userName)
    return answer(CredentialView.of(credential), "credential found")


@router.post("", operation_id="createUserCredential", status_code=201, response_model=Envelope[dict[str, Any]])
async def create_credential(
    ports: ThePorts,
    caller: Caller,
    systemId: Id,
    userName: UserName,
    repeatable: MayRepeat,
    body: Annotated[CredentialBody | None, Body()] = None,
    skipCredentialCheck: bool = False,
) -> Response:
    """Keep a key, a password or a token, tried by a real login first; with an empty body Berth makes a key pair."""
    given = body or CredentialBody()
    asked = GivenCredential(
        login_user=given.loginUser,
        private_key=given.privateKey,
        public_key=given.publicKey,
        password=given.password,
        access_token=given.accessToken,
    )
    kept = await credentials.create(
        ports, caller, systemId, userName, asked, check=not skipCredentialCheck, repeatable=repeatable
    )
    message = f"credential of '{userName}' for '{systemId}' stored"
    if asked.is_empty:
        message = (
            f"key pair made; append publicKey to ~{kept.credential.login_user}/.ssh/authorized_keys on the system, "
            f"then POST /v3/systems/credential/{systemId}/user/{userName}/check"
        )
    return answer(_told(kept, message), message, status_code=201)


@router.post("/check", operation_id="checkUserCredential", response_model=Envelope[dict[str, Any]])
async def check_credential(ports: ThePorts, caller: Caller, systemId: Id, userName: UserName) -> Response:
    """Log in for real with what is kept; an error carries ssh's own words."""
    kept = await credentials.check(ports, caller, systemId, userName)
    message = f"'{kept.credential.login_user}' can log in to '{systemId}'"
    return answer(_told(kept, message), message)


@router.delete("", operation_id="removeUserCredential", response_model=Envelope[dict[str, Any]])
async def remove_credential(ports: ThePorts, caller: Caller, systemId: Id, userName: UserName) -> Response:
    """Forget what is kept."""
    await credentials.remove(ports, caller, systemId, userName)
    return answer({"changes": 1}, f"credential of '{userName}' for '{systemId}' removed")


def _told(kept: Kept, message: str) -> dict[str, Any]:
    return CredentialView.of(kept.credential).model_dump() | {"message": message, "warnings": list(kept.warnings)}
