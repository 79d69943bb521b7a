"""What a job wrote: its output directory, wherever it is now, and its logs as they grow."""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from backends.base import LOG_CHUNK_BYTES, Storage
from scheduler.model.errors import FileMissing, NotFound, SpecInvalid
from scheduler.model.ids import LoginKey
from scheduler.model.jobs import ArchiveMode, Attempt, Job
from scheduler.model.macros import PathRefused, relative_path
from scheduler.model.runs import FileInfo, LogChunk
from scheduler.model.states import BEFORE_SUBMISSION, TERMINAL, JobState
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


@dataclass(frozen=True, slots=True)
class Output:
    """A file or directory of a job's output that exists, and the storage it is in."""

    storage: Storage
    where: Where
    info: FileInfo
    path: str

    def read(self) -> AsyncIterator[bytes]:
        """The file's bytes."""
        return self.storage.read(self.path)


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
            storage = await _storage(ports, job, where.system_id)
            full = posixpath.join(where.base, below)
            return job, Output(storage, where, await storage.stat(full), full)
        except (FileMissing, NotFound):
            continue
    raise missing


async def list_files(output: Output, limit: int, offset: int) -> Sequence[FileInfo]:
    """The entries of an output directory by name, or the one file."""
    return await output.storage.list(output.path, limit=limit, offset=offset)


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
    """From where the newest attempt writes it; None while no attempt runs."""
    if attempt is None or attempt.remote_id is None or job.state in BEFORE_SUBMISSION:
        return None
    run = attempt.run
    login = await _login(ports, job, attempt.system_id)
    backend = await ports.connections.backend(login, run.job_type)
    path = posixpath.join(run.output_dir, name)
    return await backend.read_log(attempt.remote_id, path, offset_bytes)


async def _kept_log(ports: Ports, job: Job, attempt: Attempt | None, name: str, offset_bytes: int) -> LogChunk | None:
    """From the archive, else from where it was written; None when the job never wrote it."""
    for where in _places(job) if attempt else ():
        path = posixpath.join(where.base, name)
        try:
            storage = await _storage(ports, job, where.system_id)
            size_bytes = (await storage.stat(path)).size_bytes
            data = b""
            if offset_bytes < size_bytes:
                data = b"".join([piece async for piece in storage.read(path, offset_bytes, LOG_CHUNK_BYTES)])
        except (FileMissing, NotFound):
            continue
        return LogChunk(data, offset_bytes, offset_bytes + len(data))
    return None


def _text(data: bytes, *, final: bool) -> tuple[str, int]:
    """The text in UTF-8 bytes and how many bytes it took: a character that is cut at the end is left for later."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data, final)
    return text, len(data) - len(decoder.getstate()[0])


def _places(job: Job) -> list[Where]:
    """Where a job's outputs may be, likeliest first."""
    if job.place is None:
        return []
    written = Where(job.place.system_id, job.place.output_dir)
    archived = Where(job.place.archive_system_id, job.place.archive_dir)
    if job.spec.archive_mode is ArchiveMode.NEVER or job.state not in TERMINAL or written == archived:
        return [written]
    return [archived, written] if job.state is JobState.FINISHED else [written, archived]


async def _storage(ports: Ports, job: Job, system_id: str) -> Storage:
    return await ports.connections.storage(await _login(ports, job, system_id))


async def _login(ports: Ports, job: Job, system_id: str) -> LoginKey:
    """The login by which a job's owner reaches a system; deleted systems still hold outputs."""
    async with ports.reading() as db:
        system = await SystemStore(db).get(job.tenant, system_id, deleted=True)
    return system.login_of(job.owner)


def _relative(field: str, path: str) -> str:
    try:
        return relative_path(path)
    except PathRefused as refused:
        raise SpecInvalid.of(field, str(refused), "name a path below the output directory") from None
