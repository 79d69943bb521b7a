"""Pods, their instances, and what is left of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Float, ForeignKey, Index, Integer, Table, UniqueConstraint, text

from scheduler.model.pods import Desired, InstanceState, PodDefinition, PodStatus
from scheduler.model.runs import Ending, JobType, RunSpec
from scheduler.model.strays import Standing
from scheduler.store.columns import Record, Words, choice
from scheduler.store.schema.pieces import at, metadata, only_where_set, row_id, words

_LIVE_INSTANCE = text("state <> 'ENDED'")

pods = Table(
    "pods",
    metadata,
    words("uuid", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    words("id"),
    words("owner"),
    Column("status", choice(PodStatus), nullable=False),
    Column("desired", choice(Desired), nullable=False),
    words("message"),
    words("description"),
    words("template"),
    Column("instance_number", Integer, nullable=False),
    at("created_at", null=False),
    at("updated_at", null=False),
    at("started_at"),
    at("stop_at"),
    at("delete_requested_at"),
    at("wanted_at"),
    at("held_until"),
    at("next_look_at"),
    words("lease_owner", null=True),
    at("lease_until"),
    Column("version", Integer, nullable=False),
    Column("asked", Record(dict[str, Any]), nullable=False),
    Column("definition", Record(PodDefinition), nullable=False),
    UniqueConstraint("tenant", "id"),
    only_where_set("next_look_at"),
)
"""``next_look_at`` is empty while nothing is to be done for a pod until somebody wants something."""

pod_instances = Table(
    "pod_instances",
    metadata,
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), primary_key=True),
    Column("number", Integer, primary_key=True),
    words("marker", unique=True),
    words("tenant"),
    words("system_id"),
    words("owner"),
    words("queue", null=True),
    Column("state", choice(InstanceState), nullable=False),
    words("remote_id", null=True),
    at("intended_at", null=False),
    at("started_at"),
    at("answered_at"),
    at("ended_at"),
    at("unwanted_at"),
    at("go_on_until"),
    at("missing_since"),
    Column("wait_p90_s", Float, nullable=False),
    Column("ending", choice(Ending)),
    Column("exit_code", Integer),
    words("message"),
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
    words("text"),
)
"""The end of what instances wrote that have ended."""

pod_actions = Table(
    "pod_actions",
    metadata,
    row_id(),
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), nullable=False),
    at("at", null=False),
    words("words"),
    Index(None, "pod_uuid", "id"),
)

pod_credentials = Table(
    "pod_credentials",
    metadata,
    Column("pod_uuid", Words, ForeignKey("pods.uuid"), primary_key=True),
    words("user_password_sealed"),
    words("service_password_sealed"),
)

pod_places = Table(
    "pod_places",
    metadata,
    words("pod_uuid", primary_key=True),
    words("system_id", primary_key=True),
    words("owner", primary_key=True),
    Column("tenant", Words, ForeignKey("tenants.id"), nullable=False),
    words("directory"),
    at("since_at", null=False),
    at("gone_at"),
    at("cleared_at"),
    only_where_set("gone_at"),
)
"""Where instances of pods have been. These outlive their pods: what is left of one is known for ours by them."""

strays = Table(
    "strays",
    metadata,
    Column("tenant", Words, ForeignKey("tenants.id"), primary_key=True),
    words("system_id", primary_key=True),
    words("owner", primary_key=True),
    Column("job_type", choice(JobType), primary_key=True),
    words("marker", primary_key=True),
    words("remote_id"),
    Column("standing", choice(Standing), nullable=False),
    at("first_seen_at", null=False),
    at("last_seen_at", null=False),
    at("confirmed_at"),
)
"""What was seen at places and no row waits for; until ``confirmed_at`` one look has seen it."""
