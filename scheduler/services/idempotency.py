"""Requests that come again: one Idempotency-Key, one effect, the same answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from scheduler.model.errors import AlreadyExists, KeyReused
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.store.requests import IdempotencyStore

Names = dict[str, Any]
"""What a request made, by name; JSON. Its answer is rendered from these, also when it comes again."""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A request under an Idempotency-Key: its route, and a digest of its body."""

    route: str
    key: str
    body_sha256: str


async def earlier(ports: Ports, caller: Principal, repeatable: Repeatable | None) -> Names | None:
    """What this request made when it came before; None when it is new. KeyReused when its body was another."""
    if repeatable is None:
        return None
    async with ports.reading() as db:
        return await _known(db, caller, repeatable)


async def once(
    ports: Ports, caller: Principal, repeatable: Repeatable | None, act: Callable[[Any], Awaitable[Names]]
) -> Names:
    """Run ``act`` in one transaction, unless the same request was answered before: then give what it made.

    KeyReused when the key came with another body.
    """
    while True:
        try:
            async with ports.transaction() as db:
                if repeatable is None:
                    return await act(db)
                known = await _known(db, caller, repeatable)
                if known is not None:
                    return known
                names = await act(db)
                await _remember(db, ports, caller, repeatable, names)
                return names
        except SameMeanwhile:
            continue


def remembering(
    ports: Ports, caller: Principal, repeatable: Repeatable | None, names: Names
) -> Callable[[Any, Any], Awaitable[None]] | None:
    """What keeps the names of a submission with its jobs; it raises SameMeanwhile. None when there is no key."""
    if repeatable is None:
        return None

    async def remember(db: Any, _made: Any) -> None:
        await _remember(db, ports, caller, repeatable, names)

    return remember


class SameMeanwhile(Exception):
    """The same request committed between our look and our write."""


async def _known(db: Any, caller: Principal, repeatable: Repeatable) -> Names | None:
    known = await IdempotencyStore(db).get(caller.tenant, caller.username, repeatable.route, repeatable.key)
    if known is None:
        return None
    body_sha256, names = known
    if body_sha256 != repeatable.body_sha256:
        raise KeyReused(f"Idempotency-Key '{repeatable.key}' was used with another request; choose another key")
    return dict(names)


async def _remember(db: Any, ports: Ports, caller: Principal, repeatable: Repeatable, names: Names) -> None:
    store = IdempotencyStore(db)
    try:
        await store.put(
            caller.tenant,
            caller.username,
            repeatable.route,
            repeatable.key,
            repeatable.body_sha256,
            names,
            ports.clock(),
        )
    except AlreadyExists:
        raise SameMeanwhile from None
