"""Copies of images on systems: see them, have one brought there before a job asks, keep it, make room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from images.keeper import Collected, Keeper
from images.platforms import Platform
from images.policy import ImagePolicy, policy_of
from images.reference import PathReference, parse_reference, shown
from images.sources import Resolved
from scheduler.model.errors import Forbidden, InUse, NotFound, SpecInvalid
from scheduler.model.images import CopyState, ImageCopy
from scheduler.model.pages import Page
from scheduler.model.systems import BackendKind, System
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action, may
from scheduler.services.systems import Listed, executable, readable
from scheduler.store.images import ImageStore, Place
from scheduler.store.requests import AuditStore
from scheduler.store.systems import CredentialStore, SystemStore

REMOVED_AFTER_S = 300
"""How old a lease must be of a job that is over, or came since the store was asked which there are."""

UNPACK_FIX = "ask the operator for BERTH_IMAGE_UNPACK_LIMIT_MIB"


@dataclass(frozen=True, slots=True)
class Shown:
    """A copy, and how many attempts await it."""

    copy: ImageCopy
    waiting_count: int


@dataclass(frozen=True, slots=True)
class Used:
    """A copy, and the jobs that may still read it: the caller's by uuid, all by their number."""

    copy: ImageCopy
    waiting_count: int
    jobs_count: int
    own_jobs: tuple[str, ...]


# -- to look at --------------------------------------------------------------------------------------------------


async def list_copies(ports: Ports, caller: Principal, page: Page, *, total: bool) -> Listed:
    """The copies that jobs of the caller would use, and every copy on the caller's own systems; as ``Shown``."""
    async with ports.reading() as db:
        places = await _places(db, caller)
        store = ImageStore(db)
        copies = await store.list(caller.tenant, places, page)
        waiting = await store.waiting(caller.tenant, {copy.manifest_digest for copy in copies})
        count = await store.count(caller.tenant, places, page) if total else None
        systems = await _systems(db, caller.tenant, {copy.system_id for copy in copies})
    return Listed([Shown(copy, _waiting(copy, waiting, systems)) for copy in copies], count)


async def get(ports: Ports, caller: Principal, copy_id: int) -> Used:
    """One of these, and who uses it."""
    async with ports.reading() as db:
        copy, system = await _copy(db, caller, copy_id)
        store = ImageStore(db)
        waiting = await store.waiting(caller.tenant, {copy.manifest_digest})
        users = await store.users(caller.tenant, copy.system_id, copy.manifest_digest)
    mine = [(owner, uuid) for owner, uuid in users if system.credential_user(owner) == copy.owner]
    own = tuple(uuid for owner, uuid in mine if owner == caller.username or caller.is_admin)
    return Used(copy, _waiting(copy, waiting, {system.id: system}), len(mine), own)


# -- to bring ----------------------------------------------------------------------------------------------------


async def stage(ports: Ports, caller: Principal, reference: str, system_ids: Sequence[str]) -> Sequence[ImageCopy]:
    """Have an image brought to systems where the caller may run jobs; their copies, in that order.

    What is there or under way stays as it is; what failed is tried again. SpecInvalid for a system that takes no
    images; the errors of ``images.errors`` where the image cannot be read.
    """
    parsed = parse_reference(reference, "reference")
    if isinstance(parsed, PathReference):
        raise SpecInvalid.of("reference", f"'{reference[:200]}' lies on a system already", "let jobs name it as it is")
    images = ports.images
    if images is None or images.bringer is None:
        raise SpecInvalid.of("reference", "cannot be brought: this server unpacks no images", UNPACK_FIX)
    async with ports.reading() as db:
        systems = [await _ready(db, caller, system_id) for system_id in system_ids]
    source, found = images.source_for(caller.tenant, caller.username), dict[Platform, Resolved[Any]]()
    for _, policy in systems:
        if policy.platform not in found:
            found[policy.platform] = await source.resolve(parsed, policy.platform)
    async with ports.transaction() as db:
        copies = [await _want(db, ports, caller, system, found[policy.platform]) for system, policy in systems]
    ports.wake()
    return copies


async def _want(db: Any, ports: Ports, caller: Principal, system: System, resolved: Resolved[Any]) -> ImageCopy:
    store, now = ImageStore(db), ports.clock()
    owner, reference = system.credential_user(caller.username), str(resolved.reference)
    digest = resolved.manifest_digest
    copy = await store.want(
        caller.tenant, system.id, owner, digest, reference=reference, asked_by=caller.username, at=now
    )
    if copy.state is CopyState.FAILED:
        again: dict[str, Any] = {"state": CopyState.WANTED, "message": "", "asked_by": caller.username}
        copy = await store.note(copy, now, **again, next_look_at=now)
    detail = {"reference": shown(reference)}
    await AuditStore(db).add(caller.tenant, caller.username, "image.stage", system.id, detail, now)
    return copy


# -- to keep, and to let go --------------------------------------------------------------------------------------


async def pin(ports: Ports, caller: Principal, copy_id: int, *, pinned: bool) -> ImageCopy:
    """Keep a copy though no job uses it, or no longer; the store there is told first.

    What is to be kept and is not there any more is brought again.
    """
    async with ports.reading() as db:
        copy, system = await _copy(db, caller, copy_id)
        policy = _policy(system)
    is_gone = await _hold(await keeper_of(ports, system, policy, copy.owner), copy, pinned)
    now = ports.clock()
    async with ports.transaction() as db:
        store = ImageStore(db)
        copy = await store.pin(copy.id, pinned, now)
        if is_gone and copy.state is CopyState.PRESENT:
            copy = await store.note(copy, now, state=CopyState.WANTED, next_look_at=now)
        what = "image.pin" if pinned else "image.unpin"
        await AuditStore(db).add(caller.tenant, caller.username, what, system.id, {"copy": copy.id}, now)
    return copy


async def _hold(keeper: Keeper, copy: ImageCopy, pinned: bool) -> bool:
    """Tell the store; whether it is to keep an image that it has lost."""
    if copy.file_digest is None:
        return False
    if not pinned:
        await keeper.unpin(copy.file_digest, pin_name(copy))
        return False
    return await keeper.pin(copy.file_digest, pin_name(copy)) is None


async def remove(ports: Ports, caller: Principal, copy_id: int) -> None:
    """Let one copy go now: from the caller's own store, or any on the caller's own system.

    InUse while a job may read it, and while it is pinned; Stale while it is on its way. Where the system keeps no
    images any more, what lies there stays, and is forgotten.
    """
    async with ports.reading() as db:
        copy, system = await _copy(db, caller, copy_id)
        users = await ImageStore(db).users(caller.tenant, copy.system_id, copy.manifest_digest)
        live = await ImageStore(db).live_markers(caller.tenant, system.id)
    if copy.owner != caller.username and not may(caller, Action.OWN, system):
        raise Forbidden(f"copy {copy.id} lies in the store of '{copy.owner}': they, or the owner of '{system.id}', may")
    if copy.pinned:
        raise InUse(f"copy {copy.id} is pinned; berth images unpin {copy.id}")
    jobs_count = sum(system.credential_user(owner) == copy.owner for owner, _ in users)
    if jobs_count:
        raise InUse(f"{jobs_count} jobs may still read copy {copy.id}; wait until they end, or cancel them")
    policy, markers = policy_of(system), [marker for of, marker in live if system.credential_user(of) == copy.owner]
    if policy is not None and copy.file_digest is not None:
        keeper = await keeper_of(ports, system, policy, copy.owner)
        if holders := await keeper.remove(copy.file_digest, markers, REMOVED_AFTER_S):
            raise InUse(f"the store needs copy {copy.id} for {', '.join(holders[:3])}; try again in some minutes")
    now = ports.clock()
    async with ports.transaction() as db:
        if copy.state is CopyState.PRESENT and copy.file_digest is not None:
            await ImageStore(db).gone(caller.tenant, system.id, copy.owner, [copy.file_digest], now)
        else:
            await ImageStore(db).forget(copy, now)
        detail = {"copy": copy.id, "reference": shown(copy.reference)}
        await AuditStore(db).add(caller.tenant, caller.username, "image.release", system.id, detail, now)


async def collect(ports: Ports, caller: Principal, system_id: str) -> Collected:
    """Let go of what the store of the caller's login on a system holds for nobody, where it is fuller than it should.

    Leases of jobs that are over go in any case.
    """
    async with ports.reading() as db:
        system, policy = await _ready(db, caller, system_id)
        live = await ImageStore(db).live_markers(caller.tenant, system.id)
    owner = system.credential_user(caller.username)
    keeper = await keeper_of(ports, system, policy, owner)
    markers = [marker for of, marker in live if system.credential_user(of) == owner]
    done = await keeper.collect(markers)
    now = ports.clock()
    async with ports.transaction() as db:
        await ImageStore(db).gone(caller.tenant, system.id, owner, done.trashed, now)
        await AuditStore(db).add(
            caller.tenant, caller.username, "image.gc", system.id, {"images": len(done.trashed)}, now
        )
    return done


def pin_name(copy: ImageCopy) -> str:
    """Under which name a store holds a pinned copy."""
    return f"copy-{copy.id}"


async def keeper_of(ports: Ports, system: System, policy: ImagePolicy, owner: str) -> Keeper:
    """The store of one login on a system, asked by that login."""
    storage = await ports.connections.storage(system.login_of(owner))
    return Keeper(policy.store.of(owner), storage.run_beside)


# -- who may -----------------------------------------------------------------------------------------------------


async def _places(db: Any, caller: Principal) -> Sequence[Place]:
    """Where the caller may see copies: of every login on own systems, else of the login that own jobs would use."""
    systems = await executable(db, caller)
    mine = [(system, None if may(caller, Action.OWN, system) else caller.username) for system in systems]
    return [Place(system.id, user and system.credential_user(user)) for system, user in mine]


async def _copy(db: Any, caller: Principal, copy_id: int) -> tuple[ImageCopy, System]:
    """NotFound, too, for a copy of a login that is not the caller's, unless the system is."""
    unknown = NotFound("copy of an image", str(copy_id))
    copy = await ImageStore(db).get(copy_id)
    if copy.tenant != caller.tenant:
        raise unknown
    try:
        system = await readable(db, caller, copy.system_id, Action.EXECUTE)
    except NotFound:
        raise unknown from None
    if system.credential_user(caller.username) != copy.owner and not may(caller, Action.OWN, system):
        raise unknown
    return copy, system


async def _ready(db: Any, caller: Principal, system_id: str) -> tuple[System, ImagePolicy]:
    """A system on which the caller may run jobs, and can, and which takes images."""
    system = await readable(db, caller, system_id, Action.EXECUTE)
    if not system.can_exec or not system.enabled:
        raise SpecInvalid.of("systemId", f"'{system_id}' runs no jobs now", "name another, or let its owner enable it")
    policy = _policy(system)
    holder = system.credential_user(caller.username)
    if system.backend is not BackendKind.LOCAL and system.id not in await CredentialStore(db).holders(
        caller.tenant, holder
    ):
        raise SpecInvalid.of(
            "systemId", f"'{system_id}' has no credential of {holder}", f"berth systems credential {system_id}"
        )
    return system, policy


def _policy(system: System) -> ImagePolicy:
    policy = policy_of(system)
    if policy is None:
        fix = "let its owner set notes.berth.images, or let the runtime there fetch images as it does"
        raise SpecInvalid.of("systemId", f"'{system.id}' has no store for images", fix)
    return policy


async def _systems(db: Any, tenant: str, ids: set[str]) -> Mapping[str, System]:
    store = SystemStore(db)
    return {system_id: await store.get(tenant, system_id, deleted=True) for system_id in sorted(ids)}


def _waiting(copy: ImageCopy, waiting: Sequence[tuple[str, str, str, int]], systems: Mapping[str, System]) -> int:
    """How many attempts await a copy. waiting: system, owner, digest and number of attempts."""
    system = systems[copy.system_id]
    return sum(
        count
        for system_id, owner, digest, count in waiting
        if (system_id, digest) == (copy.system_id, copy.manifest_digest) and system.credential_user(owner) == copy.owner
    )
