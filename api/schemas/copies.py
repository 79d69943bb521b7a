"""Copies of images on systems, on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, model_validator

from api.schemas.base import Body, Id, Line, View, showing
from images.keeper import Collected
from images.reference import MOST_CHARACTERS, shown
from scheduler.model.images import ImageCopy
from scheduler.model.units import zulu

SUMMARY = (
    "id",
    "reference",
    "digest",
    "systemId",
    "owner",
    "state",
    "doneBytes",
    "totalBytes",
    "size",
    "pinned",
    "message",
    "waitingJobs",
    "updated",
)

FIELDS: Mapping[str, str] = {
    "id": "id",
    "systemId": "system_id",
    "owner": "owner",
    "digest": "manifest_digest",
    "reference": "reference",
    "askedBy": "asked_by",
    "state": "state",
    "pinned": "pinned",
    "created": "created_at",
    "updated": "updated_at",
}
"""What copies may be searched and sorted by."""


class StageBody(Body):
    """An image, and where it is to be: one system or several."""

    model_config = showing({"reference": "python:3.12", "systemId": "cluster"})

    reference: Annotated[Line, Field(min_length=1, max_length=MOST_CHARACTERS)]
    systemId: Id | None = None
    systemIds: Annotated[list[Id], Field(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> StageBody:
        if (self.systemId is None) == (self.systemIds is None):
            raise ValueError("name systemId for one system, or systemIds for several; one of the two")
        return self

    @property
    def systems(self) -> list[str]:
        """Each system once, in the order given."""
        return list(dict.fromkeys(self.systemIds or [str(self.systemId)]))


class CollectBody(Body):
    """In which system's store room is to be made."""

    systemId: Id


class CopyView(View):
    """An image on its way to a system, or there. Sizes are bytes; ``doneBytes`` of ``totalBytes`` are of the step that
    is under way, ``sentBytes`` and ``reusedBytes`` of the last transfer; ``figures`` are seconds and bytes by step."""

    id: int
    reference: str
    digest: str
    systemId: str
    owner: str
    askedBy: str
    state: str
    doneBytes: int
    totalBytes: int | None
    size: int | None
    fileDigest: str | None
    sentBytes: int | None
    reusedBytes: int | None
    figures: Mapping[str, float]
    pinned: bool
    message: str
    waitingJobs: int
    jobsCount: int | None = None
    """How many jobs may still read it, and (in ``jobs``) the caller's among them; only where one copy is asked for."""
    jobs: list[str] | None = None
    created: str
    updated: str
    presentSince: str | None
    lastUsed: str | None

    @classmethod
    def of(
        cls, copy: ImageCopy, waiting: int = 0, jobs_count: int | None = None, jobs: tuple[str, ...] | None = None
    ) -> CopyView:
        return cls(
            id=copy.id,
            reference=shown(copy.reference),
            digest=copy.manifest_digest,
            systemId=copy.system_id,
            owner=copy.owner,
            askedBy=copy.asked_by,
            state=copy.state,
            doneBytes=copy.done_bytes,
            totalBytes=copy.total_bytes,
            size=copy.size_bytes,
            fileDigest=copy.file_digest,
            sentBytes=copy.sent_bytes,
            reusedBytes=copy.reused_bytes,
            figures=dict(copy.figures),
            pinned=copy.pinned,
            message=copy.message,
            waitingJobs=waiting,
            jobsCount=jobs_count,
            jobs=None if jobs is None else list(jobs),
            created=zulu(copy.created_at),
            updated=zulu(copy.updated_at),
            presentSince=zulu(copy.present_at) if copy.present_at else None,
            lastUsed=zulu(copy.used_at) if copy.used_at else None,
        )


class CollectedView(View):
    """What was let go, by digest of the files, and what stays."""

    released: list[str]
    droppedLeases: int
    heldBytes: int
    inodes: int

    @classmethod
    def of(cls, done: Collected) -> CollectedView:
        return cls(
            released=list(done.trashed),
            droppedLeases=done.dropped_count,
            heldBytes=done.held_bytes,
            inodes=done.inodes,
        )
