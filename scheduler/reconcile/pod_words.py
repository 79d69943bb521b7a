"""What people are told of an instance, from what was seen of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from scheduler.model.pods import PodInstance, PodSeen
from scheduler.model.runs import Observation

SLOW_START = timedelta(seconds=60)
"""A program that listens later than this is asked about."""


def queued_words(one: PodInstance, seen: Observation, look: PodSeen | None) -> str:
    """Why it does not run yet, as far as its place says."""
    waits_for = (look.waits_for if look is not None else "") or seen.reason_words or seen.reason
    return f"it waits on {one.system_id}" + (f": {waits_for}" if waits_for else "")


def closed_words(one: PodInstance, port: int, at: datetime) -> str:
    """That nobody listens on a port. The words stay the same while that does, so that they are written once."""
    if waits_for := one.seen.get("waits_for"):
        return f"it waits on {one.system_id}: {waits_for}"
    no_more = f"port {port} does not answer any more"
    if one.answered_at is not None or one.message == no_more:
        return no_more
    if one.started_at is None or at - one.started_at < SLOW_START:
        return f"it runs; port {port} does not answer yet"
    since = f"it runs since {one.started_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{since}, and nobody listens on port {port}: does its program use this port, on 0.0.0.0 or 127.0.0.1?"


def unreachable_words(one: PodInstance, since: datetime, why: str) -> str:
    """That its place does not answer."""
    return f"{one.system_id} has not answered since {since:%Y-%m-%d %H:%M:%S} UTC: {why}"


def seen_of(look: PodSeen) -> Mapping[str, Any]:
    """A look as ``status_container`` shows it."""
    words = {"phase": look.phase, "reason": look.reason, "waits_for": look.waits_for, "node": look.node}
    said = {name: word for name, word in words.items() if word}
    return {**said, "ready": look.is_ready, "restarts": look.restarts, **dict(look.details)}
