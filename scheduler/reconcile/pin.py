"""PENDING: what a job's image name means is found out once, before the job is placed; from then on it is that content.

Only where it matters: where a system that the job may go to keeps images. Of all other jobs the runtime on the system
reads the name, as it does of names that Berth cannot read, and of registries that only the site reaches. Where MPI or
GPUs are asked for, which an image runs with on some nodes and not on others, its files are looked into as well, for a
while: they come to this host in any case.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

import structlog

from images.errors import ImagePrivate, ImageUnknown, RegistryUnavailable, TagMoved
from images.platforms import Platform
from images.policy import USUAL_PLATFORM, ImagePolicy
from images.reference import PushedReference, parse_reference, shown
from images.sources import Resolved, Source
from scheduler.model.errors import (
    BackendUnavailable,
    BerthError,
    CredentialRefused,
    FileRefused,
    NotFound,
    NothingLearnt,
    SpecInvalid,
    Stale,
)
from scheduler.model.images import PinnedImage
from scheduler.model.jobs import Fact, Job, JobSpec
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.states import Condition, Event
from scheduler.ports import Images, Ports
from scheduler.reconcile.groups import Groups
from scheduler.reconcile.hands import Hands
from scheduler.reconcile.held import Held, keep_all
from scheduler.reconcile.image_names import as_runtimes_read, is_readable, kept_by
from scheduler.reconcile.looking import Looks
from scheduler.store.systems import SystemStore

log = structlog.get_logger()

AGAIN_S, LONGEST_WAIT_S = 5.0, 300.0
"""Until a registry that did not answer is asked again: at first, and at most."""

NAMES_AT_ONCE = 16

BEYOND_FOR = timedelta(minutes=10)
"""How long a registry that Berth may not or cannot reach is left to the runtimes, before it is asked again."""

IN_TURN = "its image is being looked up for jobs that came before, or waits for its turn"

HOPELESS = (CredentialRefused, NotFound, SpecInvalid, Stale)
"""What the registry says for good: private, unknown, unusable, gone."""


class Wanted(NamedTuple):
    """What is resolved once for all jobs that want it together. ``user``: whose logins are shown."""

    tenant: str
    user: str
    image: str
    platform: Platform


class Pins:
    """Finds out what names mean, beside the loop of placement. Memory holds only how often one was asked in vain."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._misses: Counter[Wanted] = Counter()
        self._beyond: dict[Wanted, datetime] = {}
        self._names, self._looks, self._groups = Hands(NAMES_AT_ONCE, ports.clock), Looks(ports), Groups(ports)
        self.crews = self._names.crew, self._looks.crew

    async def keep(self) -> None:
        """A registry may take longer than a lease."""
        await keep_all(self._names.held | self._looks.held, self._ports)

    async def settle(self) -> None:
        """Wait until all that was started has ended."""
        for crew in self.crews:
            await crew.settle()

    async def take(self, waiting: Sequence[Held]) -> Sequence[Held]:
        """Start on those whose image is to be resolved first; the others."""
        images = self._ports.images
        unpinned = [held for held in waiting if is_readable(held.job)]
        if images is None or images.bringer is None or not unpinned:
            return waiting
        keepers = await self._keepers({held.job.tenant for held in unpinned})
        groups: dict[Wanted, list[Held]] = defaultdict(list)
        for held in unpinned:
            policies = _policies(held.job.spec, keepers[held.job.tenant])
            if policies and not self._is_beyond(wanted := _wanted(held.job, policies)):
                groups[wanted].append(held)
        for wanted, group in groups.items():
            await self._take(images, wanted, group)
        taken = {held for group in groups.values() for held in group}
        return [held for held in waiting if held not in taken]

    async def _take(self, images: Images, wanted: Wanted, group: Sequence[Held]) -> None:
        """Have the name resolved, unless somebody does, or looks into the image already for such as these."""
        rest = await self._looks.without_late(wanted, group)
        if not self._names.may_start(wanted):
            await self._groups.put_back(rest, IN_TURN, self._names.turn_s(wanted))
        elif rest:
            self._names.start(wanted, rest, partial(self._resolve, images, wanted, rest), shown(wanted.image))

    async def _keepers(self, tenants: Iterable[str]) -> Mapping[str, Mapping[str, ImagePolicy]]:
        """The systems of each tenant that keep images."""
        async with self._ports.reading() as db:
            return {tenant: kept_by(await SystemStore(db).list(tenant, WHOLE_LIST)) for tenant in tenants}

    async def _resolve(self, images: Images, wanted: Wanted, group: Sequence[Held]) -> None:
        try:
            resolved = await self._resolved(images, wanted)
            pinned = await self._pinned(images, wanted, resolved)
            look = await self._looks.wanted(images, wanted.tenant, wanted.user, resolved, group)
        except HOPELESS as error:
            self._misses.pop(wanted, None)
            outcome = {"condition": Condition.JOB_INVALID_DEFINITION}
            await self._groups.end(group, Fact(Event.FAILED, outcome, message=f"its image cannot be used: {error}"))
        except (FileRefused, NothingLearnt) as error:
            if _is_out_of_reach(wanted, error):
                self._beyond[wanted] = self._ports.clock()
                words = f"Berth does not read its image ({error}); the runtime on the system does"
                again_s = 0.0
            else:
                words = f"its image cannot be looked up: {error}; being tried again"
                again_s = self._wait_s(wanted, error)
            log.warning("image not resolved", image=shown(wanted.image), why=words, again_s=again_s)
            await self._groups.put_back(group, words, again_s)
        else:
            self._misses.pop(wanted, None)
            await self._looks.pin(wanted, group, pinned, look)

    async def _resolved(self, images: Images, wanted: Wanted) -> Resolved[Any]:
        source = images.source_for(wanted.tenant, wanted.user)
        return await source.resolve(parse_reference(wanted.image), wanted.platform)

    async def _pinned(self, images: Images, wanted: Wanted, resolved: Resolved[Any]) -> PinnedImage:
        return PinnedImage(
            name=wanted.image,
            reference=as_runtimes_read(resolved),
            manifest_digest=resolved.manifest_digest,
            index_digest=resolved.index_digest,
            download_bytes=resolved.manifest.size_bytes,
            resolved_at=self._ports.clock(),
            is_private=await _is_private(images.public, resolved, wanted.platform),
        )

    def _is_beyond(self, wanted: Wanted) -> bool:
        """Whether it was found out of reach lately; what was found longer ago is forgotten."""
        since = self._ports.clock() - BEYOND_FOR
        self._beyond = {each: found_at for each, found_at in self._beyond.items() if found_at > since}
        return wanted in self._beyond

    def _wait_s(self, wanted: Wanted, error: BerthError) -> float:
        self._misses[wanted] += 1
        asked_s = error.retry_after_s if isinstance(error, RegistryUnavailable) and error.retry_after_s else 0.0
        return min(LONGEST_WAIT_S, max(asked_s, AGAIN_S * 2.0 ** min(self._misses[wanted] - 1, 10)))


def _is_out_of_reach(wanted: Wanted, error: BerthError) -> bool:
    """Whether Berth may not connect there, or knows no such host; one that is down or busy answers again."""
    if isinstance(parse_reference(wanted.image), PushedReference):
        return False
    if isinstance(error, BackendUnavailable):
        return not isinstance(error, RegistryUnavailable)
    return isinstance(error, FileRefused)


def _policies(spec: JobSpec, keepers: Mapping[str, ImagePolicy]) -> Sequence[ImagePolicy]:
    """Those of the systems that the job may go to."""
    if spec.dynamic or spec.exec_system_id is None:
        return list(keepers.values())
    return [keepers[spec.exec_system_id]] if spec.exec_system_id in keepers else []


def _wanted(job: Job, policies: Sequence[ImagePolicy]) -> Wanted:
    platforms = {policy.platform for policy in policies}
    platform = platforms.pop() if len(platforms) == 1 else USUAL_PLATFORM
    return Wanted(job.tenant, job.owner, job.spec.image, platform)


async def _is_private(public: Source[Any] | None, resolved: Resolved[Any], platform: Platform) -> bool:
    """Whether nobody without a login reads it. When that cannot be learnt now, it counts as private."""
    if public is None:
        return False
    try:
        await public.resolve(resolved.reference, platform)
    except (ImagePrivate, ImageUnknown, TagMoved, NothingLearnt):
        return True
    return False
