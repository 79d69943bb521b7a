"""An image handed to one attempt: a lease in the store first, then what the job reads, beside its script.

All of it can be done again: a lease is a name, and what the job reads is written whole, last of all the file that it
waits for. What a broadcast carries is written once: the token in it may be in use.
"""

from __future__ import annotations

import contextlib
import json
import posixpath
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from backends.launchers.apptainer import IMAGE_NAME
from backends.paths import marker_root
from images import fragment
from images.broadcast import TOKEN_NAME, Errand, errand_files, preamble
from images.chunks import Index
from images.claims import is_short
from images.host import Area
from images.keeper import Held, Keeper
from images.policy import ImagePolicy
from images.reference import shown
from images.staging import Policy, RelayPlan, SbcastPlan, SiteFacts, Use, delivery
from scheduler.model.errors import FileMissing
from scheduler.model.ids import Marker, checked_marker
from scheduler.model.images import ImageCopy
from scheduler.model.jobs import Attempt
from scheduler.model.runs import JobType, StagedFile, StagePlan
from scheduler.model.systems import BackendKind
from scheduler.model.units import format_size
from scheduler.ports import Ports
from scheduler.reconcile.sides import Side
from scheduler.store.copies import CopyStore

FOLDER = "image"
"""Of a broadcast, in the marker directory."""

UNKNOWN_ROOM_BYTES = 2**62
"""Of local disks, where their owner wants copies on them and nobody has looked how full they are."""


@dataclass(frozen=True, slots=True)
class Handing:
    """One copy, and the login whose attempts get it."""

    ports: Ports
    side: Side
    copy: ImageCopy

    async def give(self, marker: Marker, policy: ImagePolicy, keeper: Keeper) -> bool:
        """Let the attempt read the store's file; False when the store does not have it any more."""
        if self.copy.file_digest is None:
            return False
        held = await keeper.lease(self.copy.file_digest, f"job-{marker}")
        if held is None:
            return False
        attempt = await self._attempt(marker)
        needs_room = await _wants_room_back(policy, keeper)
        plan = plan_for(attempt, self.side, policy, self.copy.file_digest, held.size_bytes, store_is_short=needs_room)
        if plan is None:
            await self._stage(attempt, fragment.at(held.path, held.size_bytes))
        elif not await self._has(marker, IMAGE_NAME):
            errand, files = await self._broadcast(plan, marker, policy, held, keeper)
            broadcast = preamble(plan, errand)
            lines = fragment.at(held.path, held.size_bytes, broadcast, errand.destination, errand.report)
            await self._stage(attempt, lines, files, errand.directories)
        return True

    async def _broadcast(
        self, plan: RelayPlan | SbcastPlan, marker: Marker, policy: ImagePolicy, held: Held, keeper: Keeper
    ) -> tuple[Errand, Sequence[StagedFile]]:
        """What the nodes need for it, as far as they were not given it before: a token may be in use."""
        if isinstance(plan, SbcastPlan) or await self._has(marker, posixpath.join(FOLDER, TOKEN_NAME)):
            return self._errand(marker, policy, held, None), ()
        errand = self._errand(marker, policy, held, await keeper.index(plan.digest))
        return errand, errand_files(plan, errand, secrets.token_hex(32))

    async def give_up(self, marker: Marker) -> None:
        """Tell the attempt that its image does not come, and why."""
        await self._stage(await self._attempt(marker), fragment.nowhere(self.copy.message))

    async def _attempt(self, marker: Marker) -> Attempt:
        async with self.ports.reading() as db:
            return await CopyStore(db).get(marker)

    async def _stage(
        self, attempt: Attempt, lines: bytes, files: Sequence[StagedFile] = (), directories: tuple[str, ...] = ()
    ) -> None:
        told = StagedFile(posixpath.join(self._folder(attempt.marker), IMAGE_NAME), lines, 0o600)
        backend = await self.side.backend(self.ports, attempt.run.job_type)
        await backend.stage(StagePlan(marker=attempt.marker, directories=directories, files=(*files, told)))

    async def _has(self, marker: Marker, name: str) -> bool:
        """Whether the attempt was given this file before, maybe by somebody who did not live to say so."""
        root = posixpath.join("/", self.side.system.root_dir)
        storage = await self.side.storage(self.ports)
        try:
            await storage.stat(posixpath.relpath(posixpath.join(self._folder(marker), name), root))
        except FileMissing:
            return False
        return True

    def _folder(self, marker: Marker) -> str:
        return folder_of(self.side, marker)

    def _errand(self, marker: Marker, policy: ImagePolicy, held: Held, index: Index | None) -> Errand:
        name = posixpath.basename(held.path)
        chunks = index.chunks if index is not None else ()
        return Errand(
            folder=broadcast_folder(self.side, marker),
            source=held.path,
            destination=posixpath.join(policy.local_dir, f"berth-images-{self.side.login_user}", name),
            index="".join(f"{chunk.length_bytes} {chunk.sha256}\n" for chunk in chunks),
            link_bytes_per_s=policy.link_bytes_per_s,
        )


async def take_back(ports: Ports, side: Side, marker: Marker) -> None:
    """Let the attempt know nothing of its image: a run that begins from now on waits until it is told again."""
    root = posixpath.join("/", side.system.root_dir)
    storage = await side.storage(ports)
    with contextlib.suppress(FileMissing):
        await storage.delete(posixpath.relpath(posixpath.join(folder_of(side, marker), IMAGE_NAME), root))


def folder_of(side: Side, marker: Marker) -> str:
    """The marker directory of an attempt; absolute, on the system."""
    return posixpath.join(marker_root(side.system, side.login_user), checked_marker(marker))


def broadcast_folder(side: Side, marker: Marker) -> str:
    """Where an attempt's broadcast finds what it needs, and leaves its report."""
    return posixpath.join(folder_of(side, marker), FOLDER)


async def _wants_room_back(policy: ImagePolicy, keeper: Keeper) -> bool:
    """Asked only where the answer decides."""
    if policy.delivery is not Policy.AUTO or policy.store.quota_bytes is None:
        return False
    kept = (await keeper.stats()).images
    return is_short(sum(each.size_bytes for each in kept if each.leases), policy.store.quota_bytes)


def plan_for(
    attempt: Attempt, side: Side, policy: ImagePolicy, digest: str, size_bytes: int, *, store_is_short: bool = False
) -> RelayPlan | SbcastPlan | None:
    """How copies come to the nodes of an attempt; None where they read the store's file.

    Tasks of an array begin one by one, each on nodes of its own, and share what was written for all: they read that.
    """
    run = attempt.run
    if run.job_type is not JobType.BATCH or run.array is not None or side.system.backend is not BackendKind.SLURM:
        return None
    rooms = [facts.rooms.get(Area.TMPDIR) for facts in policy.facts.values()]
    free = [room.free_bytes for room in rooms if room is not None and room.free_bytes is not None]
    free_bytes = min(free) if free else UNKNOWN_ROOM_BYTES if policy.delivery is Policy.LOCAL else None
    site = SiteFacts(
        link_bytes_per_s=policy.link_bytes_per_s,
        shared_bytes_per_s=policy.shared_bytes_per_s,
        local_free_bytes=free_bytes,
        policy=policy.delivery,
        store_is_short=store_is_short,
        relay_allowed=policy.may_relay,
    )
    return delivery(Use(digest=digest, size_bytes=size_bytes, nodes=run.resources.nodes), site).local


# -- what people read ------------------------------------------------------------------------------------------------


def handed(copy: ImageCopy, wanted_at: datetime) -> str:
    """The line of history of a job that has its image, as JSON: a sentence and figures."""
    image = f"{shown(copy.reference)} in the store of {copy.system_id}"
    if copy.present_at is not None and copy.present_at <= wanted_at:
        return _told(f"{image}: it was there already, 0 bytes sent", {"sent_bytes": 0.0, "fetched_bytes": 0.0})
    figures = copy.figures
    steps = [
        f"fetched {format_size(int(figures.get('fetched_bytes', 0)))} in {figures.get('fetch_s', 0):.1f} s",
        f"made into one file in {figures.get('convert_s', 0):.1f} s",
        f"sent {format_size(copy.sent_bytes or 0)} in {figures.get('send_s', 0):.1f} s",
    ]
    reused = f", {format_size(copy.reused_bytes)} of it was there" if copy.reused_bytes else ""
    waited_s = (copy.present_at - wanted_at).total_seconds() if copy.present_at is not None else 0.0
    return _told(f"{image}: {', '.join(steps)}{reused}", {**figures, "waited_s": round(waited_s, 3)})


def in_words(copy: ImageCopy) -> str:
    """The same of a job whose image does not come."""
    return _told(f"{shown(copy.reference)} is not brought to {copy.system_id}: {copy.message}", {})


def given_way(copy: ImageCopy) -> str:
    """The same of a job whose image left a full store for now."""
    image = f"{shown(copy.reference)} left the store of {copy.system_id}"
    return _told(f"{image} for images of jobs that are to begin sooner; it is brought again", {})


def _told(sentence: str, figures: dict[str, float]) -> str:
    return json.dumps({"sentence": sentence, **figures})
