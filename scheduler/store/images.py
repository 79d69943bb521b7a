"""What is known of images, their copies in the stores of systems, and the attempts that await one."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from images.needs import Needs
from scheduler.model.errors import NotFound, Stale
from scheduler.model.ids import Marker
from scheduler.model.images import CopyState, ImageCopy, PinnedImage
from scheduler.model.jobs import Attempt, HistoryEvent
from scheduler.model.pages import Page
from scheduler.model.plan import Decision
from scheduler.model.states import LIVE_ATTEMPTS, AttemptState
from scheduler.store import schema
from scheduler.store.changes import write_history
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.rows import ATTEMPT_COLUMNS, attempt_of
from scheduler.store.statements import changed, insert_new

copies, records = schema.image_copies, schema.image_records
attempts, jobs = schema.attempts, schema.jobs

COPY_COLUMNS = [copies.c[field.name] for field in fields(ImageCopy)]
COPY_FIELDS: Fields = {
    "id": copies.c.id,
    "system_id": copies.c.system_id,
    "owner": copies.c.owner,
    "manifest_digest": copies.c.manifest_digest,
    "reference": copies.c.reference,
    "asked_by": copies.c.asked_by,
    "state": copies.c.state,
    "pinned": copies.c.pinned,
    "created_at": copies.c.created_at,
    "updated_at": copies.c.updated_at,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaiting:
    """An attempt that awaits an image, without its run."""

    marker: Marker
    job_id: int
    tenant: str
    owner: str
    system_id: str
    state: AttemptState
    intended_at: datetime
    awaits_image: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """Attempts of one user, in one state on one system, that await the same image.

    job_id: of the first of them. newest_id: row id of the last.
    """

    tenant: str
    owner: str
    system_id: str
    state: AttemptState
    awaits_image: str
    job_id: int
    newest_id: int


@dataclass(frozen=True, slots=True)
class Place:
    """A system, and whose store there; None: everyone's."""

    system_id: str
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Claimant:
    """An attempt that may read an image, and what placement thought of its job."""

    attempt: Attempt
    manifest_digest: str
    decision: Decision | None


class ImageStore:
    """Copies by system and login; needs by content."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    # -- copies ---------------------------------------------------------------------------------------------------

    async def get(self, copy_id: int) -> ImageCopy:
        """NotFound when there is none."""
        row = (await self._db.execute(select(*COPY_COLUMNS).where(copies.c.id == copy_id))).mappings().one_or_none()
        if row is None:
            raise NotFound("copy of an image", str(copy_id))
        return ImageCopy(**row)

    async def find(self, tenant: str, system_id: str, owner: str, manifest_digest: str) -> ImageCopy | None:
        """The copy of an image in one login's store; None when it was never wanted there."""
        named = _named(tenant, system_id, owner, manifest_digest)
        row = (await self._db.execute(select(*COPY_COLUMNS).where(named))).mappings().one_or_none()
        return None if row is None else ImageCopy(**row)

    async def want(
        self,
        tenant: str,
        system_id: str,
        owner: str,
        manifest_digest: str,
        *,
        reference: str,
        asked_by: str,
        at: datetime,
    ) -> ImageCopy:
        """The copy, which is to be brought there from now on if nobody wanted it before."""
        row = {
            "tenant": tenant,
            "system_id": system_id,
            "owner": owner,
            "manifest_digest": manifest_digest,
            "reference": reference,
            "asked_by": asked_by,
            "state": CopyState.WANTED,
            "figures": {},
            "message": "",
            "done_bytes": 0,
            "pinned": False,
            "created_at": at,
            "updated_at": at,
            "next_look_at": at,
            "version": 0,
        }
        await insert_new(self._db, copies, row)
        found = await self.find(tenant, system_id, owner, manifest_digest)
        if found is None:
            raise NotFound("copy of an image", manifest_digest)
        return found

    async def list(self, tenant: str, places: Sequence[Place], page: Page) -> Sequence[ImageCopy]:
        """Copies that lie in these places, by id or in the page's order."""
        query = _listed(select(*COPY_COLUMNS), tenant, places, page)
        rows = await self._db.execute(windowed(query, COPY_FIELDS, page, copies.c.id))
        return [ImageCopy(**row) for row in rows.mappings()]

    async def count(self, tenant: str, places: Sequence[Place], page: Page) -> int:
        """How many ``list`` would answer without a window."""
        query = _listed(select(func.count()).select_from(copies), tenant, places, page)
        return int((await self._db.execute(query)).scalar_one())

    async def pin(self, copy_id: int, pinned: bool, at: datetime) -> ImageCopy:
        """Say whether a copy stays though nobody uses it, whoever works on it meanwhile."""
        told = update(copies).where(copies.c.id == copy_id).values(pinned=pinned, updated_at=at)
        await self._db.execute(told)
        return await self.get(copy_id)

    async def gone(self, tenant: str, system_id: str, owner: str, file_digests: Collection[str], at: datetime) -> None:
        """These files are out of a store: what attempts await nevertheless comes anew, the rest is forgotten."""
        there = and_(copies.c.tenant == tenant, copies.c.system_id == system_id, copies.c.owner == owner)
        present = and_(there, copies.c.state == CopyState.PRESENT, copies.c.file_digest.in_(file_digests))
        wanted = select(attempts.c.awaits_image).where(
            attempts.c.tenant == tenant, attempts.c.system_id == system_id, attempts.c.awaits_image.is_not(None)
        )
        awaited = and_(present, copies.c.manifest_digest.in_(wanted))
        anew = {"state": CopyState.WANTED, "next_look_at": at, "version": copies.c.version + 1}
        await self._db.execute(update(copies).where(awaited).values(anew))
        await self._db.execute(delete(copies).where(present))

    async def forget(self, copy: ImageCopy, at: datetime) -> None:
        """Nobody wants it: neither an attempt nor who works on it. Stale when somebody does, or wrote since."""
        wanted = select(attempts.c.id).where(
            attempts.c.tenant == copy.tenant,
            attempts.c.system_id == copy.system_id,
            attempts.c.awaits_image == copy.manifest_digest,
        )
        seen = and_(copies.c.id == copy.id, copies.c.version == copy.version, _free(at))
        if changed(await self._db.execute(delete(copies).where(seen, ~wanted.exists()))) != 1:
            raise Stale(f"copy {copy.id} is being brought, or a job awaits it; look again when that is over")

    async def of_tenant(self, tenant: str) -> Sequence[ImageCopy]:
        """All copies of a tenant, oldest first."""
        query = select(*COPY_COLUMNS).where(copies.c.tenant == tenant).order_by(copies.c.id)
        return [ImageCopy(**row) for row in (await self._db.execute(query)).mappings()]

    async def stores(self) -> Sequence[tuple[str, str, str]]:
        """Tenant, system and owner of every store that holds a copy."""
        query = select(copies.c.tenant, copies.c.system_id, copies.c.owner).distinct()
        rows = await self._db.execute(query.where(copies.c.state == CopyState.PRESENT))
        return sorted(tuple(row) for row in rows)

    async def of_interest(self, at: datetime) -> Sequence[tuple[ImageCopy, bool]]:
        """Copies of images that attempts await and all that are due, each with whether nobody works on it now."""
        wanted = select(attempts.c.awaits_image).where(attempts.c.awaits_image.is_not(None))
        which = or_(copies.c.next_look_at <= at, copies.c.manifest_digest.in_(wanted))
        query = select(*COPY_COLUMNS, _free(at).label("is_free")).where(which).order_by(copies.c.id)
        rows = [dict(row) for row in (await self._db.execute(query)).mappings()]
        return [(ImageCopy(**row), is_free) for row in rows for is_free in (bool(row.pop("is_free")),)]

    async def claim(self, copy: ImageCopy, process_id: str, lease_s: float, at: datetime) -> ImageCopy | None:
        """The copy, leased; None when somebody else wrote or took it meanwhile."""
        seen = and_(copies.c.id == copy.id, copies.c.version == copy.version, _free(at))
        lease = {
            "lease_owner": process_id,
            "lease_until": at + timedelta(seconds=lease_s),
            "version": copies.c.version + 1,
        }
        taken = await self._db.execute(update(copies).where(seen).values(lease).returning(*COPY_COLUMNS))
        row = taken.mappings().one_or_none()
        return None if row is None else ImageCopy(**row)

    async def extend(self, copy: ImageCopy, lease_s: float, at: datetime) -> None:
        """Hold the lease for ``lease_s`` more; Stale when it is no longer held."""
        held = and_(copies.c.id == copy.id, copies.c.version == copy.version, copies.c.lease_owner.is_not(None))
        longer = update(copies).where(held).values(lease_until=at + timedelta(seconds=lease_s))
        if changed(await self._db.execute(longer)) != 1:
            raise Stale(f"the lease of copy {copy.id} is no longer held")

    async def note(self, copy: ImageCopy, at: datetime, *, keep: bool = False, **changes: Any) -> ImageCopy:
        """Change a copy as it was seen, and give it back unless told to ``keep`` it; Stale if it was written since.

        When it is looked at next is no news of it.
        """
        lease = {} if keep else {"lease_owner": None, "lease_until": None}
        news = {"updated_at": at} if changes.keys() - {"next_look_at"} else {}
        values = {**changes, **lease, **news, "version": copy.version + 1}
        seen = and_(copies.c.id == copy.id, copies.c.version == copy.version)
        written = await self._db.execute(update(copies).where(seen).values(values).returning(*COPY_COLUMNS))
        row = written.mappings().one_or_none()
        if row is None:
            raise Stale(f"copy {copy.id} was changed meanwhile")
        return ImageCopy(**row)

    # -- who awaits one -------------------------------------------------------------------------------------------

    async def awaiting(self, manifest_digest: str | None = None) -> Sequence[Awaiting]:
        """Every attempt that awaits this image, or any, in any tenant, oldest first."""
        columns = [attempts.c[field.name] for field in fields(Awaiting)]
        query = select(*columns).where(attempts.c.awaits_image.is_not(None)).order_by(attempts.c.id)
        if manifest_digest is not None:
            query = query.where(attempts.c.awaits_image == manifest_digest)
        return [Awaiting(**row) for row in (await self._db.execute(query)).mappings()]

    async def awaited(self) -> Sequence[Awaited]:
        """What attempts await in any tenant, in few rows however many do."""
        key = attempts.c.tenant, attempts.c.owner, attempts.c.system_id, attempts.c.state, attempts.c.awaits_image
        first, newest = func.min(attempts.c.job_id).label("job_id"), func.max(attempts.c.id).label("newest_id")
        query = select(*key, first, newest).where(attempts.c.awaits_image.is_not(None)).group_by(*key).order_by(first)
        return [Awaited(**row) for row in (await self._db.execute(query)).mappings()]

    async def settle_ended(self) -> int:
        """Attempts that are over await nothing any more; how many there were."""
        over = and_(attempts.c.awaits_image.is_not(None), attempts.c.state.not_in(sorted(LIVE_ATTEMPTS)))
        return changed(await self._db.execute(update(attempts).where(over).values(awaits_image=None)))

    async def settle(self, waiting: Awaiting, event: HistoryEvent | None) -> bool:
        """The attempt awaits its image no longer; False, with nothing written, when somebody said so before."""
        mine = and_(attempts.c.marker == waiting.marker, attempts.c.awaits_image == waiting.awaits_image)
        if changed(await self._db.execute(update(attempts).where(mine).values(awaits_image=None))) != 1:
            return False
        if event is not None:
            await write_history(self._db, [(waiting.job_id, event)])
        return True

    async def await_again(self, attempt: Attempt, manifest_digest: str, event: HistoryEvent) -> bool:
        """The attempt awaits its image anew; False, with nothing written, when it does already, or waits no more."""
        mine = and_(attempts.c.marker == attempt.marker, attempts.c.state == AttemptState.QUEUED)
        told = update(attempts).where(mine, attempts.c.awaits_image.is_(None)).values(awaits_image=manifest_digest)
        if changed(await self._db.execute(told)) != 1:
            return False
        await write_history(self._db, [(attempt.job_id, event)])
        return True

    async def claims(self, tenant: str, system_id: str) -> Sequence[Claimant]:
        """All attempts on a system that may still read an image, oldest first."""
        query = (
            select(*ATTEMPT_COLUMNS, jobs.c.image, jobs.c.decision)
            .join(jobs, attempts.c.job_id == jobs.c.id)
            .where(attempts.c.tenant == tenant, attempts.c.system_id == system_id, attempts.c.ended_at.is_(None))
            .where(jobs.c.image.is_not(None))
            .order_by(attempts.c.id)
        )
        rows = [dict(row) for row in (await self._db.execute(query)).mappings()]
        told = [(row.pop("image"), row.pop("decision"), row) for row in rows]
        return [Claimant(attempt_of(row), image.manifest_digest, decision) for image, decision, row in told if image]

    async def present(self, tenant: str, system_id: str, owner: str) -> Sequence[ImageCopy]:
        """What lies in one login's store, by id."""
        there = and_(copies.c.tenant == tenant, copies.c.system_id == system_id, copies.c.owner == owner)
        query = select(*COPY_COLUMNS).where(there, copies.c.state == CopyState.PRESENT).order_by(copies.c.id)
        return [ImageCopy(**row) for row in (await self._db.execute(query)).mappings()]

    async def live_markers(self, tenant: str, system_id: str) -> Sequence[tuple[str, Marker]]:
        """Owners and markers of all attempts on a system that may still read an image."""
        query = select(attempts.c.owner, attempts.c.marker).where(
            attempts.c.tenant == tenant, attempts.c.system_id == system_id, attempts.c.ended_at.is_(None)
        )
        return [(owner, marker) for owner, marker in await self._db.execute(query)]

    async def waiting(self, tenant: str, digests: Collection[str]) -> Sequence[tuple[str, str, str, int]]:
        """System, owner, digest and number of the attempts that await these images."""
        key = attempts.c.system_id, attempts.c.owner, attempts.c.awaits_image
        query = select(*key, func.count()).where(attempts.c.tenant == tenant, attempts.c.awaits_image.in_(digests))
        return [(row[0], row[1], row[2], row[3]) for row in await self._db.execute(query.group_by(*key))]

    async def users(self, tenant: str, system_id: str, manifest_digest: str) -> Sequence[tuple[str, str]]:
        """Owner and uuid of every job with an attempt on a system that may still read this image, oldest first."""
        query = (
            select(jobs.c.owner, jobs.c.uuid, jobs.c.image)
            .join(attempts, attempts.c.job_id == jobs.c.id)
            .where(attempts.c.tenant == tenant, attempts.c.system_id == system_id, attempts.c.ended_at.is_(None))
            .where(jobs.c.image.is_not(None))
            .order_by(jobs.c.id)
        )
        found = [(row.owner, row.uuid) for row in await self._db.execute(query) if _runs(row.image, manifest_digest)]
        return list(dict.fromkeys(found))

    # -- needs ----------------------------------------------------------------------------------------------------

    async def put_needs(self, manifest_digest: str, needs: Needs, at: datetime) -> None:
        """Keep what an image needs; what is known already stays."""
        row = {"manifest_digest": manifest_digest, "needs": needs, "created_at": at}
        await insert_new(self._db, records, row)

    async def needs_of(self, digests: Collection[str]) -> Mapping[str, Needs]:
        """What these images need, as far as it is known."""
        query = select(records.c.manifest_digest, records.c.needs).where(records.c.manifest_digest.in_(digests))
        return {row.manifest_digest: row.needs for row in await self._db.execute(query)}


def _listed(query: Select[Any], tenant: str, places: Sequence[Place], page: Page) -> Select[Any]:
    whole = [place.system_id for place in places if place.owner is None]
    parts = [and_(copies.c.system_id == p.system_id, copies.c.owner == p.owner) for p in places if p.owner is not None]
    query = query.where(copies.c.tenant == tenant, or_(copies.c.system_id.in_(whole), *parts))
    return narrowed(query, COPY_FIELDS, page.filters)


def _runs(image: PinnedImage | None, manifest_digest: str) -> bool:
    return image is not None and image.manifest_digest == manifest_digest


def _named(tenant: str, system_id: str, owner: str, manifest_digest: str) -> Any:
    return and_(
        copies.c.tenant == tenant,
        copies.c.system_id == system_id,
        copies.c.owner == owner,
        copies.c.manifest_digest == manifest_digest,
    )


def _free(at: datetime) -> Any:
    return or_(copies.c.lease_until.is_(None), copies.c.lease_until <= at)
