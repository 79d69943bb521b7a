"""Logging in, keys, and the users of a tenant."""

from __future__ import annotations

from base64 import b64decode
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api.context import Address, BaseUrl, Caller, MayRepeat, TheEdge, ThePorts, TheTenant
from api.envelope import Envelope, answer
from api.schemas.auth import PasswordBody, ProfileBody, RevokeBody, TokenBody, profile_view, token_view
from api.strict import StrictRoute
from scheduler.model.errors import SpecInvalid, Unauthenticated
from scheduler.model.tenants import Tenant
from scheduler.model.users import OAuthClient, User
from scheduler.ports import Ports
from scheduler.services import auth, client_logins, oauth_clients
from scheduler.services.client_logins import Wanted

router = APIRouter(prefix="/v3/oauth2", tags=["authenticator"], route_class=StrictRoute)

FORM = "application/x-www-form-urlencoded"

TOKEN_BODY = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": TokenBody.model_json_schema()} for kind in ("application/json", FORM)},
    }
}


@router.post(
    "/tokens",
    operation_id="create_token",
    status_code=201,
    response_model=Envelope[dict[str, Any]],
    openapi_extra=TOKEN_BODY,
)
async def create_token(
    request: Request, edge: TheEdge, tenant: TheTenant, base_url: BaseUrl, address: Address
) -> Response:
    """An access token and a refresh token: for a password, a refresh token or an authorization code, each good once.

    A client says who it is by HTTP Basic or by ``client_id`` and ``client_key``; what it gets, only it can refresh.
    A code is also taken from one without a key, if it began with a ``code_challenge``; for an access token alone.
    """
    body = await _token_body(request)
    client = await _client(request, edge.ports, tenant, body)
    if body.grant_type == "password":
        login = body.username or "", body.password or "", address
        pair = await auth.log_in(edge.ports, edge.tokens, tenant.id, *login, base_url, client)
    elif body.grant_type == "authorization_code":
        code = body.code or "", body.redirect_uri or "", base_url
        proof = client, body.client_id or "", body.code_verifier or ""
        pair = await client_logins.trade(edge.ports, edge.tokens, tenant.id, *code, *proof)
    else:
        pair = await auth.refresh(edge.ports, edge.tokens, tenant.id, body.refresh_token or "", base_url, client)
    return answer(token_view(pair), "Token created successfully.", status_code=201)


@router.post("/tokens/revoke", operation_id="revoke_token", response_model=Envelope[dict[str, Any]])
async def revoke_token(edge: TheEdge, tenant: TheTenant, body: RevokeBody) -> Response:
    """End a refresh token and all that came of the same login; one that does not hold is success (RFC 7009)."""
    await auth.revoke(edge.ports, edge.tokens, tenant.id, body.token)
    return answer({}, "Token revoked")


@router.get("/jwks", operation_id="get_jwks")
async def jwks(edge: TheEdge) -> dict[str, Any]:
    """The public keys that verify tokens, as a bare JSON Web Key Set (no envelope)."""
    return edge.tokens.jwks()


@router.get(
    "/.well-known/oauth-authorization-server",
    operation_id="get_server_metadata",
    response_model=Envelope[dict[str, Any]],
)
async def server_metadata(base_url: BaseUrl) -> Response:
    """Where what is (RFC 8414)."""
    return answer(_metadata(base_url), "OAuth server metadata retrieved")


@router.get("/userinfo", operation_id="get_userinfo", response_model=Envelope[dict[str, Any]])
async def userinfo(ports: ThePorts, caller: Caller) -> Response:
    """The caller's own profile."""
    return answer(profile_view(await auth.profile(ports, caller, caller.username)), "User profile retrieved")


@router.get("/profiles", operation_id="list_profiles", response_model=Envelope[list[dict[str, Any]]])
async def list_profiles(
    ports: ThePorts,
    caller: Caller,
    limit: Annotated[int, Query(ge=-1, le=2_147_483_647)] = 1000,
    offset: Annotated[int, Query(ge=0, le=2_147_483_647)] = 0,
) -> Response:
    """The users of the tenant, by name."""
    users = await auth.profiles(ports, caller, limit if limit > 0 else None, offset)
    metadata = {"limit": limit, "offset": offset, "count": len(users)}
    return answer([profile_view(user) for user in users], "Profiles retrieved", metadata=metadata)


@router.post("/profiles", operation_id="create_profile", status_code=201, response_model=Envelope[dict[str, Any]])
async def create_profile(ports: ThePorts, caller: Caller, body: ProfileBody, repeatable: MayRepeat) -> Response:
    """Make a user (admins only). Without a password one is made up; it is in this answer and never again."""
    given_name, _, last_name = (body.name or "").partition(" ")
    user = User(
        tenant=caller.tenant,
        username=body.username,
        email=body.email or "",
        given_name=given_name,
        last_name=last_name,
        is_admin=body.admin,
    )
    made, told = await auth.create_user(ports, caller, user, body.password, repeatable)
    result = profile_view(made) | ({"password": told} if told else {})
    return answer(result, "User created", status_code=201)


@router.get("/profiles/{username}", operation_id="get_profile", response_model=Envelope[dict[str, Any]])
async def get_profile(ports: ThePorts, caller: Caller, username: str) -> Response:
    """Any user of the tenant."""
    return answer(profile_view(await auth.profile(ports, caller, username)), "User profile retrieved")


@router.delete("/profiles/{username}", operation_id="delete_profile", response_model=Envelope[dict[str, Any]])
async def delete_profile(ports: ThePorts, caller: Caller, username: str) -> Response:
    """Delete a user (admins only)."""
    await auth.delete_user(ports, caller, username)
    return answer({"changes": 1}, f"User '{username}' deleted")


@router.post("/profiles/{username}/password", operation_id="set_password", response_model=Envelope[dict[str, Any]])
async def set_password(ports: ThePorts, caller: Caller, username: str, body: PasswordBody) -> Response:
    """Set one's own password, or as an admin anyone's. All logins of the user end."""
    told = await auth.set_password(ports, caller, username, body.password)
    return answer({"username": username} | ({"password": told} if told else {}), "Password set")


async def _client(request: Request, ports: Ports, tenant: Tenant, body: TokenBody) -> OAuthClient | None:
    """The client that asks, proven; None where none is named. Unauthenticated where what it says does not hold."""
    client_id, client_key = _basic(request) or (body.client_id, body.client_key)
    keyless = body.grant_type == "authorization_code" and client_key is None
    if (not client_id and not client_key) or keyless:
        return None
    return await oauth_clients.demand_client(ports, tenant.id, client_id or "", client_key or "")


def _basic(request: Request) -> tuple[str, str] | None:
    """User name and password of HTTP Basic; None for a request without. Unauthenticated for what is no such thing."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        said = b64decode(encoded.strip(), validate=True).decode()
        if not said.isprintable():  # NUL among that, which databases cannot even look for
            raise ValueError
    except ValueError:
        raise Unauthenticated("the Authorization header is not HTTP Basic; send base64 of 'id:key'") from None
    name, _, password = said.partition(":")
    return name, password


async def _token_body(request: Request) -> TokenBody:
    """The grant, from JSON or from a form as OAuth clients send it."""
    try:
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == FORM:
            text = (await request.body()).decode()
            return TokenBody.model_validate(dict(parse_qsl(text, keep_blank_values=True, max_num_fields=50)))
        return TokenBody.model_validate(await request.json())
    except ValidationError as wrong:
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in wrong.errors()]) from None
    except ValueError as unreadable:
        raise SpecInvalid.of("body", f"is neither JSON nor a form ({unreadable})", "send JSON") from None


def _metadata(base_url: str) -> dict[str, Any]:
    return {
        "issuer": f"{base_url}/v3/tokens",
        "authorization_endpoint": f"{base_url}/v3/oauth2/authorize",
        "token_endpoint": f"{base_url}/v3/oauth2/tokens",
        "jwks_uri": f"{base_url}/v3/oauth2/jwks",
        "registration_endpoint": f"{base_url}/v3/oauth2/clients",
        "grant_types_supported": ["password", "authorization_code", "implicit", "refresh_token"],
        "response_types_supported": list(Wanted),
        "code_challenge_methods_supported": ["S256"],
    }
