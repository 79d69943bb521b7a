"""Tenants, their users, and how these log in."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table

from scheduler.model.tenants import TenantStatus
from scheduler.store.columns import Instant, Record, Words, choice
from scheduler.store.schema.pieces import at, metadata, row_id, words

sites = Table(
    "sites",
    metadata,
    words("id", primary_key=True),
    words("base_url", null=True),
    Column("primary", Boolean, nullable=False),
    Column("services", Record(tuple[str, ...]), nullable=False),
    words("admin_tenant_id", null=True),
    at("created_at"),
)

tenants = Table(
    "tenants",
    metadata,
    words("id", primary_key=True),
    Column("site_id", Words, ForeignKey("sites.id"), nullable=False),
    words("owner"),
    words("admin_user"),
    words("description"),
    Column("status", choice(TenantStatus), nullable=False),
    words("created_by"),
    at("created_at"),
    at("updated_at"),
)

tenant_hosts = Table(
    "tenant_hosts",
    metadata,
    words("host", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False, index=True),
)

users = Table(
    "users",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("username", primary_key=True),
    words("email"),
    words("given_name"),
    words("last_name"),
    words("password_hash"),
    Column("is_admin", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    at("created_at"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    words("kid", primary_key=True),
    words("private_pem_sealed"),
    words("public_pem"),
    at("created_at", null=False),
    at("retired_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    words("jti", primary_key=True),
    words("family", index=True),
    words("tenant"),
    words("username"),
    Column("count", Integer, nullable=False),
    at("issued_at", null=False),
    Column("expires_at", Instant, nullable=False, index=True),
    at("rotated_at"),
    at("revoked_at"),
    words("client_id", null=True),
    Index(None, "tenant", "username"),
)

oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("client_id", primary_key=True),
    words("owner"),
    words("client_key_sealed"),
    words("callback_url"),
    words("display_name"),
    words("description"),
    at("created_at", null=False),
    at("updated_at", null=False),
    Index(None, "tenant", "owner"),
)
"""Programs that users log in with."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("user", primary_key=True),
    words("route", primary_key=True),
    words("key", primary_key=True),
    words("body_hash"),
    Column("answer", Record(Any), nullable=False),
    Column("created_at", Instant, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    row_id(),
    words("tenant"),
    words("actor"),
    words("action"),
    words("subject"),
    Column("detail", Record(dict[str, Any]), nullable=False),
    at("at", null=False),
    Index(None, "tenant", "id"),
)
