"""Runs that no row waits for, on the wire."""

from __future__ import annotations

from api.schemas.base import View
from scheduler.model.strays import Stray
from scheduler.model.units import zulu


class StrayView(View):
    """A run at a system. ``standing``: ENDED, FORGOTTEN or UNKNOWN; ``message``: what is done about it."""

    marker: str
    remoteJobId: str
    owner: str
    standing: str
    message: str
    firstSeenAt: str
    lastSeenAt: str

    @classmethod
    def of(cls, stray: Stray) -> StrayView:
        return cls(
            marker=stray.marker,
            remoteJobId=stray.remote_id,
            owner=stray.owner,
            standing=stray.standing,
            message=stray.words,
            firstSeenAt=zulu(stray.first_seen_at),
            lastSeenAt=zulu(stray.last_seen_at),
        )
