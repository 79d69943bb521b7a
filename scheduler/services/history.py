"""Past jobs of a system out of its site's own records: a record is learnt whole, or refused whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from backends import swf
from backends.slurm.history import parse_history
from scheduler.model.errors import SpecInvalid
from scheduler.model.snapshots import Sighting
from scheduler.model.systems import System
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action
from scheduler.services.systems import readable
from scheduler.store.learning import SIGHTINGS_KEPT, SightingStore
from scheduler.store.requests import AuditStore

BATCH_JOBS = 2000
"""Jobs written in one transaction; others wait for it no longer than for a look at a queue."""

CLOCKS_DIFFER = timedelta(hours=1)
"""Jobs may have been submitted so much later than now; more means that the instants are read in the wrong zone."""


class RecordFormat(StrEnum):
    """How a record is written: what ``sacct --parsable2`` prints, or the Standard Workload Format."""

    SACCT = "SACCT"
    SWF = "SWF"


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRecord:
    """A record and what it does not say itself: the queue of its jobs, the zone of its instants."""

    format: RecordFormat
    text: str
    queue: str | None = None
    zone: ZoneInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LearntRecord:
    """How many jobs a record told of, and how many of them are kept now; others were passed over."""

    told_jobs: int
    kept_jobs: int
    too_old_jobs: int
    other_queue_jobs: int


async def learn(ports: Ports, caller: Principal, system_id: str, given: GivenRecord) -> LearntRecord:
    """Keep what a record tells of a system's queues. The same record again changes nothing."""
    async with ports.reading() as db:
        system = await readable(db, caller, system_id, Action.MODIFY)
    now = ports.clock()
    told = await asyncio.to_thread(_read, system, given, now)
    partitions = {queue.partition for queue in system.queues}
    here = [seen for seen in told if not partitions or seen.partition in partitions]
    kept = [seen for seen in here if seen.submitted_at >= now - SIGHTINGS_KEPT]
    learnt = LearntRecord(
        told_jobs=len(told),
        kept_jobs=len(kept),
        too_old_jobs=len(here) - len(kept),
        other_queue_jobs=len(told) - len(here),
    )
    _demand_some(learnt, sorted(partitions))
    for first in range(0, len(kept), BATCH_JOBS):
        async with ports.transaction() as db:
            await SightingStore(db).put(system.tenant, system.id, kept[first : first + BATCH_JOBS])
    async with ports.transaction() as db:
        detail = {"format": given.format, "jobs": learnt.kept_jobs}
        await AuditStore(db).add(caller.tenant, caller.username, "system.history", system_id, detail, ports.clock())
    if ports.knowledge is not None:
        ports.knowledge.forget(system.tenant, system.id)
    return learnt


def _read(system: System, given: GivenRecord, now: datetime) -> Sequence[Sighting]:
    """The jobs of a record. What has ended cannot change; of others newer looks know better than the record."""
    lines, partition = given.text.splitlines(), _partition(system, given.queue)
    if given.format is RecordFormat.SACCT:
        told = parse_history(lines, now, given.zone, partition)
    elif partition is None:
        raise SpecInvalid.of("queue", "is missing, and the system has several", "say whose jobs the log holds")
    else:
        told = swf.sightings(swf.parse_swf(lines), partition, now)
    newest_at = max((at for seen in told for at in (seen.submitted_at, seen.started_at) if at), default=now)
    if newest_at > now + CLOCKS_DIFFER:
        raise SpecInvalid.of("text", f"speaks of {newest_at:%Y-%m-%d %H:%M} UTC, which is to come", "check timeZone")
    return [seen if seen.ended_at else replace(seen, seen_at=min(now, newest_at)) for seen in told]


def _partition(system: System, queue: str | None) -> str | None:
    """The partition of a queue that is named, else of the only one; None where nothing says which."""
    found = [each.partition for each in system.queues if queue in (None, each.name)]
    if queue is not None and not found:
        names = ", ".join(each.name for each in system.queues)
        raise SpecInvalid.of("queue", f"'{queue}' is no queue of {system.id}", f"its queues are {names}")
    return found[0] if len(found) == 1 else None


def _demand_some(learnt: LearntRecord, partitions: Sequence[str]) -> None:
    """A record of which nothing would be kept is a mistake that its sender wants to know."""
    if learnt.kept_jobs:
        return
    if learnt.too_old_jobs:
        fix = "send a newer one; a Standard Workload Format log says in UnixStartTime when it began"
        raise SpecInvalid.of("text", f"tells only of jobs older than {SIGHTINGS_KEPT.days} days", fix)
    if learnt.other_queue_jobs:
        raise SpecInvalid.of("text", "tells only of other partitions", f"the system's are {', '.join(partitions)}")
    raise SpecInvalid.of("text", "tells of no job", "send a record with at least one that ran")
