"""Images into and out of the store of one owner on one system, from here: only the chunks that are not there travel.

Each request is one run of the store's program. Of what travels when a link breaks the whole chunks stay there, and
whoever sends the image again goes on. Senders of one image take turns by a lock in the store. All methods raise
NothingLearnt when the system cannot be asked, and StoreRefused with the store's own words.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from images.chunks import Index, index_of
from images.line import Line, Pressing
from images.store import ChunkDamaged, StoreFull, StoreOf, StoreRefused, parse_answer, program
from images.threads import Halt, HaltingFile, in_thread
from images.workshop import Locks
from scheduler.model.errors import FileRefused, NothingLearnt, SpecInvalid, UnexpectedReply

BATCH_BYTES = 32 * 1024 * 1024
"""Most bytes of chunks in one request, unless a single chunk is larger: a request costs the start of an interpreter,
and for so long an image keeps one waiting that is more pressing."""

BEAT_S = 10
"""How often a sender says that it lives; after three silent ones another may go on with its image."""

REPAIRS = 3
"""How often an image is begun again because what came was not what was sent, or was lost."""

VERIFIED_SHARE = 0.01
"""Of leases, those before which the image is read."""

GIVE_BACK_S = 10.0
"""For giving a lock back; one that stays is stale soon."""

T = TypeVar("T")
Run = Callable[[bytes, bytes], Awaitable[bytes]]
"""Runs a program of ours beside the store: its text, what it reads; what it answers."""
ChunksOf = Callable[[Path, str], Awaitable[Index]]
"""The chunks of a file of this host, which has that digest."""
Progress = Callable[[int, int], Awaitable[None]]
"""Told how many bytes of the image are there, and of how many."""


@dataclass(frozen=True, slots=True)
class Held:
    """An image in the store: ``path`` is absolute and stays while it is leased."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Sent:
    """An image that is in the store now.

    sent_bytes: chunks that travelled for it in this call. reused_bytes: those taken from other images there.
    """

    path: str
    size_bytes: int
    sent_bytes: int
    reused_bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """An image as a store counts it. used_at_s: seconds since the epoch, by the clock of its file system."""

    digest: str
    size_bytes: int
    used_at_s: float
    leases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stats:
    """What a store holds and takes: also for what is under way, and for the trash."""

    images: tuple[Kept, ...]
    held_bytes: int
    inodes: int
    trash_bytes: int


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection did. dropped_count: leases of jobs that are over. held_bytes and inodes: of what stays."""

    trashed: tuple[str, ...]
    emptied: tuple[str, ...]
    dropped_count: int
    held_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Repaired:
    """Digests of images that were gone, unknown but whole, and damaged (and so gone now)."""

    gone: tuple[str, ...]
    adopted: tuple[str, ...]
    corrupt: tuple[str, ...]


async def cut(file: Path, digest: str) -> Index:
    """The chunks of a file, cut anew; a Workshop's ``chunks_of`` remembers them."""
    return await asyncio.to_thread(index_of, file)


class Keeper:
    """One for a store and process: it takes turns with itself, too, and a lock that a cut link left is still its own.

    ``run``: as ``Storage.run_beside``, with the login that owns the store. ``line``: of all who send to its system.
    """

    def __init__(
        self,
        store: StoreOf,
        run: Run,
        *,
        chunks_of: ChunksOf = cut,
        line: Line | None = None,
        batch_bytes: int = BATCH_BYTES,
        beat_s: float = BEAT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store, self._run, self._chunks_of = store, run, chunks_of
        self._line, self._batch_bytes, self._beat_s, self._sleep = line or Line(), batch_bytes, beat_s, sleep
        self._chance = chance
        self._nonce, self._locks = uuid4().hex, Locks()

    # -- what is there -----------------------------------------------------------------------------------------------

    async def have(self, digest: str) -> Held | None:
        """The image, if it is there and as it was when it was verified."""
        return self._held(digest, await self._ask("have", digest=digest))

    async def lease(self, digest: str, holder: str) -> Held | None:
        """Say that ``holder`` ("job-" and a marker, or "pin-" and a name) needs the image; None: it is not there yet.

        An image in the trash comes back. A lease of what is not there holds it when it comes. A share of the images is
        read whole before it is given, so that a disk that loses bytes is noticed.
        """
        held = self._held(digest, await self._ask("lease", digest=digest, holder=holder))
        if held and self._chance() < VERIFIED_SHARE and not await self.verify(digest):
            return None
        return held

    async def release(self, digest: str, holder: str) -> None:
        """Take a lease back; there being none is success."""
        await self._ask("release", digest=digest, holder=holder)

    async def pin(self, digest: str, name: str) -> Held | None:
        """Hold the image until ``unpin``, whatever jobs there are."""
        return await self.lease(digest, f"pin-{name}")

    async def unpin(self, digest: str, name: str) -> None:
        """Take a pin back; there being none is success."""
        await self.release(digest, f"pin-{name}")

    async def verify(self, digest: str) -> bool:
        """Read the whole image there; one whose bytes are not its name goes out of sight."""
        return _read(await self._ask("verify", digest=digest), lambda said: bool(said["whole"]))

    async def stats(self) -> Stats:
        """What the store holds."""
        return _read(await self._ask("stats"), _stats)

    async def collect(self, live_jobs: Sequence[str] | None, need_bytes: int = 0) -> Collected:
        """Make room as the policy says, and in any case for ``need_bytes``, where no image that is needed must go.

        live_jobs: markers of all jobs that may still need an image, None when that is not known.
        """
        return _read(await self._send_request(self._store.collect(live_jobs, need_bytes)), _collected)

    async def remove(
        self, digest: str, live_jobs: Sequence[str] | None, grace_s: int, *, at_once: bool = False
    ) -> Sequence[str]:
        """Let one image go that nobody needs; who needs it, where somebody does, and it stays.

        live_jobs: as for ``collect``. grace_s: how old a lease of a job that is not among them must be not to count.
        at_once: it is known that nobody is about to open it; its room is free at once.
        """
        said = await self._ask("remove", digest=digest, live=live_jobs, grace_s=grace_s, at_once=at_once)
        return _read(said, lambda said: _names(said["holders"]))

    async def repair(self) -> Repaired:
        """See what a purge or a crash did to the store, and put its books right."""
        said = await self._ask("repair")
        return _read(said, lambda said: Repaired(*(_names(said[each]) for each in ("gone", "adopted", "corrupt"))))

    async def index(self, digest: str) -> Index:
        """The chunks of an image that is there, cut now if nobody did: slow, about 10 MB/s of that host."""
        said = await self._ask("index", digest=digest)
        try:
            return Index.of_json(said.get("chunks"))
        except SpecInvalid as error:
            raise UnexpectedReply(f"the image store answered something else than was asked: {error}") from None

    # -- an image comes in -------------------------------------------------------------------------------------------

    async def send(
        self,
        file: Path,
        digest: str,
        *,
        record: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        pressing: Pressing | None = None,
        live_jobs: Sequence[str] | None = None,
    ) -> Sent:
        """Have the image there; asks once and sends nothing where it is. Call it again after NothingLearnt: it goes on.

        record: kept beside the image. pressing: against others who send there now; before all of them if not given.
        live_jobs: as for ``collect``, which is tried once where there is no room.
        StoreFull when that was not enough: what it moved to the trash gives its room back after some minutes.
        FileRefused when ``file`` is not what its digest says.
        """
        sending = _Sending(file, digest, record, progress, pressing or _at_once, live_jobs)
        while True:
            if held := await self.have(digest):
                return Sent(held.path, held.size_bytes, sending.sent_bytes, sending.reused_bytes)
            with contextlib.suppress(_Overtaken):
                async with self._turn(digest) as turn:
                    if turn.is_ours:
                        return await self._transfer(sending, turn)
            await self._sleep(self._beat_s)

    async def _transfer(self, sending: _Sending, turn: _Turn) -> Sent:
        """The image's chunks until it is whole there, begun again where some of them are lost on the way."""
        index = await self._chunks_of(sending.file, sending.digest)
        for tries_left in reversed(range(REPAIRS + 1)):
            try:
                held = await self._pour(sending, index, turn)
            except ChunkDamaged:
                if not tries_left:
                    raise
                index = await self._checked(sending)
            except StoreRefused as refusal:
                if refusal.kind != "not-begun" or not tries_left:
                    raise
            else:
                return Sent(held.path, held.size_bytes, sending.sent_bytes, sending.reused_bytes)
        raise AssertionError("the last try returns or raises")

    async def _pour(self, sending: _Sending, index: Index, turn: _Turn) -> Held:
        said = await self._begin(sending, index)
        part: dict[str, Any] = {"digest": sending.digest, "chunks": said.get("part", "")}
        for finishes_left in reversed(range(REPAIRS + 1)):
            async with self._line.place(sending.pressing) as place:
                while missing := _missing(said, index):
                    await sending.tell(index, missing)
                    await place.wait(index.bytes_of(missing))
                    turn.check()
                    numbers = _batch(index, missing, self._batch_bytes)
                    body = await in_thread(partial(_content, sending.file, index, numbers))
                    said = await self._ask("fill", body, **part, numbers=numbers)
                    sending.sent_bytes += len(body)
                    if len(_missing(said, index)) >= len(missing):
                        raise ChunkDamaged("corrupt", "no whole chunk arrived of those that were sent")
            await sending.tell(index, ())
            if not said.get("have"):
                said = await self._ask("finish", **part, record=sending.record)
            if said.get("have"):
                return Held(self._store.file(sending.digest), index.size_bytes)
            if not finishes_left:
                break
        raise UnexpectedReply(f"the image store loses chunks of {sending.digest}: is the disk of the system sound?")

    async def _begin(self, sending: _Sending, index: Index) -> dict[str, Any]:
        """Prepare there for the image, with the room that a collection can make."""
        which: dict[str, Any] = {"digest": sending.digest, "chunks": index.to_json(), "quota": self._store.quota}
        try:
            said = await self._ask("begin", **which)
        except StoreFull:
            await self.collect(sending.live_jobs, _room_bytes(index))
            said = await self._ask("begin", **which)
        sending.reused_bytes += _read(said, lambda said: int(said.get("reused_bytes", 0)))
        return said

    async def _checked(self, sending: _Sending) -> Index:
        """The file's chunks cut anew, once it is seen to be what its digest says."""
        found = await in_thread(partial(_digest_of, sending.file))
        if found != sending.digest:
            raise FileRefused(f"{sending.file.name} is damaged: its bytes are {found}; remove it, and make it again")
        return await cut(sending.file, sending.digest)

    # -- turns -------------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _turn(self, digest: str) -> AsyncIterator[_Turn]:
        """Our turn to send an image, if it is; held by heartbeats until we are done."""
        name = f"send-{digest.rpartition(':')[2]}"
        async with self._locks.of(name):
            who: dict[str, Any] = {"host": socket.gethostname()[:64], "pid": os.getpid(), "nonce": self._nonce}
            turn = _Turn(bool((await self._ask("lock", name=name, beat_s=self._beat_s, **who)).get("held")))
            if not turn.is_ours:
                yield turn
                return
            beating = asyncio.create_task(self._keep(turn, name))
            try:
                yield turn
            finally:
                beating.cancel()
                with contextlib.suppress(NothingLearnt, StoreRefused, TimeoutError):
                    await asyncio.wait_for(self._ask("unlock", name=name, nonce=self._nonce), GIVE_BACK_S)

    async def _keep(self, turn: _Turn, name: str) -> None:
        while turn.is_ours:
            await self._sleep(self._beat_s)
            with contextlib.suppress(NothingLearnt, StoreRefused):  # the transfer meets the same trouble, and tells
                turn.is_ours = bool((await self._ask("beat", name=name, nonce=self._nonce)).get("held"))

    # -- requests ----------------------------------------------------------------------------------------------------

    async def _ask(self, verb: str, body: bytes = b"", **arguments: Any) -> dict[str, Any]:
        return await self._send_request(self._store.request(verb, **arguments), body)

    async def _send_request(self, line: bytes, body: bytes = b"") -> dict[str, Any]:
        return parse_answer(await self._run(program(), line + body))

    def _held(self, digest: str, said: dict[str, Any]) -> Held | None:
        """Where it is we know ourselves: the answer of a system is not put into scripts."""
        if not said.get("have"):
            return None
        return Held(self._store.file(digest), _read(said, lambda said: int(said["size_bytes"])))


@dataclass
class _Sending:
    """An image under way, and what it cost so far."""

    file: Path
    digest: str
    record: Mapping[str, Any] | None
    progress: Progress | None
    pressing: Pressing
    live_jobs: Sequence[str] | None
    sent_bytes: int = 0
    reused_bytes: int = 0

    async def tell(self, index: Index, missing: Sequence[int]) -> None:
        if self.progress is not None:
            await self.progress(index.size_bytes - index.bytes_of(missing), index.size_bytes)


class _Overtaken(Exception):
    """Another sender took us for dead, and goes on with the image."""


@dataclass
class _Turn:
    is_ours: bool

    def check(self) -> None:
        if not self.is_ours:
            raise _Overtaken


def _batch(index: Index, missing: Sequence[int], most_bytes: int) -> list[int]:
    """The first of the missing chunks, each content once, as many as fit."""
    numbers: list[int] = []
    contents: set[str] = set()
    size_bytes = 0
    for number in missing:
        chunk = index.chunks[number]
        if chunk.sha256 in contents:
            continue
        if numbers and size_bytes + chunk.length_bytes > most_bytes:
            break
        numbers.append(number)
        contents.add(chunk.sha256)
        size_bytes += chunk.length_bytes
    return numbers


async def _at_once(_left_bytes: int) -> float:
    return 0.0


def _content(file: Path, index: Index, numbers: Sequence[int], halt: Halt) -> bytes:
    pieces = []
    for piece in index.read(file, numbers):
        halt.check()
        pieces.append(piece)
    return b"".join(pieces)


def _digest_of(path: Path, halt: Halt) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        reader = HaltingFile(file, halt)
        while piece := reader.read(1 << 20):
            found.update(piece)
    return f"sha256:{found.hexdigest()}"


def _room_bytes(index: Index) -> int:
    """Of the image, and of its chunks' map and index while it comes."""
    return index.size_bytes + 96 * len(index.chunks)


# -- answers ---------------------------------------------------------------------------------------------------------


def _read(said: dict[str, Any], read: Callable[[dict[str, Any]], T]) -> T:
    try:
        return read(said)
    except (KeyError, TypeError, ValueError) as error:
        raise UnexpectedReply(
            f"the image store answered something else than was asked: {type(error).__name__} {error}", str(said)[:2048]
        ) from None


def _missing(said: dict[str, Any], index: Index) -> list[int]:
    missing = said.get("missing", [])
    if not isinstance(missing, list) or not all(
        type(number) is int and 0 <= number < len(index.chunks) for number in missing
    ):
        raise UnexpectedReply("the image store wants chunks that there are not", str(said)[:2048])
    return missing


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("no list of names")
    return tuple(map(str, value))


def _stats(said: dict[str, Any]) -> Stats:
    images = tuple(
        Kept(str(each["digest"]), int(each["size_bytes"]), float(each["used_at"]), _names(each["leases"]))
        for each in said["images"]
    )
    return Stats(images, int(said["bytes"]), int(said["inodes"]), int(said["trash_bytes"]))


def _collected(said: dict[str, Any]) -> Collected:
    return Collected(
        trashed=_names(said["trashed"]),
        emptied=_names(said["emptied"]),
        dropped_count=int(said["leases_dropped"]),
        held_bytes=int(said["bytes"]),
        inodes=int(said["inodes"]),
    )
