"""Small jobs that Berth runs on systems for itself, such as a look at a node; nobody's result depends on one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.runs import RunSpec


class HelperPurpose(StrEnum):
    """What it is run for, and what its subject names."""

    NODE_FACTS = "NODE_FACTS"  # subject: a class of nodes


class HelperState(StrEnum):
    """INTENDED: it may or may not have reached the system; SUBMITTED: it has."""

    INTENDED = "INTENDED"
    SUBMITTED = "SUBMITTED"
    DONE = "DONE"
    FAILED = "FAILED"


LIVE_HELPERS = frozenset({HelperState.INTENDED, HelperState.SUBMITTED})
"""States in which a remote job may exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HelperJob:
    """One helper job; its row is written before the system hears of it. ``owner``: of the login under which it runs.

    message: why it failed, for people. next_look_at: once it has ended, when the next of its kind may be tried.
    ``version`` guards every write.
    """

    marker: Marker
    tenant: str
    system_id: str
    owner: str
    purpose: HelperPurpose
    subject: str
    run: RunSpec
    intended_at: datetime
    state: HelperState = HelperState.INTENDED
    remote_id: RemoteId | None = None
    ended_at: datetime | None = None
    message: str = ""
    next_look_at: datetime | None = None
    version: int = 0

    @property
    def login(self) -> LoginKey:
        return LoginKey(self.tenant, self.system_id, self.owner)
