"""Strays: what is seen at a place under a marker, and no row waits for. And where pods have been that are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.runs import JobType


class Standing(StrEnum):
    """What the store knows of a marker that is seen at a place."""

    OWNED = "OWNED"
    """A row waits for it."""
    ENDED = "ENDED"
    """Its row says that it has ended: the request to end it was lost, or a controller started it once more."""
    FORGOTTEN = "FORGOTTEN"
    """Its job or its pod is or was ours, and there is no row of it any more."""
    UNKNOWN = "UNKNOWN"
    """No job and no pod of this store: another Berth's, or one of before the store was lost."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from a standing. ends: it is ours beyond doubt, and nobody wants it."""

    is_stray: bool
    ends: bool
    words: str


RULES: Mapping[Standing, Rule] = MappingProxyType(
    {
        Standing.OWNED: Rule(False, False, "a row waits for it"),
        Standing.ENDED: Rule(True, True, "it has ended as far as is known here, and is told to end again"),
        Standing.FORGOTTEN: Rule(True, True, "its job or pod is ours, and has no row of it; it is told to end"),
        Standing.UNKNOWN: Rule(True, False, "nothing here knows it; it may be another Berth's, and is left alone"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """Something at a place that no row waits for. confirmed_at: when a second look, well after the first, agreed."""

    tenant: str
    system_id: str
    owner: str
    job_type: JobType
    marker: Marker
    remote_id: RemoteId
    standing: Standing
    first_seen_at: datetime
    last_seen_at: datetime
    confirmed_at: datetime | None = None

    @property
    def login(self) -> LoginKey:
        return LoginKey(self.tenant, self.system_id, self.owner)

    @property
    def words(self) -> str:
        """What it is and what is done about it, for people."""
        return RULES[self.standing].words


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlace:
    """Where instances of a pod have been: a login, and the absolute path of the directory that they had there.

    gone_at: when the pod was removed. cleared_at: when its directory was.
    """

    pod_uuid: str
    tenant: str
    system_id: str
    owner: str
    directory: str
    since_at: datetime
    gone_at: datetime | None = None
    cleared_at: datetime | None = None

    @property
    def login(self) -> LoginKey:
        return LoginKey(self.tenant, self.system_id, self.owner)
