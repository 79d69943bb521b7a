"""The interfaces that drive a system: ``Backend`` runs things, ``Storage`` holds files; a system may offer both."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from scheduler.model.errors import SubmitError
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.pods import Executed, PodSeen
from scheduler.model.runs import FileInfo, LogChunk, Observation, StagePlan, StageStatus, SubmitIntent
from scheduler.model.snapshots import StartProbe, SystemSnapshot

LOG_CHUNK_BYTES = 256 * 1024
"""Most bytes that one ``read_log`` answers."""

REMOTE_OUTPUT_BYTES = 8 * 1024 * 1024
"""Most bytes of output taken from one remote command; more is an UnexpectedReply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a backend can do, as data; callers never use isinstance."""

    batch: bool = False
    arrays: bool = False
    multi_node: bool = False
    start_estimates: bool = False
    """Whether ``snapshot`` answers start probes."""
    visible_queue: bool = False
    copies: bool = True
    """Whether a run may wait at a gate; one that asks for it is rejected elsewhere."""
    pods: bool = False
    """Whether it keeps runs that have ports, and a ``PodHost`` stands beside it."""


class Backend(Protocol):
    """One system as one login. Every method may be called again after a crash with the same arguments.

    All methods raise NothingLearnt (BackendUnavailable, UnexpectedReply, NotAuthorised) and no library's exceptions.
    """

    capabilities: Capabilities

    async def snapshot(self, probes: Sequence[StartProbe] = ()) -> SystemSnapshot:
        """Nodes, partitions, visible jobs; ``probes`` are answered by the site's own scheduler where it can."""
        ...

    async def stage(self, plan: StagePlan) -> StageStatus:
        """Start bringing things into place, or report on it; never waits for a long transfer."""
        ...

    async def submit(self, intents: Sequence[SubmitIntent]) -> Mapping[Marker, RemoteId | SubmitError]:
        """Start each run at most once per marker. Every marker asked for is in the answer.

        SubmitRejected: no remote job exists, with the system's words. SubmitUncertain: ask ``find``.
        """
        ...

    async def find(self, marker: Marker, intended_at: datetime) -> RemoteId | None:
        """The remote job under this marker. None is proof that there is none and never will be; doubt raises."""
        ...

    async def observe(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, Observation]:
        """What the system says of these jobs, in one query for all. An id left out is unknown, not ended."""
        ...

    async def unended(self) -> Mapping[Marker, RemoteId]:
        """What waits or runs here under a marker as this login, in one query, whichever Berth handed it over.

        For finding what nobody waits for: one that is left out may still be there, and be shown the next time.
        """
        ...

    async def cancel(self, remote_id: RemoteId, marker: Marker) -> bool:
        """Ask for the end of a remote job; already gone is success. An id under another name is never touched.

        From then on a job that had not begun begins nothing. Answers whether it may have begun; False is proof, after
        which nobody asks for this job again: what the system keeps of it goes without that.
        """
        ...

    async def withdraw(self, remote_id: RemoteId, marker: Marker) -> bool:
        """Take back a job that has not begun; one that has, or may have, is left alone. Not for job arrays.

        True is proof, and stays so: nothing of the user's ran under this marker or ever will. As after ``cancel``,
        nobody asks for it again.
        """
        ...

    async def read_log(self, remote_id: RemoteId, path: str, offset_bytes: int) -> LogChunk:
        """Bytes of a log file (absolute path) from an offset on, also while it grows; empty when not yet there."""
        ...

    async def aclose(self) -> None:
        """Let go of connections; running jobs stay."""
        ...


class Storage(Protocol):
    """Files below a system's root directory. Paths are relative to it; one that would leave it raises FileRefused.

    FileMissing and FileRefused speak of the file; NothingLearnt of the system.
    """

    async def stat(self, path: str) -> FileInfo: ...

    async def list(self, path: str, limit: int = 1000, offset: int = 0) -> Sequence[FileInfo]:
        """Entries of a directory by name, or the one file that ``path`` is."""
        ...

    def read(self, path: str, offset_bytes: int = 0, length_bytes: int | None = None) -> AsyncIterator[bytes]:
        """The file's bytes in pieces, from an offset on."""
        ...

    async def write(self, path: str, chunks: AsyncIterator[bytes]) -> int:
        """Write a file whole, seen under its name only when complete; makes missing directories. Returns bytes."""
        ...

    async def make_directory(self, path: str) -> None:
        """Make a directory and its parents; already there is success."""
        ...

    async def move(self, source: str, target: str) -> None: ...

    async def copy(self, source: str, target: str) -> None:
        """Copy a file or a directory tree on the same system."""
        ...

    async def delete(self, path: str) -> None:
        """Delete a file or a tree; never the root itself."""
        ...

    async def checksum(self, path: str) -> str:
        """SHA-256 of a file, in hex."""
        ...

    async def run_beside(self, program: bytes, stdin: bytes) -> bytes:
        """What a small Python program of Berth's writes, run where the files are as this login, with this to read.

        It sees the system's own paths, not ours. For requests of some MiB, and answers of at most REMOTE_OUTPUT_BYTES.
        A program that fails, is killed or writes more raises NothingLearnt: what it did until then stays done.
        """
        ...

    async def aclose(self) -> None: ...


class Channel(Protocol):
    """A connection to a port of a pod: bytes both ways. What it meets raises ConnectionError, as a socket would."""

    async def read(self, most_bytes: int) -> bytes:
        """Some bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more."""
        ...

    async def end(self) -> None:
        """No more will be written; reading goes on."""
        ...

    async def aclose(self) -> None: ...


class PodHost(Protocol):
    """What stands beside a ``Backend`` that keeps pods: one system as one login.

    An instance is a run with ports (``RunSpec.ports``): started, found, observed, cancelled and its log read by the
    backend's own methods, at most one per marker. All methods raise NothingLearnt.
    """

    async def look(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, PodSeen]:
        """What can be said of these instances beyond ``observe``, in one query. One left out is unknown, not gone."""
        ...

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> Channel:
        """A connection to a port of the instance, which took it. PortClosed where nobody listens there (yet)."""
        ...

    async def execute(
        self, remote_id: RemoteId, marker: Marker, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float
    ) -> Executed:
        """Run a command inside the instance. What it writes beyond REMOTE_OUTPUT_BYTES raises UnexpectedReply."""
        ...

    async def aclose(self) -> None: ...
