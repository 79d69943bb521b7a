"""Names that Berth makes up: job uuids, markers, and what identifies a login."""

from __future__ import annotations

import re
import uuid
from typing import NamedTuple, NewType

Marker = NewType("Marker", str)
"""``berth-<job uuid>-<attempt>``: the name under which at most one remote job may exist."""

RemoteId = NewType("RemoteId", str)
"""What the system calls a job: a Slurm job id, a pid with start time, an object name."""

MARKER_BEGINS = "berth-"
_MARKER = re.compile(MARKER_BEGINS + r"[0-9a-f-]{36}-007-[0-9]{1,6}")


class LoginKey(NamedTuple):
    """One system as one login: the key under which backends are kept."""

    tenant: str
    system_id: str
    owner: str
    """Whose credential is used: a Berth user, or the account of a system on which all users share one."""


def new_job_uuid() -> str:
    """A job uuid as Tapis writes it."""
    return f"{uuid.uuid4()}-007"


def marker_for(job_uuid: str, attempt: int) -> Marker:
    """The marker of the n-th attempt of a job; made of letters, digits and ``-`` only."""
    return checked_marker(f"{MARKER_BEGINS}{job_uuid}-{attempt}")


def is_marker(text: str) -> bool:
    """Whether a name that was met somewhere has the form of a marker."""
    return _MARKER.fullmatch(text) is not None


def run_of(marker: Marker) -> str:
    """The uuid of the job or the pod that a marker was made for."""
    return marker.removeprefix(MARKER_BEGINS).rpartition("-")[0]


def checked_marker(text: str) -> Marker:
    """``text`` as a marker; ValueError when it does not have a marker's form. Markers name files: never skip this."""
    if not is_marker(text):
        raise ValueError(f"not a marker: {text[:80]!r}")
    return Marker(text)
