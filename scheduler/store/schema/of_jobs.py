"""Jobs, their attempts and what happened to them, and what placement learns from them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from scheduler.model.images import PinnedImage
from scheduler.model.jobs import FinishedRun, JobSpec, Place, Role
from scheduler.model.plan import Decision
from scheduler.model.runs import JobType, Observation, RunSpec
from scheduler.model.snapshots import SystemSnapshot
from scheduler.model.states import AttemptState, Condition, JobState
from scheduler.store.columns import Instant, Record, RowId, Words, choice
from scheduler.store.schema.pieces import at, metadata, only_where_empty, only_where_set, row_id, words

jobs = Table(
    "jobs",
    metadata,
    row_id(),
    words("uuid", unique=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    words("owner"),
    words("created_by"),
    words("name"),
    words("app_id"),
    words("app_version"),
    words("system_id", null=True),
    words("queue", null=True),
    Column("job_type", choice(JobType)),
    words("archive_system_id", null=True),
    Column("state", choice(JobState), nullable=False),
    Column("condition", choice(Condition)),
    words("last_message"),
    Column("resume_state", choice(JobState)),
    Column("blocked_count", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("last_attempt", Integer, nullable=False),
    words("remote_id", null=True),
    words("remote_outcome", null=True),
    words("remote_result", null=True),
    at("remote_submitted_at"),
    at("remote_started_at"),
    at("remote_ended_at"),
    at("expected_start_at"),
    at("cancel_requested_at"),
    at("created_at", null=False),
    at("updated_at", null=False),
    at("ended_at"),
    Column("visible", Boolean, nullable=False),
    words("tracking_id", null=True),
    Column("version", Integer, nullable=False),
    at("next_look_at"),
    at("review_at"),
    words("lease_owner", null=True),
    at("lease_until"),
    Column("fence", BigInteger, nullable=False),
    Column("spec", Record(JobSpec), nullable=False),
    Column("place", Record(Place)),
    Column("decision", Record(Decision)),
    Column("observation", Record(Observation)),
    Column("image", Record(PinnedImage)),
    Index(None, "tenant", "owner", "id"),
    Index(None, "state", "next_look_at"),
    only_where_set("review_at"),
)
"""``next_look_at`` is empty once a job has ended. ``review_at``: when its place in a queue is thought over again.

``name`` to ``archive_system_id`` repeat what spec and place say, to be searched.
"""

attempts = Table(
    "attempts",
    metadata,
    row_id(),
    Column("job_id", RowId, ForeignKey("jobs.id"), nullable=False),
    words("job_uuid"),
    words("tenant"),
    words("owner"),
    Column("number", Integer, nullable=False),
    words("marker", unique=True),
    words("system_id"),
    words("queue", null=True),
    Column("state", choice(AttemptState), nullable=False),
    Column("version", Integer, nullable=False),
    words("remote_id", null=True),
    at("intended_at", null=False),
    at("submitted_at"),
    at("started_at"),
    at("ended_at"),
    at("missing_since"),
    Column("fence", BigInteger, nullable=False),
    Column("role", choice(Role), nullable=False),
    at("next_look_at"),
    words("lease_owner", null=True),
    at("lease_until"),
    at("unwanted_at"),
    at("go_at"),
    Column("run", Record(RunSpec), nullable=False),
    Column("place", Record(Place)),
    words("awaits_image", null=True),
    UniqueConstraint("job_id", "number"),
    only_where_set("next_look_at"),
    only_where_set("awaits_image"),
    only_where_empty("ended_at", "tenant", "system_id"),
    Index(None, "tenant", "id"),
)

history = Table(
    "history",
    metadata,
    row_id(),
    Column("job_id", RowId, ForeignKey("jobs.id"), nullable=False),
    words("event"),
    words("detail"),
    words("description"),
    at("at", null=False),
    Index(None, "job_id", "id"),
)

finished_runs = Table(
    "finished_runs",
    metadata,
    row_id(),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    at("ended_at", null=False),
    Column("run", Record(FinishedRun), nullable=False),
    Index(None, "tenant", "ended_at"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("system_id", primary_key=True),
    words("login_user", primary_key=True),
    Column("hour", Instant, primary_key=True),
    at("taken_at", null=False),
    Column("snapshot", Record(SystemSnapshot), nullable=False),
)
"""The newest look of each hour; the key itself keeps the table thin."""

seen_jobs = Table(
    "seen_jobs",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("system_id", primary_key=True),
    words("remote_id", primary_key=True),
    Column("submitted_at", Instant, primary_key=True),
    words("partition"),
    Column("cores", BigInteger, nullable=False),
    Column("walltime_s", BigInteger, nullable=False),
    words("user"),
    at("started_at"),
    at("ended_at"),
    Column("seen_at", Instant, nullable=False, index=True),
    Index(None, "tenant", "system_id", "submitted_at"),
)
"""Everyone's jobs as looks and imports showed them; sites use numbers again, so an instant is part of the key."""
