"""Sites and tenants. Public: clients ask before they log in, to find their tenant by its base URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.context import BaseUrl, TheEdge, TheTenant
from api.envelope import Envelope, answer
from api.strict import StrictRoute
from scheduler.model.errors import NotFound
from scheduler.model.tenants import Site, Tenant
from scheduler.model.units import zulu
from scheduler.services import auth

router = APIRouter(tags=["tenants"], route_class=StrictRoute)

Window = Annotated[int, Query(ge=0, le=2_147_483_647)]


@router.get("/v3/sites", operation_id="list_sites", response_model=Envelope[list[dict[str, Any]]])
async def list_sites(
    edge: TheEdge, tenant: TheTenant, base_url: BaseUrl, limit: Window = 1000, offset: Window = 0
) -> Response:
    """All sites."""
    sites, _ = await auth.all_tenants(edge.ports)
    found = sites[offset : offset + limit]
    return answer([site_view(site, base_url) for site in found], "sites retrieved")


@router.get("/v3/sites/{site_id}", operation_id="get_site", response_model=Envelope[dict[str, Any]])
async def get_site(edge: TheEdge, site_id: str, base_url: BaseUrl) -> Response:
    """One site."""
    sites, _ = await auth.all_tenants(edge.ports)
    for site in sites:
        if site.id == site_id:
            return answer(site_view(site, base_url), "site retrieved")
    raise NotFound("site", site_id)


@router.get("/v3/tenants", operation_id="list_tenants", response_model=Envelope[list[dict[str, Any]]])
async def list_tenants(
    edge: TheEdge, tenant: TheTenant, base_url: BaseUrl, limit: Window = 1000, offset: Window = 0
) -> Response:
    """All tenants; the one that is meant by the address has that address as its ``base_url``."""
    _, tenants = await auth.all_tenants(edge.ports)
    found = tenants[offset : offset + limit]
    pem = edge.tokens.public_pem()
    return answer([tenant_view(each, own_url(each, tenant, base_url), pem) for each in found], "tenants retrieved")


@router.get("/v3/tenants/{tenant_id}", operation_id="get_tenant", response_model=Envelope[dict[str, Any]])
async def get_tenant(edge: TheEdge, tenant_id: str, tenant: TheTenant, base_url: BaseUrl) -> Response:
    """One tenant."""
    _, tenants = await auth.all_tenants(edge.ports)
    for each in tenants:
        if each.id == tenant_id:
            url = own_url(each, tenant, base_url)
            return answer(tenant_view(each, url, edge.tokens.public_pem()), "tenant retrieved")
    raise NotFound("tenant", tenant_id)


def own_url(each: Tenant, meant: Tenant, base_url: str) -> str:
    """The address of a tenant: as the client typed it where it means this one, else by its first host."""
    if each.id == meant.id or not each.hosts:
        return base_url
    return f"{base_url.split('://', 1)[0]}://{each.hosts[0]}"


def site_view(site: Site, base_url: str) -> Mapping[str, Any]:
    """A site in Tapis's words."""
    return {
        "site_id": site.id,
        "base_url": site.base_url or base_url,
        "primary": site.primary,
        "services": list(site.services),
        "tenant_base_url_template": site.base_url or base_url,
        "site_admin_tenant_id": site.admin_tenant_id,
    }


def tenant_view(tenant: Tenant, base_url: str, public_pem: str) -> Mapping[str, Any]:
    """A tenant in Tapis's words."""
    return {
        "tenant_id": tenant.id,
        "base_url": base_url,
        "site_id": tenant.site_id,
        "token_service": f"{base_url}/v3/tokens",
        "security_kernel": f"{base_url}/v3/security",
        "authenticator": f"{base_url}/v3/oauth2",
        "owner": tenant.owner,
        "admin_user": tenant.admin_user,
        "token_gen_services": ["authenticator"],
        "service_ldap_connection_id": None,
        "user_ldap_connection_id": None,
        "public_key": public_pem,
        "status": tenant.status,
        "description": tenant.description,
        "created_by": tenant.created_by,
        "last_updated_by": tenant.created_by,
        "create_time": zulu(tenant.created_at) if tenant.created_at else None,
        "last_update_time": zulu(tenant.updated_at) if tenant.updated_at else None,
    }
