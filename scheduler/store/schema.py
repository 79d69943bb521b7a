"""The tables. What is searched or guarded is a column; what is only carried is one JSON record."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    text,
)

from images.host import HostFacts
from images.needs import Needs
from scheduler.model.apps import App
from scheduler.model.helper_jobs import HelperPurpose, HelperState
from scheduler.model.images import CopyState, PinnedImage, PushedKind
from scheduler.model.jobs import FinishedRun, JobSpec, Place, Role
from scheduler.model.plan import Decision
from scheduler.model.pod_catalog import FilesStatus, PodKind
from scheduler.model.pods import Desired, InstanceState, PodDefinition, PodStatus
from scheduler.model.runs import Ending, JobType, Observation, RunSpec
from scheduler.model.scheduler_profiles import SchedulerProfile
from scheduler.model.snapshots import SystemSnapshot
from scheduler.model.states import AttemptState, Condition, JobState
from scheduler.model.strays import Standing
from scheduler.model.systems import AuthnMethod, System, SystemKind
from scheduler.model.tenants import TenantStatus
from scheduler.model.users import Permission
from scheduler.store.columns import Instant, Record, RowId, Words, choice

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[int]:
    return Column("id", RowId, primary_key=True, autoincrement=True)


def _words(name: str, *, null: bool = False, **kwargs: Any) -> Column[str]:
    return Column(name, Words, nullable=null, **kwargs)


def _at(name: str, *, null: bool = True) -> Column[Any]:
    return Column(name, Instant, nullable=null)


def _only_where_set(name: str) -> Index:
    """An index of the few rows in which a column is not empty."""
    there = text(f"{name} IS NOT NULL")
    return Index(None, name, sqlite_where=there, postgresql_where=there)


def _only_where_empty(empty: str, *names: str, unique: bool = False) -> Index:
    """An index over the rows in which a column is empty."""
    there = text(f"{empty} IS NULL")
    return Index(None, *names, unique=unique, sqlite_where=there, postgresql_where=there)


# -- tenants and users -------------------------------------------------------------------------------------------

sites = Table(
    "sites",
    metadata,
    _words("id", primary_key=True),
    _words("base_url", null=True),
    Column("primary", Boolean, nullable=False),
    Column("services", Record(tuple[str, ...]), nullable=False),
    _words("admin_tenant_id", null=True),
    _at("created_at"),
)

tenants = Table(
    "tenants",
    metadata,
    _words("id", primary_key=True),
    Column("site_id", Words, ForeignKey("sites.id"), nullable=False),
    _words("owner"),
    _words("admin_user"),
    _words("description"),
    Column("status", choice(TenantStatus), nullable=False),
    _words("created_by"),
    _at("created_at"),
    _at("updated_at"),
)

tenant_hosts = Table(
    "tenant_hosts",
    metadata,
    _words("host", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False, index=True),
)

users = Table(
    "users",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("username", primary_key=True),
    _words("email"),
    _words("given_name"),
    _words("last_name"),
    _words("password_hash"),
    Column("is_admin", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    _at("created_at"),
)

signing_keys = Table(
    "signing_keys",
    metadata,
    _words("kid", primary_key=True),
    _words("private_pem_sealed"),
    _words("public_pem"),
    _at("created_at", null=False),
    _at("retired_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    _words("jti", primary_key=True),
    _words("family", index=True),
    _words("tenant"),
    _words("username"),
    Column("count", Integer, nullable=False),
    _at("issued_at", null=False),
    Column("expires_at", Instant, nullable=False, index=True),
    _at("rotated_at"),
    _at("revoked_at"),
    _words("client_id", null=True),
    Index(None, "tenant", "username"),
)

oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("client_id", primary_key=True),
    _words("owner"),
    _words("client_key_sealed"),
    _words("callback_url"),
    _words("display_name"),
    _words("description"),
    _at("created_at", null=False),
    _at("updated_at", null=False),
    Index(None, "tenant", "owner"),
)
"""Programs that users log in with."""

# -- systems and apps --------------------------------------------------------------------------------------------

systems = Table(
    "systems",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("id", primary_key=True),
    _words("owner"),
    _words("host"),
    Column("kind", choice(SystemKind), nullable=False),
    Column("can_exec", Boolean, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("is_public", Boolean, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    Column("version", Integer, nullable=False),
    Column("definition", Record(System), nullable=False),
)

scheduler_profiles = Table(
    "scheduler_profiles",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("name", primary_key=True),
    _words("owner"),
    Column("definition", Record(SchedulerProfile), nullable=False),
)

grants = Table(
    "grants",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("kind", primary_key=True),
    _words("name", primary_key=True),
    _words("user", primary_key=True),
    Column("permission", choice(Permission), primary_key=True),
    Index(None, "tenant", "kind", "user"),
)
"""Who may do what with a thing of a kind (``system``, ``app``) beyond its owner."""

credentials = Table(
    "credentials",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("system_id", primary_key=True),
    _words("user", primary_key=True),
    _words("login_user"),
    Column("method", choice(AuthnMethod), nullable=False),
    _words("private_key_sealed", null=True),
    _words("public_key", null=True),
    _words("password_sealed", null=True),
    _at("verified_at"),
    _at("created_at"),
)

registry_logins = Table(
    "registry_logins",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("user", primary_key=True),
    _words("registry", primary_key=True),
    _words("username"),
    _words("secret_sealed"),
    _at("verified_at"),
    _at("created_at"),
)
"""How users are known to registries of images."""

apps = Table(
    "apps",
    metadata,
    _id(),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _words("app_id"),
    _words("version"),
    _words("owner"),
    Column("enabled", Boolean, nullable=False),
    Column("version_enabled", Boolean, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("is_public", Boolean, nullable=False),
    _at("created_at"),
    _at("updated_at"),
    Column("row_version", Integer, nullable=False),
    Column("definition", Record(App), nullable=False),
    UniqueConstraint("tenant", "app_id", "version"),
)

# -- jobs --------------------------------------------------------------------------------------------------------

jobs = Table(
    "jobs",
    metadata,
    _id(),
    _words("uuid", unique=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _words("owner"),
    _words("created_by"),
    _words("name"),
    _words("app_id"),
    _words("app_version"),
    _words("system_id", null=True),
    _words("queue", null=True),
    Column("job_type", choice(JobType)),
    _words("archive_system_id", null=True),
    Column("state", choice(JobState), nullable=False),
    Column("condition", choice(Condition)),
    _words("last_message"),
    Column("resume_state", choice(JobState)),
    Column("blocked_count", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("last_attempt", Integer, nullable=False),
    _words("remote_id", null=True),
    _words("remote_outcome", null=True),
    _words("remote_result", null=True),
    _at("remote_submitted_at"),
    _at("remote_started_at"),
    _at("remote_ended_at"),
    _at("expected_start_at"),
    _at("cancel_requested_at"),
    _at("created_at", null=False),
    _at("updated_at", null=False),
    _at("ended_at"),
    Column("visible", Boolean, nullable=False),
    _words("tracking_id", null=True),
    Column("version", Integer, nullable=False),
    _at("next_look_at"),
    _at("review_at"),
    _words("lease_owner", null=True),
    _at("lease_until"),
    Column("fence", BigInteger, nullable=False),
    Column("spec", Record(JobSpec), nullable=False),
    Column("place", Record(Place)),
    Column("decision", Record(Decision)),
    Column("observation", Record(Observation)),
    Column("image", Record(PinnedImage)),
    Index(None, "tenant", "owner", "id"),
    Index(None, "state", "next_look_at"),
    _only_where_set("review_at"),
)
"""``next_look_at`` is empty once a job has ended. ``review_at``: when its place in a queue is thought over again.

``name`` to ``archive_system_id`` repeat what spec and place say, to be searched.
"""

attempts = Table(
    "attempts",
    metadata,
    _id(),
    Column("job_id", RowId, ForeignKey("jobs.id"), nullable=False),
    _words("job_uuid"),
    _words("tenant"),
    _words("owner"),
    Column("number", Integer, nullable=False),
    _words("marker", unique=True),
    _words("system_id"),
    _words("queue", null=True),
    Column("state", choice(AttemptState), nullable=False),
    Column("version", Integer, nullable=False),
    _words("remote_id", null=True),
    _at("intended_at", null=False),
    _at("submitted_at"),
    _at("started_at"),
    _at("ended_at"),
    _at("missing_since"),
    Column("fence", BigInteger, nullable=False),
    Column("role", choice(Role), nullable=False),
    _at("next_look_at"),
    _words("lease_owner", null=True),
    _at("lease_until"),
    _at("unwanted_at"),
    _at("go_at"),
    Column("run", Record(RunSpec), nullable=False),
    Column("place", Record(Place)),
    _words("awaits_image", null=True),
    UniqueConstraint("job_id", "number"),
    _only_where_set("next_look_at"),
    _only_where_set("awaits_image"),
    _only_where_empty("ended_at", "tenant", "system_id"),
    Index(None, "tenant", "id"),
)

history = Table(
    "history",
    metadata,
    _id(),
    Column("job_id", RowId, ForeignKey("jobs.id"), nullable=False),
    _words("event"),
    _words("detail"),
    _words("description"),
    _at("at", null=False),
    Index(None, "job_id", "id"),
)

# -- what nodes can do -------------------------------------------------------------------------------------------

node_facts = Table(
    "node_facts",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("system_id", primary_key=True),
    _words("node_class", primary_key=True),
    Column("facts", Record(HostFacts), nullable=False),
    _at("seen_at"),
)
"""``seen_at`` is empty where somebody asked to look again."""

helper_jobs = Table(
    "helper_jobs",
    metadata,
    _words("marker", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _words("system_id"),
    _words("owner"),
    Column("purpose", choice(HelperPurpose), nullable=False),
    _words("subject"),
    Column("run", Record(RunSpec), nullable=False),
    Column("state", choice(HelperState), nullable=False),
    _words("remote_id", null=True),
    _at("intended_at", null=False),
    _at("ended_at"),
    _words("message"),
    _at("next_look_at"),
    _words("lease_owner", null=True),
    _at("lease_until"),
    Column("version", Integer, nullable=False),
    _only_where_empty("ended_at", "tenant", "system_id", "owner", unique=True),
)
"""At most one of each login is live: the index says so."""

# -- images ------------------------------------------------------------------------------------------------------

image_records = Table(
    "image_records",
    metadata,
    _words("manifest_digest", primary_key=True),
    Column("needs", Record(Needs), nullable=False),
    _at("created_at", null=False),
)
"""What images need, of all tenants: it follows from the content alone."""

pushed_images = Table(
    "pushed_images",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("user", primary_key=True),
    Column("digest", Words, primary_key=True, index=True),
    Column("kind", choice(PushedKind), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    _words("name"),
    _at("created_at", null=False),
)
"""Files that users pushed; one of the same bytes lies on the disk once."""

image_copies = Table(
    "image_copies",
    metadata,
    _id(),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _words("system_id"),
    _words("owner"),
    _words("manifest_digest"),
    _words("reference"),
    _words("asked_by"),
    Column("state", choice(CopyState), nullable=False),
    _words("file_digest", null=True),
    Column("size_bytes", BigInteger),
    Column("done_bytes", BigInteger, nullable=False),
    Column("total_bytes", BigInteger),
    Column("sent_bytes", BigInteger),
    Column("reused_bytes", BigInteger),
    Column("figures", Record(dict[str, float]), nullable=False),
    _words("message"),
    Column("pinned", Boolean, nullable=False),
    _at("created_at", null=False),
    _at("updated_at", null=False),
    _at("present_at"),
    _at("used_at"),
    _at("next_look_at"),
    _words("lease_owner", null=True),
    _at("lease_until"),
    Column("version", Integer, nullable=False),
    UniqueConstraint("tenant", "system_id", "owner", "manifest_digest"),
    _only_where_set("next_look_at"),
    Index(None, "manifest_digest", "tenant"),
    Index(None, "tenant", "system_id", "present_at"),
)
"""``next_look_at`` is empty while nothing is to be done for a copy. ``owner``: of the login whose store it lies in."""

# -- pods --------------------------------------------------------------------------------------------------------

_LIVE_INSTANCE = text("state <> 'ENDED'")

pods = Table(
    "pods",
    metadata,
    _words("uuid", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _words("id"),
    _words("owner"),
    Column("status", choice(PodStatus), nullable=False),
    Column("desired", choice(Desired), nullable=False),
    _words("message"),
    _words("description"),
    _words("template"),
    Column("instance_number", Integer, nullable=False),
    _at("created_at", null=False),
    _at("updated_at", null=False),
    _at("started_at"),
    _at("stop_at"),
    _at("delete_requested_at"),
    _at("wanted_at"),
    _at("held_until"),
    _at("next_look_at"),
    _words("lease_owner", null=True),
    _at("lease_until"),
    Column("version", Integer, nullable=False),
    Column("asked", Record(dict[str, Any]), nullable=False),
    Column("definition", Record(PodDefinition), nullable=False),
    UniqueConstraint("tenant", "id"),
    _only_where_set("next_look_at"),
)
"""``next_look_at`` is empty while nothing is to be done for a pod until somebody wants something."""

pod_instances = Table(
    "pod_instances",
    metadata,
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), primary_key=True),
    Column("number", Integer, primary_key=True),
    _words("marker", unique=True),
    _words("tenant"),
    _words("system_id"),
    _words("owner"),
    _words("queue", null=True),
    Column("state", choice(InstanceState), nullable=False),
    _words("remote_id", null=True),
    _at("intended_at", null=False),
    _at("started_at"),
    _at("answered_at"),
    _at("ended_at"),
    _at("unwanted_at"),
    _at("go_on_until"),
    _at("missing_since"),
    Column("wait_p90_s", Float, nullable=False),
    Column("ending", choice(Ending)),
    Column("exit_code", Integer),
    _words("message"),
    Column("version", Integer, nullable=False),
    Column("run", Record(RunSpec), nullable=False),
    Column("seen", Record(dict[str, Any]), nullable=False),
    Index("ix_pod_instances_live", "marker", sqlite_where=_LIVE_INSTANCE, postgresql_where=_LIVE_INSTANCE),
)

pod_logs = Table(
    "pod_logs",
    metadata,
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), primary_key=True),
    Column("number", Integer, primary_key=True),
    _words("text"),
)
"""The end of what instances wrote that have ended."""

pod_actions = Table(
    "pod_actions",
    metadata,
    _id(),
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), nullable=False),
    _at("at", null=False),
    _words("words"),
    Index(None, "pod_uuid", "id"),
)

pod_credentials = Table(
    "pod_credentials",
    metadata,
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), primary_key=True),
    _words("user_password_sealed"),
    _words("service_password_sealed"),
)

pod_places = Table(
    "pod_places",
    metadata,
    _words("pod_uuid", primary_key=True),
    _words("system_id", primary_key=True),
    _words("owner", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _words("directory"),
    _at("since_at", null=False),
    _at("gone_at"),
    _at("cleared_at"),
    _only_where_set("gone_at"),
)
"""Where instances of pods have been. These outlive their pods: what is left of one is known for ours by them."""

strays = Table(
    "strays",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("system_id", primary_key=True),
    _words("owner", primary_key=True),
    Column("job_type", choice(JobType), primary_key=True),
    _words("marker", primary_key=True),
    _words("remote_id"),
    Column("standing", choice(Standing), nullable=False),
    _at("first_seen_at", null=False),
    _at("last_seen_at", null=False),
    _at("confirmed_at"),
)
"""What was seen at places and no row waits for; until ``confirmed_at`` one look has seen it."""

# -- around pods -------------------------------------------------------------------------------------------------

pod_grants = Table(
    "pod_grants",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    Column("kind", choice(PodKind), primary_key=True),
    _words("name", primary_key=True),
    _words("user", primary_key=True),
    Column("level", Integer, nullable=False),
    Index(None, "tenant", "kind", "user"),
)

pod_templates = Table(
    "pod_templates",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("id", primary_key=True),
    _words("owner"),
    _words("description"),
    Column("metatags", Record(tuple[str, ...]), nullable=False),
    _words("archive_message"),
    _at("created_at", null=False),
    _at("updated_at", null=False),
)

pod_template_tags = Table(
    "pod_template_tags",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("template_id", primary_key=True),
    _words("tag", primary_key=True),
    Column("created_at", Instant, primary_key=True),
    Column("definition", Record(dict[str, Any]), nullable=False),
    _words("commit_message"),
    _words("added_by"),
    Column("is_stateful", Boolean),
)
"""To the second: what one tag names is told apart by it on the wire."""

pod_images = Table(
    "pod_images",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("image", primary_key=True),
    Column("tenants", Record(tuple[str, ...]), nullable=False),
    _words("description"),
    _words("added_by"),
    _at("created_at", null=False),
)
"""``tenant``: whose admin listed it; ``tenants``: for whom."""


def _home_of_files() -> tuple[Column[Any], ...]:
    """Where the files of a volume or a snapshot lie, and who brings them there now."""
    return (
        _words("system_id"),
        _words("login_owner"),
        _words("directory"),
        _at("moved_at"),
        _words("lease_owner", null=True),
        _at("lease_until"),
    )


pod_volumes = Table(
    "pod_volumes",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("id", primary_key=True),
    _words("uuid"),
    _words("owner"),
    _words("description"),
    Column("size_limit_mib", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", choice(FilesStatus), nullable=False),
    _words("message"),
    *_home_of_files(),
    _at("created_at", null=False),
    _at("updated_at", null=False),
    Column("version", Integer, nullable=False),
    Index(None, "status"),
)

pod_snapshots = Table(
    "pod_snapshots",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("id", primary_key=True),
    _words("uuid"),
    _words("owner"),
    _words("source_volume_id"),
    _words("source_path"),
    _words("destination_path"),
    _words("description"),
    Column("size_limit_mib", BigInteger, nullable=False),
    _words("cron"),
    _words("retention_policy"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("status", choice(FilesStatus), nullable=False),
    _words("message"),
    _at("next_at"),
    *_home_of_files(),
    _at("created_at", null=False),
    _at("updated_at", null=False),
    Column("version", Integer, nullable=False),
    _only_where_set("next_at"),
    Index(None, "status"),
)

# -- what placement learns from ----------------------------------------------------------------------------------

finished_runs = Table(
    "finished_runs",
    metadata,
    _id(),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    _at("ended_at", null=False),
    Column("run", Record(FinishedRun), nullable=False),
    Index(None, "tenant", "ended_at"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("system_id", primary_key=True),
    _words("login_user", primary_key=True),
    Column("hour", Instant, primary_key=True),
    _at("taken_at", null=False),
    Column("snapshot", Record(SystemSnapshot), nullable=False),
)
"""The newest look of each hour; the key itself keeps the table thin."""

seen_jobs = Table(
    "seen_jobs",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("system_id", primary_key=True),
    _words("remote_id", primary_key=True),
    Column("submitted_at", Instant, primary_key=True),
    _words("partition"),
    Column("cores", BigInteger, nullable=False),
    Column("walltime_s", BigInteger, nullable=False),
    _words("user"),
    _at("started_at"),
    _at("ended_at"),
    Column("seen_at", Instant, nullable=False, index=True),
    Index(None, "tenant", "system_id", "submitted_at"),
)
"""Everyone's jobs as looks and imports showed them; sites use numbers again, so an instant is part of the key."""

# -- requests ----------------------------------------------------------------------------------------------------

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    _words("user", primary_key=True),
    _words("route", primary_key=True),
    _words("key", primary_key=True),
    _words("body_hash"),
    Column("answer", Record(Any), nullable=False),
    Column("created_at", Instant, nullable=False, index=True),
)

audit = Table(
    "audit",
    metadata,
    _id(),
    _words("tenant"),
    _words("actor"),
    _words("action"),
    _words("subject"),
    Column("detail", Record(dict[str, Any]), nullable=False),
    _at("at", null=False),
    Index(None, "tenant", "id"),
)
