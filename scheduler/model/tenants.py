"""Who shares a Berth: sites (institutions) and tenants (communities of users that cannot see each other)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class TenantStatus(StrEnum):
    """Tapis's words for whether a tenant takes requests."""

    DRAFT = "draft"
    ACTIVE = "active"
    INACTIVE = "inactive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An institution. ``base_url`` is None where it is whatever the client typed."""

    id: str
    base_url: str | None = None
    primary: bool = True
    services: tuple[str, ...] = ()
    admin_tenant_id: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An isolated community of users. ``hosts`` are the exact Host names under which it answers."""

    id: str
    site_id: str
    owner: str = ""
    admin_user: str = "admin"
    description: str = ""
    status: TenantStatus = TenantStatus.ACTIVE
    hosts: tuple[str, ...] = ()
    created_by: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
