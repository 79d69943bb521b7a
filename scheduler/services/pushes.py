"""Images that users give to Berth as files, so that their jobs can name them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from images.pushed import Pushes, too_large
from images.reference import is_digest
from scheduler.model.errors import NotFound, SpecInvalid
from scheduler.model.images import PushedImage
from scheduler.model.pages import Page
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services.systems import Listed
from scheduler.store.pushed import PushedStore
from scheduler.store.requests import AuditStore


async def push(
    ports: Ports, caller: Principal, digest: str, name: str, pieces: AsyncIterator[bytes], said_bytes: int | None
) -> PushedImage:
    """Keep a file that comes in pieces; pushing it again has no second effect.

    said_bytes: how long the caller says it is. SpecInvalid when nobody may push, when it is larger than the caller's
    room, or not an image of that digest.
    """
    pushes, digest = _pushes(ports), _digest(digest)
    async with ports.reading() as db:
        room_bytes = await _room_bytes(db, pushes, caller, digest)
    if (said_bytes or 0) > room_bytes:
        raise too_large(room_bytes)
    kind, size_bytes = await pushes.take(digest, pieces, room_bytes)
    now = ports.clock()
    image = PushedImage(
        tenant=caller.tenant,
        user=caller.username,
        digest=digest,
        kind=kind,
        size_bytes=size_bytes,
        name=name,
        created_at=now,
    )
    async with ports.transaction() as db:
        room_bytes = await _room_bytes(db, pushes, caller, digest)  # others may have come since this one began
        if size_bytes <= room_bytes:
            await PushedStore(db).put(image)
            detail = {"bytes": size_bytes, "name": name}
            await AuditStore(db).add(caller.tenant, caller.username, "image.push", digest, detail, now)
        else:
            await _let_go(db, ports, digest)
    if size_bytes > room_bytes:
        raise too_large(room_bytes)
    return image


async def get(ports: Ports, caller: Principal, digest: str) -> PushedImage:
    """A file that the caller pushed."""
    pushes = _pushes(ports)
    async with ports.reading() as db:
        found = await PushedStore(db).find(caller.tenant, caller.username, _digest(digest))
    if found is None or not pushes.file(digest).exists():
        raise NotFound("pushed image", digest)
    return found


async def list_pushed(ports: Ports, caller: Principal, page: Page, *, total: bool) -> Listed:
    """The files that the caller pushed, oldest first or in the page's order."""
    async with ports.reading() as db:
        store, mine = PushedStore(db), (caller.tenant, caller.username, page)
        return Listed(await store.list(*mine), await store.count(*mine) if total else None)


async def remove(ports: Ports, caller: Principal, digest: str) -> None:
    """Forget a file; copies that were made of it on systems stay as long as they are needed there."""
    async with ports.transaction() as db:
        store = PushedStore(db)
        await store.remove(caller.tenant, caller.username, _digest(digest))
        await AuditStore(db).add(caller.tenant, caller.username, "image.remove", digest, {}, ports.clock())
        await _let_go(db, ports, digest)


async def remove_all(db: Any, ports: Ports, tenant: str, user: str) -> None:
    """The user is gone: so is all that nobody else pushed, and whoever gets the name next has pushed nothing."""
    store = PushedStore(db)
    images = await store.of(tenant, user)
    await store.remove_all(tenant, user)
    for image in images:
        await _let_go(db, ports, image.digest)


async def _let_go(db: Any, ports: Ports, digest: str) -> None:
    """The file goes with the last who pushed it."""
    if not await PushedStore(db).is_used(digest) and ports.images is not None and ports.images.pushes is not None:
        ports.images.pushes.remove(digest)


async def _room_bytes(db: Any, pushes: Pushes, caller: Principal, digest: str) -> int:
    """How large a file of this digest may be beside all else that the caller pushed."""
    images = await PushedStore(db).of(caller.tenant, caller.username)
    return pushes.limit_bytes - sum(image.size_bytes for image in images if image.digest != digest)


def _pushes(ports: Ports) -> Pushes:
    if ports.images is None or ports.images.pushes is None:
        raise SpecInvalid.of(
            "file",
            "cannot be pushed: this server keeps no files of users",
            "name an image in a registry, or ask the operator for BERTH_IMAGE_PUSH_LIMIT_MIB",
        )
    return ports.images.pushes


def _digest(digest: str) -> str:
    if not is_digest(digest):
        raise SpecInvalid.of("digest", "is no digest", "write sha256: and 64 hexadecimal digits in lower case")
    return digest
