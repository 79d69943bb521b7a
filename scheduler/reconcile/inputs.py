"""PROCESSING_INPUTS and STAGING_INPUTS: what a job reads is found, then brought to its input directory."""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import unquote, urlsplit

from backends.base import Storage
from scheduler.model.apps import FileInput
from scheduler.model.errors import FileRefused, NotFound
from scheduler.model.jobs import Fact, Job
from scheduler.model.shared_accounts import between_slashes, closed_dirs, keeps_apart, parts_of
from scheduler.model.states import Event
from scheduler.model.systems import System
from scheduler.reconcile.fetch import open_url
from scheduler.reconcile.runspec import is_local, target_of
from scheduler.reconcile.sides import exec_side, place_of_job, side_of
from scheduler.reconcile.steps import Hands
from scheduler.reconcile.transfer import Progress, copy_tree, counted
from scheduler.store.jobs import JobStore
from scheduler.store.systems import SystemStore

NO_INPUTS = "no inputs to bring"
JOB_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}-[0-9]{3}")
MAKING_READY = "making the job's directories"


async def list_inputs(job: Job, hands: Hands) -> Fact:
    """PROCESSING_INPUTS -> STAGING_INPUTS: every input that lies on a system exists and may be read."""
    for one in _to_move(job):
        if _scheme(one) == "tapis":
            async with _source(job, one, hands) as (source, path):
                await source.stat(path)
    count = len(_to_move(job))
    return Fact(Event.INPUTS_LISTED, message=f"{count} inputs to bring" if count else NO_INPUTS)


async def bring_inputs(job: Job, hands: Hands) -> Fact:
    """STAGING_INPUTS -> STAGING_JOB: everything is in the input directory; what is there already stays."""
    inputs = _to_move(job)
    if not inputs:
        return Fact(Event.INPUTS_READY, message=MAKING_READY)
    progress = Progress("bringing inputs", hands.say, hands.ports.clock)
    target = await (await exec_side(hands.ports, job)).storage(hands.ports)
    for one in inputs:
        to = posixpath.join(place_of_job(job).input_dir, target_of(one))
        if _scheme(one) == "tapis":
            async with _source(job, one, hands) as (source, path):
                await copy_tree(source, path, target, to, progress)
        else:
            async with open_url(one.source_url or "", hands.web) as file:
                await target.write(to, counted(file.chunks, progress))
            progress.files += 1
    return Fact(Event.INPUTS_READY, message=f"inputs are in place: {progress}")


def nothing_to_bring(job: Job) -> Sequence[Fact]:
    """PENDING -> STAGING_JOB at once, for a job that has just got its place and reads nothing; else no facts."""
    if _to_move(job):
        return ()
    return Fact(Event.INPUTS_LISTED, message=NO_INPUTS), Fact(Event.INPUTS_READY, message=MAKING_READY)


def _to_move(job: Job) -> list[FileInput]:
    return [one for one in job.spec.file_inputs if not is_local(one)]


def _scheme(one: FileInput) -> str:
    scheme = urlsplit(one.source_url or "").scheme
    if scheme not in ("tapis", "http", "https"):
        raise FileRefused(f"{one.source_url}: inputs come from tapis://, tapislocal://, http:// or https://")
    return scheme


@asynccontextmanager
async def _source(job: Job, one: FileInput, hands: Hands) -> AsyncIterator[tuple[Storage, str]]:
    """Where an input lies, as the job's owner reaches it, and the path there."""
    parts = urlsplit(one.source_url or "")
    async with hands.ports.transaction() as db:
        visible = await SystemStore(db).visible_to(job.tenant, job.owner)
    if parts.netloc not in {system.id for system in visible}:
        raise NotFound("system", parts.netloc)
    side, path = await side_of(hands.ports, job.tenant, parts.netloc, job.owner), unquote(parts.path).lstrip("/")
    if not _is_closed(side.system, path, job.owner):
        yield await side.storage(hands.ports), path
        return
    own, below = await _own_directory(job, side.system, path, hands)
    storage = await hands.ports.connections.storage_below(side.login, own)
    try:
        yield storage, below
    finally:
        await storage.aclose()


def _is_closed(system: System, path: str, owner: str) -> bool:
    """Whether what jobs and pods of others keep may lie there, on a system where all have one account."""
    if not keeps_apart(system, owner):
        return False
    asked = between_slashes(path)
    return any(asked.startswith(closed) or closed.startswith(asked) for closed in closed_dirs(system))


async def _own_directory(job: Job, system: System, path: str, hands: Hands) -> tuple[str, str]:
    """The directory on the way of a job of the owner's, out of which no link may lead, and the path below it.

    FileRefused where none is.
    """
    parts = parts_of(path)
    async with hands.ports.reading() as db:
        for count, part in enumerate(parts if ".." not in parts else (), 1):
            with suppress(NotFound):
                if JOB_UUID.fullmatch(part) and (await JobStore(db).get(job.tenant, part)).owner == job.owner:
                    return "/".join(parts[:count]), "/".join(parts[count:])
    raise FileRefused(
        f"{path[:200]}: users share the account of system '{system.id}', so that of what jobs keep there an input may "
        "only come from the directory of a job of your own"
    )
