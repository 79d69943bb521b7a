"""Systems and apps, who may use them, and what nodes of systems can do."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from images.host import HostFacts
from scheduler.model.apps import App
from scheduler.model.helper_jobs import HelperPurpose, HelperState
from scheduler.model.runs import RunSpec
from scheduler.model.scheduler_profiles import SchedulerProfile
from scheduler.model.systems import AuthnMethod, System, SystemKind
from scheduler.model.users import Permission
from scheduler.store.columns import Record, Words, choice
from scheduler.store.schema.pieces import at, metadata, only_where_empty, row_id, words

systems = Table(
    "systems",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("id", primary_key=True),
    words("owner"),
    words("host"),
    Column("kind", choice(SystemKind), nullable=False),
    Column("can_exec", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("is_public", Boolean, nullable=False),
    at("created_at"),
    at("updated_at"),
    Column("version", Integer, nullable=False),
    Column("definition", Record(System), nullable=False),
)

scheduler_profiles = Table(
    "scheduler_profiles",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("name", primary_key=True),
    words("owner"),
    Column("definition", Record(SchedulerProfile), nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("kind", primary_key=True),
    words("name", primary_key=True),
    words("user", primary_key=True),
    Column("permission", choice(Permission), primary_key=True),
    Index(None, "tenant", "kind", "user"),
)
"""Who may do what with a thing of a kind (``system``, ``app``) beyond its owner."""

credentials = Table(
    "credentials",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("system_id", primary_key=True),
    words("user", primary_key=True),
    words("login_user"),
    Column("method", choice(AuthnMethod), nullable=False),
    words("private_key_sealed", null=True),
    words("public_key", null=True),
    words("password_sealed", null=True),
    at("verified_at"),
    at("created_at"),
)

registry_logins = Table(
    "registry_logins",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("user", primary_key=True),
    words("registry", primary_key=True),
    words("username"),
    words("secret_sealed"),
    at("verified_at"),
    at("created_at"),
)
"""How users are known to registries of images."""

apps = Table(
    "apps",
    metadata,
    row_id(),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    words("app_id"),
    words("version"),
    words("owner"),
    Column("enabled", Boolean, nullable=False),
    Column("version_enabled", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("is_public", Boolean, nullable=False),
    at("created_at"),
    at("updated_at"),
    Column("row_version", Integer, nullable=False),
    Column("definition", Record(App), nullable=False),
    UniqueConstraint("tenant", "app_id", "version"),
)

node_facts = Table(
    "node_facts",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("system_id", primary_key=True),
    words("node_class", primary_key=True),
    Column("facts", Record(HostFacts), nullable=False),
    at("seen_at"),
)
"""``seen_at`` is empty where somebody asked to look again."""

helper_jobs = Table(
    "helper_jobs",
    metadata,
    words("marker", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    words("system_id"),
    words("owner"),
    Column("purpose", choice(HelperPurpose), nullable=False),
    words("subject"),
    Column("run", Record(RunSpec), nullable=False),
    Column("state", choice(HelperState), nullable=False),
    words("remote_id", null=True),
    at("intended_at", null=False),
    at("ended_at"),
    words("message"),
    at("next_look_at"),
    words("lease_owner", null=True),
    at("lease_until"),
    Column("version", Integer, nullable=False),
    only_where_empty("ended_at", "tenant", "system_id", "owner", unique=True),
)
"""At most one of each login is live: the index says so."""
