"""Pods, their instances, what was done with them, and the end of what they wrote. Every write is guarded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from scheduler.model.errors import AlreadyExists, NotFound, Stale
from scheduler.model.ids import Marker
from scheduler.model.pages import FIRST_PAGE, Page
from scheduler.model.pod_catalog import PodKind
from scheduler.model.pods import (
    InstanceState,
    OpenNet,
    Pod,
    PodAction,
    PodCredentials,
    PodEvent,
    PodInstance,
    PodNet,
    PodStatus,
    pod_move,
)
from scheduler.store import schema
from scheduler.store.paging import Fields, narrowed, windowed
from scheduler.store.pod_grants import PodGrantStore
from scheduler.store.sealing import reseal, sealer_of
from scheduler.store.statements import changed, insert_new, put_row
from scheduler.store.strays import PodPlaceStore

pods, instances, actions = schema.pods, schema.pod_instances, schema.pod_actions
logs, secrets = schema.pod_logs, schema.pod_credentials

POD_COLUMNS = [pods.c[field.name] for field in fields(Pod)]
INSTANCE_COLUMNS = [instances.c[field.name] for field in fields(PodInstance)]

POD_FIELDS: Fields = {
    name: pods.c[name]
    for name in (
        "id",
        "owner",
        "status",
        "desired",
        "description",
        "template",
        "created_at",
        "updated_at",
        "started_at",
        "stop_at",
    )
}

LIVE = instances.c.state != InstanceState.ENDED
FREE: Mapping[str, Any] = {"lease_owner": None, "lease_until": None}
"""A write gives the lease back, unless it says that more follows."""

LOG_KEPT_BYTES = 1024 * 1024
"""Most that is kept of what an instance wrote, once it has ended."""

ACTIONS_SHOWN = 1000
"""The newest lines of what was done that anyone is shown."""


class PodStore:
    """The pods of all tenants; every query of one tenant's takes the tenant."""

    def __init__(self, db: AsyncSession) -> None:
        self._db = db

    # -- reading ------------------------------------------------------------------------------------------------

    async def get(self, tenant: str, pod_id: str, *, to_change: bool = False) -> Pod:
        """NotFound when there is none. to_change: nobody else writes it until this transaction ends."""
        query = select(*POD_COLUMNS).where(pods.c.tenant == tenant, pods.c.id == pod_id)
        return await self._one(query.with_for_update() if to_change else query, pod_id)

    async def list(self, tenant: str, page: Page = FIRST_PAGE, *, ids: Collection[str] | None = None) -> Sequence[Pod]:
        """Pods by id, or in the page's order; ids: only these."""
        query = _listed(select(*POD_COLUMNS), tenant, page, ids)
        rows = (await self._db.execute(windowed(query, POD_FIELDS, page, pods.c.id))).mappings()
        return [Pod(**row) for row in rows]

    async def instances(self, pod_uuid: str, newest: int = 20) -> Sequence[PodInstance]:
        """The newest instances of a pod, in order; all that are live are among them."""
        mine = select(*INSTANCE_COLUMNS).where(instances.c.pod_uuid == pod_uuid)
        latest = mine.order_by(instances.c.number.desc()).limit(newest)
        live = mine.where(LIVE)
        found = {one.number: one for query in (latest, live) for one in await self._instances(query)}
        return [found[number] for number in sorted(found)]

    async def instances_of(self, uuids: Collection[str], newest: int = 20) -> Mapping[str, Sequence[PodInstance]]:
        """The same of several pods, by uuid."""
        query = select(*INSTANCE_COLUMNS).join(pods, pods.c.uuid == instances.c.pod_uuid).where(pods.c.uuid.in_(uuids))
        query = query.where(or_(LIVE, instances.c.number > pods.c.instance_number - newest))
        found: dict[str, list[PodInstance]] = defaultdict(list)
        for one in await self._instances(query.order_by(instances.c.number)):
            found[one.pod_uuid].append(one)
        return found

    async def current(self, uuids: Collection[str]) -> Mapping[str, PodInstance]:
        """Of each of these pods the instance that stands for it: what answered last, else the newest."""
        found: dict[str, PodInstance] = {}
        query = select(*INSTANCE_COLUMNS).join(pods, pods.c.uuid == instances.c.pod_uuid)
        query = query.where(pods.c.uuid.in_(uuids), or_(LIVE, instances.c.number == pods.c.instance_number))
        for one in await self._instances(query.order_by(instances.c.number)):
            found[one.pod_uuid] = _better(found.get(one.pod_uuid), one)
        return found

    async def live_versions(self) -> Mapping[Marker, int]:
        """The instances that may exist at a place, with the versions of their rows."""
        rows = await self._db.execute(select(instances.c.marker, instances.c.version).where(LIVE))
        return {row.marker: row.version for row in rows}

    async def live(self, markers: Collection[Marker]) -> Sequence[PodInstance]:
        """Those of these instances that may exist at a place."""
        return await self._instances(select(*INSTANCE_COLUMNS).where(instances.c.marker.in_(markers), LIVE))

    async def open_nets(self, at: datetime) -> Sequence[OpenNet]:
        """Every net of every tenant that has a name outside, with the instance to which connections go now."""
        every = [Pod(**row) for row in (await self._db.execute(select(*POD_COLUMNS))).mappings()]
        behind: dict[str, PodInstance] = {}
        running = instances.c.state == InstanceState.RUNNING
        for one in await self._instances(select(*INSTANCE_COLUMNS).where(running).order_by(instances.c.number)):
            if one.answers_at(at):
                behind[one.pod_uuid] = _better(behind.get(one.pod_uuid), one)
        return [
            _open_net(pod, net, behind.get(pod.uuid), at)
            for pod in sorted(every, key=lambda pod: (pod.tenant, pod.id))
            for net in pod.definition.nets
            if net.is_outside
        ]

    async def actions(self, pod_uuid: str) -> Sequence[PodAction]:
        """What was done with a pod, the newest lines in order."""
        query = select(actions.c.at, actions.c.words).where(actions.c.pod_uuid == pod_uuid)
        rows = (await self._db.execute(query.order_by(actions.c.id.desc()).limit(ACTIONS_SHOWN))).mappings()
        return [PodAction(**row) for row in rows][::-1]

    async def log(self, pod_uuid: str, number: int) -> str:
        """What was kept of what an ended instance wrote; empty where nothing was."""
        query = select(logs.c.text).where(logs.c.pod_uuid == pod_uuid, logs.c.number == number)
        return (await self._db.execute(query)).scalar_one_or_none() or ""

    async def credentials(self, pod_uuid: str) -> PodCredentials:
        """NotFound when the pod is gone."""
        row = (await self._db.execute(select(secrets).where(secrets.c.pod_uuid == pod_uuid))).mappings().one_or_none()
        if row is None:
            raise NotFound("credentials of pod", pod_uuid)
        sealer = sealer_of(self._db)
        return PodCredentials(
            user_password=sealer.decrypt(row["user_password_sealed"], _context(pod_uuid, "user")),
            service_password=sealer.decrypt(row["service_password_sealed"], _context(pod_uuid, "service")),
        )

    # -- claiming -----------------------------------------------------------------------------------------------

    async def is_any_due(self, at: datetime, but: Collection[str] = ()) -> bool:
        """Whether ``claim`` would find something, which costs a reader next to nothing."""
        return (await self._db.execute(_due(at, but).limit(1))).first() is not None

    async def claim(
        self, process_id: str, lease_s: float, limit: int, at: datetime, but: Collection[str] = ()
    ) -> Sequence[Pod]:
        """Lease pods for which something is to be done and that are free, those waiting longest first.

        but: not these, on which the caller works already: it meets Stale, and a lease in its way would last.
        """
        due = _due(at, but).order_by(pods.c.next_look_at, pods.c.uuid).limit(limit).with_for_update(skip_locked=True)
        picked = due.cte("due")
        lease = {"lease_owner": process_id, "lease_until": at + timedelta(seconds=lease_s)}
        taken = update(pods).where(pods.c.uuid.in_(select(picked.c.uuid)))
        leased = taken.values(**lease, version=pods.c.version + 1).returning(*POD_COLUMNS)
        return sorted((Pod(**row) for row in (await self._db.execute(leased)).mappings()), key=lambda pod: pod.uuid)

    # -- writing ------------------------------------------------------------------------------------------------

    async def add(self, pod: Pod, credentials: PodCredentials) -> None:
        """AlreadyExists when the tenant has a pod of this name."""
        row = {column.name: getattr(pod, column.name) for column in POD_COLUMNS}
        if not await insert_new(self._db, pods, row):
            raise AlreadyExists("pod", pod.id)
        seal = sealer_of(self._db).encrypt
        sealed = {
            "user_password_sealed": seal(credentials.user_password, _context(pod.uuid, "user")),
            "service_password_sealed": seal(credentials.service_password, _context(pod.uuid, "service")),
        }
        await self._db.execute(insert(secrets).values(pod_uuid=pod.uuid, **sealed))

    async def move(
        self, pod: Pod, event: PodEvent, at: datetime, words: str = "", *, keep: bool = False, **changes: Any
    ) -> Pod:
        """Move a pod by the table, with a line of what was done if there are words. IllegalMove; Stale.

        keep: the lease stays, since more follows.
        """
        told = {"message": words} if words and "message" not in changes else {}
        return await self.note(pod, at, words, keep=keep, status=pod_move(pod.status, event), **told, **changes)

    async def note(self, pod: Pod, at: datetime, words: str = "", *, keep: bool = False, **changes: Any) -> Pod:
        """Change fields of a pod without a move. Stale when someone else wrote first."""
        newer = replace(pod, **changes, updated_at=at, version=pod.version + 1)
        values = {**changes, "updated_at": at, "version": newer.version, **({} if keep else FREE)}
        as_seen = and_(pods.c.uuid == pod.uuid, pods.c.version == pod.version)
        if changed(await self._db.execute(update(pods).where(as_seen).values(values))) != 1:
            raise Stale(f"pod '{pod.id}' was changed meanwhile")
        if words:
            await self.tell(pod.uuid, words, at)
        return newer

    async def tell(self, pod_uuid: str, words: str, at: datetime) -> None:
        """Add a line to what was done."""
        await self._db.execute(insert(actions).values(pod_uuid=pod_uuid, at=at, words=words[:2000]))

    async def tell_named(self, tenants: Collection[str], words: str, at: datetime) -> None:
        """Add a line to what was done with each pod of these tenants that has a name outside."""
        rows = await self._db.execute(select(pods.c.uuid, pods.c.definition).where(pods.c.tenant.in_(tenants)))
        for uuid, definition in rows.all():
            if any(net.is_outside for net in definition.nets):
                await self.tell(uuid, words, at)

    async def look_at(self, uuids: Collection[str], at: datetime) -> None:
        """Something happened to these pods: whoever works on one starts again from what is so now."""
        due = {**FREE, "next_look_at": at, "version": pods.c.version + 1}
        await self._db.execute(update(pods).where(pods.c.uuid.in_(uuids)).values(due))

    async def intend(self, instance: PodInstance) -> None:
        """Write an instance down: from here on something of it may run."""
        row = {column.name: getattr(instance, column.name) for column in INSTANCE_COLUMNS}
        await self._db.execute(insert(instances).values(row))
        await PodPlaceStore(self._db).visit(instance)

    async def write(self, instance: PodInstance, **changes: Any) -> PodInstance:
        """The instance with these fields changed. Stale when someone else wrote first."""
        newer = replace(instance, **changes, version=instance.version + 1)
        as_seen = and_(instances.c.marker == instance.marker, instances.c.version == instance.version)
        values = {**changes, "version": newer.version}
        if changed(await self._db.execute(update(instances).where(as_seen).values(values))) != 1:
            raise Stale(f"instance {instance.marker} was changed meanwhile")
        return newer

    async def answered(self, markers: Collection[Marker], at: datetime) -> None:
        """All ports of these instances answered. No version changes: nothing is decided by it alone."""
        running = and_(instances.c.marker.in_(markers), instances.c.state == InstanceState.RUNNING)
        await self._db.execute(update(instances).where(running).values(answered_at=at))

    async def keep_log(self, instance: PodInstance, text: str) -> None:
        """Keep the end of what an instance wrote, in place of what was kept before."""
        await put_row(self._db, logs, {"pod_uuid": instance.pod_uuid, "number": instance.number, "text": text})

    async def forget_instances(self, pod: Pod, before: int) -> None:
        """Forget ended instances of a pod with lower numbers, and what they wrote."""
        old = and_(instances.c.pod_uuid == pod.uuid, instances.c.number < before, ~LIVE)
        await self._db.execute(delete(logs).where(logs.c.pod_uuid == pod.uuid, logs.c.number < before))
        await self._db.execute(delete(instances).where(old))

    async def remove(self, pod: Pod, at: datetime) -> None:
        """Forget a pod of which nothing runs, and all that is known of it. Stale when that is not so any more."""
        live = select(instances.c.marker).where(instances.c.pod_uuid == pod.uuid, LIVE).limit(1)
        if (await self._db.execute(live)).first() is not None:
            raise Stale(f"pod '{pod.id}' has instances that have not ended")
        await PodPlaceStore(self._db).leave(pod.uuid, at)
        await PodGrantStore(self._db, PodKind.POD).remove_all(pod.tenant, pod.id)
        for table in (logs, actions, secrets, instances):
            await self._db.execute(delete(table).where(table.c.pod_uuid == pod.uuid))
        as_seen = and_(pods.c.uuid == pod.uuid, pods.c.version == pod.version)
        if changed(await self._db.execute(delete(pods).where(as_seen))) != 1:
            raise Stale(f"pod '{pod.id}' was changed meanwhile")

    async def reseal(self) -> int:
        """Encrypt every secret anew, with the present key of the box; how many pods there were."""
        columns = {
            "user_password_sealed": lambda row: _context(row["pod_uuid"], "user"),
            "service_password_sealed": lambda row: _context(row["pod_uuid"], "service"),
        }
        return await reseal(self._db, secrets, columns)

    # -- below --------------------------------------------------------------------------------------------------

    async def _one(self, query: Select[Any], name: str) -> Pod:
        row = (await self._db.execute(query)).mappings().one_or_none()
        if row is None:
            raise NotFound("pod", name)
        return Pod(**row)

    async def _instances(self, query: Select[Any]) -> Sequence[PodInstance]:
        return [PodInstance(**row) for row in (await self._db.execute(query)).mappings()]


def shown_status(pod: Pod, instance: PodInstance | None, at: datetime) -> PodStatus:
    """How a pod is called: never AVAILABLE when no answer of it is fresh, even if nobody has noticed that yet."""
    silent = instance is None or not instance.answers_at(at)
    return PodStatus.CREATING if pod.status is PodStatus.AVAILABLE and silent else pod.status


def _open_net(pod: Pod, net: PodNet, answering: PodInstance | None, at: datetime) -> OpenNet:
    instance = answering if pod.status is PodStatus.AVAILABLE else None
    return OpenNet(
        tenant=pod.tenant,
        pod_id=pod.id,
        owner=pod.owner,
        net=net,
        instance=instance,
        port=instance.port_of(net, pod.definition.nets) if instance is not None else None,
        status=shown_status(pod, answering, at),
        message=pod.message,
        held_until=pod.held_until,
    )


def _better(known: PodInstance | None, newer: PodInstance) -> PodInstance:
    """The one of two instances of a pod to which connections go: the newer, once it has answered."""
    if known is None or newer.answered_at is not None or known.answered_at is None:
        return newer
    return known if known.is_live else newer


def _listed(query: Select[Any], tenant: str, page: Page, ids: Collection[str] | None) -> Select[Any]:
    query = query.where(pods.c.tenant == tenant)
    if ids is not None:
        query = query.where(pods.c.id.in_(ids))
    return narrowed(query, POD_FIELDS, page.filters)


def _due(at: datetime, but: Collection[str]) -> Select[tuple[str]]:
    free = or_(pods.c.lease_until.is_(None), pods.c.lease_until <= at)
    due = select(pods.c.uuid).where(pods.c.next_look_at <= at, free)
    return due.where(pods.c.uuid.not_in(but)) if but else due


def _context(pod_uuid: str, who: str) -> str:
    """What a sealed secret is bound to, so that it opens in no other row."""
    return f"pod/{pod_uuid}/{who}"
