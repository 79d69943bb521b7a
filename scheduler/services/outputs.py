"""What a job wrote: its output directory, wherever it is now, and its logs as they grow."""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace

from backends.base import LOG_CHUNK_BYTES, Storage
from scheduler.job_files import written
from scheduler.model.errors import FileMissing, NotFound, SpecInvalid
from scheduler.model.jobs import ArchiveMode, Attempt, Job
from scheduler.model.macros import PathRefused, relative_path
from scheduler.model.runs import FileInfo, FileKind, LogChunk
from scheduler.model.states import BEFORE_SUBMISSION, TERMINAL, JobState
from scheduler.model.systems import BackendKind, System
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services.jobs import get, readable
from scheduler.store.jobs import JobStore
from scheduler.store.systems import SystemStore

STREAMS = ("stdout", "stderr")


@dataclass(frozen=True, slots=True)
class Where:
    """A directory of outputs on a system. ``base`` is relative to the system's root directory."""

    system_id: str
    base: str
    within: str = ""
    """The job's own directory, where the job wrote them."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file or directory that exists below a directory of outputs. ``info`` has its path from the system's root."""

    ports: Ports
    job: Job
    where: Where
    below: str
    info: FileInfo

    def opened(self) -> AbstractAsyncContextManager[tuple[Storage, str]]:
        """The storage that it is in, and its path there."""
        return _opened(self.ports, self.job, self.where, self.below)

    async def read(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        async with self.opened() as (storage, path):
            async for piece in storage.read(path):
                yield piece

    async def entries(self, limit: int, offset: int) -> Sequence[FileInfo]:
        """Those of a directory by name, or the one file; paths as in ``info``."""
        async with self.opened() as (storage, path):
            listed = await storage.list(path, limit=limit, offset=offset)
        if self.info.kind is not FileKind.DIRECTORY:
            return [replace(each, path=self.info.path) for each in listed]
        return [replace(each, path=posixpath.join(self.info.path, each.name)) for each in listed]


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Text of a log from an offset (bytes) on. ``complete``: the job has ended and this is the end of its log."""

    data: str
    offset_bytes: int
    next_offset_bytes: int
    complete: bool


async def find(ports: Ports, caller: Principal, uuid: str, path: str, *, while_running: bool) -> tuple[Job, Output]:
    """A file or directory below the job's output directory; FileMissing when nowhere.

    while_running: also when the job has not ended, from where it runs.
    """
    job = await get(ports, caller, uuid)
    if job.state not in TERMINAL and not while_running:
        raise SpecInvalid.of(
            "allowIfRunning", f"is needed: the job is {job.state}", "send allowIfRunning=true or wait for its end"
        )
    below = _relative("outputPath", path)
    missing = FileMissing(path)
    for where in _places(job):
        try:
            async with _opened(ports, job, where, below) as (storage, full):
                info = await storage.stat(full)
            return job, Output(
                ports, job, where, below, replace(info, path=posixpath.join(where.base, below).strip("/"))
            )
        except (FileMissing, NotFound):
            continue
    raise missing


async def log(
    ports: Ports, caller: Principal, uuid: str, stream: str, offset_bytes: int, task: int | None = None
) -> tuple[Job, LogPiece]:
    """A piece of standard output or error, while the job runs and after. Empty while there is nothing.

    task: whose log, where the job is an array; SpecInvalid when it has no such task, or none is named.
    """
    async with ports.reading() as db:
        job = await readable(db, caller, uuid)
        attempt = await JobStore(db).newest_attempt(job) if job.attempt else None
    ended = job.state in TERMINAL
    name = _log_name(job, stream, task)
    chunk = await (_kept_log if ended else _growing_log)(ports, job, attempt, name, offset_bytes)
    if chunk is None:
        return job, LogPiece("", offset_bytes, offset_bytes, ended)
    at_end = ended and len(chunk.data) < LOG_CHUNK_BYTES
    text, used = _text(chunk.data, final=at_end)
    return job, LogPiece(text, chunk.offset_bytes, chunk.offset_bytes + used, at_end)


def _log_name(job: Job, stream: str, task: int | None) -> str:
    """The log's name in the output directory; each task of an array has its own."""
    name: str = getattr(job.spec, stream)
    if job.spec.array is None:
        if task is not None:
            raise SpecInvalid.of("task", "is for job arrays, and this job is none", "leave it out")
        return name
    indices = job.spec.array.indices
    if task not in indices:
        raise SpecInvalid.of(
            "task", "must be one of the array's tasks", f"name one from {min(indices)} to {max(indices)}"
        )
    return f"{name}.{task}"


async def _growing_log(
    ports: Ports, job: Job, attempt: Attempt | None, name: str, offset_bytes: int
) -> LogChunk | None:
    """From where the newest attempt writes it; None while no attempt runs.

    A backend reads what it finds under a path; where users share an account that must not be a link out of the job's
    directory, and so the file is read as one of its outputs. Kubernetes tells what the container wrote.
    """
    if attempt is None or attempt.remote_id is None or job.state in BEFORE_SUBMISSION:
        return None
    run, system = attempt.run, await _system(ports, job, attempt.system_id)
    if system.is_shared_account and system.backend is not BackendKind.K8S:
        base, within = (posixpath.relpath(path, system.root_dir) for path in (run.output_dir, run.exec_dir))
        return await _log_in(ports, job, Where(system.id, base, within), name, offset_bytes)
    backend = await ports.connections.backend(system.login_of(job.owner), run.job_type)
    path = posixpath.join(run.output_dir, name)
    return await backend.read_log(attempt.remote_id, path, offset_bytes)


async def _kept_log(ports: Ports, job: Job, attempt: Attempt | None, name: str, offset_bytes: int) -> LogChunk | None:
    """From the archive, else from where it was written; None when the job never wrote it."""
    for where in _places(job) if attempt else ():
        with suppress(NotFound):
            chunk = await _log_in(ports, job, where, name, offset_bytes)
            if chunk is not None:
                return chunk
    return None


async def _log_in(ports: Ports, job: Job, where: Where, name: str, offset_bytes: int) -> LogChunk | None:
    """A piece of a log below a directory of outputs; None where there is none."""
    data = b""
    try:
        async with _opened(ports, job, where, name) as (storage, path):
            if offset_bytes < (await storage.stat(path)).size_bytes:
                data = b"".join([piece async for piece in storage.read(path, offset_bytes, LOG_CHUNK_BYTES)])
    except FileMissing:
        return None
    return LogChunk(data, offset_bytes, offset_bytes + len(data))


def _text(data: bytes, *, final: bool) -> tuple[str, int]:
    """The text in UTF-8 bytes and how many bytes it took: a character that is cut at the end is left for later."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final)
    return text, len(data) - len(decoder.getstate()[0])


def _places(job: Job) -> list[Where]:
    """Where a job's outputs may be, likeliest first."""
    if job.place is None:
        return []
    there = Where(job.place.system_id, job.place.output_dir, job.place.exec_dir)
    archived = Where(job.place.archive_system_id, job.place.archive_dir)
    if (
        job.spec.archive_mode is ArchiveMode.NEVER
        or job.state not in TERMINAL
        or (there.system_id, there.base) == (archived.system_id, archived.base)
    ):
        return [there]
    return [archived, there] if job.state is JobState.FINISHED else [there, archived]


@asynccontextmanager
async def _opened(ports: Ports, job: Job, where: Where, below: str) -> AsyncIterator[tuple[Storage, str]]:
    """The storage of a directory of outputs, and the path there of what lies below that."""
    system = await _system(ports, job, where.system_id)
    login = system.login_of(job.owner)
    async with written(ports, system, login, where.base, within=where.within) as (storage, top):
        yield storage, posixpath.join(top, below)


async def _system(ports: Ports, job: Job, system_id: str) -> System:
    """Deleted ones too: they still hold outputs."""
    async with ports.reading() as db:
        return await SystemStore(db).get(job.tenant, system_id, deleted=True)


def _relative(field: str, path: str) -> str:
    try:
        return relative_path(path)
    except PathRefused as refused:
        raise SpecInvalid.of(field, str(refused), "name a path below the output directory") from None
