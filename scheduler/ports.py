"""What services and reconcilers need of the world: store, clock, systems. Built by ``scheduler.wiring``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from backends.base import Backend, PodHost, Storage
from images.bring import Bringer
from images.bringers import Bringers, ReadsAlone, all_read_alike
from images.credentials import Login
from images.pushed import Pushes
from images.reference import Reference
from images.sources import Source
from placement.problem import Ask, Problem
from scheduler.judge import Judge
from scheduler.knowledge import Knowledge
from scheduler.model.ids import LoginKey
from scheduler.model.probes import ProbeAsk, ProbeReport
from scheduler.model.runs import JobType
from scheduler.model.systems import Credential, System, Verified
from scheduler.security.throttle import LoginThrottle
from scheduler.store.definitions import Definitions
from scheduler.store.facts import PlacementFacts
from scheduler.store.group_commit import GroupCommit


class Connections(Protocol):
    """Backends and storages by login, opened when first needed and shared by all who ask."""

    async def backend(self, login: LoginKey, job_type: JobType) -> Backend:
        """The backend that runs jobs of this type; NotAuthorised when the login has no usable credential."""
        ...

    async def storage(self, login: LoginKey) -> Storage:
        """The files of the system as this login; NotAuthorised as above."""
        ...

    async def storage_below(self, login: LoginKey, directory: str) -> Storage:
        """The same below a directory, out of which no link leads. Who asked closes it."""
        ...

    async def pod_host(self, login: LoginKey) -> PodHost:
        """What stands beside the backend for pods; BackendUnavailable where the system keeps none."""
        ...

    async def verify(self, system: System, credential: Credential) -> Verified:
        """Log in for real.

        CredentialRefused or BackendUnavailable in the system's words.
        """
        ...

    async def probe(self, ask: ProbeAsk) -> ProbeReport:
        """Look at a host that may become a system."""
        ...

    async def forget(self, login: LoginKey) -> None:
        """Drop what is cached for a login: its credential or its system changed."""
        ...

    async def aclose(self) -> None: ...


async def nothing_to_close() -> None:
    """For what holds nothing open."""


@dataclass(frozen=True, slots=True)
class Images:
    """Where images are read from. ``bringer`` looks into files that all may read; None where that is not allowed.

    source: as the operator's logins let them be read. public: as they are read without any login; None where nobody
    has one. sources: as a user of a tenant may read them; None where all read them alike. try_login: shows a login to
    a registry, as ``images.access.try_login`` does. pushes: the files that users pushed; None where nobody may.
    reads_alone: whether a user may read there what others may not. bringers: who brings for whom; None: one for all.
    """

    source: Source[Any]
    bringer: Bringer | None = None
    aclose: Callable[[], Awaitable[None]] = nothing_to_close
    public: Source[Any] | None = None
    sources: Callable[[str, str], Source[Any]] | None = None
    try_login: Callable[[str, Login], Awaitable[bool]] | None = None
    pushes: Pushes | None = None
    reads_alone: ReadsAlone = all_read_alike
    bringers: Bringers | None = None

    async def bringer_for(self, reference: Reference, tenant: str, user: str) -> Bringer | None:
        """Who brings an image for this user; None where no files are looked into."""
        return self.bringer if self.bringers is None else await self.bringers.of(reference, tenant, user)

    def source_for(self, tenant: str, user: str) -> Source[Any]:
        """Images as this user may read them: with the user's own logins, then the operator's."""
        return self.source if self.sources is None else self.sources(tenant, user)


def utc_now() -> datetime:
    """The wall clock of production; tests put their own into ``Ports.clock``."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Ports:
    """The one bundle that is handed down. ``transaction()`` opens a short transaction; no network inside, ever.

    ``wake`` tells the reconcilers that a move was committed; ``process_id`` names this process in leases.
    ``reads`` opens what only reads and never waits behind a writer; left out, reading is a transaction too.
    ``group`` lets submissions that arrive together share a transaction; left out, each has its own.
    ``definitions`` remembers apps and systems between submissions; left out, nothing is remembered.
    ``knowledge`` learns from looks at systems; left out, placement is told only what the store says.
    ``images`` reads images; left out, nobody can ask about them.
    ``volumes`` opens a directory in which files of pods lie, as a root of its own; left out, pods have no volumes.
    ``own_places`` are Berth's own files and directories on this machine, which no system's root directory may reach.
    ``logins`` counts refused logins.
    ``adopt`` renames such a directory to a path of a system, where that is this machine; False where it must be copied.
    """

    transaction: Callable[[], AbstractAsyncContextManager[Any]]
    connections: Connections
    clock: Callable[[], datetime] = utc_now
    wake: Callable[[], None] = field(default=lambda: None)
    process_id: str = "one"
    reads: Callable[[], AbstractAsyncContextManager[Any]] | None = None
    group: GroupCommit | None = None
    definitions: Definitions | None = None
    knowledge: Knowledge | None = None
    images: Images | None = None
    volumes: Callable[[str], Storage] | None = None
    adopt: Callable[[str, LoginKey, str], Awaitable[bool]] | None = None
    own_places: tuple[Path, ...] = ()
    logins: LoginThrottle = field(default_factory=LoginThrottle)

    def reading(self) -> AbstractAsyncContextManager[Any]:
        """For reading only; each statement sees what was committed before it."""
        return (self.reads or self.transaction)()

    async def problem(self, tenant: str, asks: Sequence[Ask]) -> Problem:
        """The question of where these jobs go now, with all that is known of the tenant's systems."""
        if self.knowledge is not None:
            return await self.knowledge.problem(tenant, asks, self.clock())
        async with self.reading() as db:
            return await Judge().judged(db, tenant, await PlacementFacts(db).problem(tenant, asks, self.clock()))

    def submissions(self) -> GroupCommit:
        """Where new jobs are added."""
        return self.group or GroupCommit(self.transaction)

    def remembered(self) -> Definitions:
        """Apps and systems as submissions before found them."""
        return self.definitions or Definitions(self.reading)
