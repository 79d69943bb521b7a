"""The files of a system as its users name them: below its root directory, by the login that is theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from backends.base import Storage
from scheduler.model.errors import FileRefused, NotAuthorised, SpecInvalid
from scheduler.model.macros import PathRefused, relative_path
from scheduler.model.runs import FileInfo, FileKind
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action
from scheduler.services import systems
from scheduler.trees import walk

MOST_MET = 1_000_000
"""Entries that one request may walk past."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path on a system, which need not exist, and the storage it is in."""

    storage: Storage
    system_id: str
    path: str


async def place(ports: Ports, caller: Principal, system_id: str, path: str, field: str = "path") -> Place:
    """A path on a system as the caller's login sees it; SpecInvalid for one that would leave the root directory.

    Whoever may run jobs there by an account of their own may do with its files what the account may. Files of an
    account that users share are its owner's: in no other way would Berth keep one user's outputs from another.
    """
    below = _below(path, field)
    system = await systems.get(ports, caller, system_id)
    await systems.get(ports, caller, system_id, Action.OWN if system.is_shared_account else Action.EXECUTE)
    try:
        storage = await ports.connections.storage(system.login_of(caller.username))
    except NotAuthorised as error:
        fix = f"store one at POST /v3/systems/credential/{system_id}/user/{caller.username}"
        raise SpecInvalid.of("systemId", str(error), fix) from None
    return Place(storage, system_id, below)


async def entries(where: Place, limit: int, offset: int, *, recurse: bool) -> Sequence[FileInfo]:
    """What a directory holds by name, or the one file. recurse: everything below it, in no certain order."""
    if not recurse:
        return await where.storage.list(where.path, limit, offset)
    found: list[FileInfo] = []
    met = 0
    async for entry in walk(where.storage, where.path):
        if entry.relative or entry.info.kind is not FileKind.DIRECTORY:
            met += 1
            if met > offset:
                found.append(entry.info)
        if len(found) == limit:
            break
        if met == MOST_MET:
            fix = "list directories further down one by one"
            raise SpecInvalid.of("recurse", f"met {MOST_MET} entries before what was asked for was found", fix)
    return found


async def write(where: Place, pieces: AsyncIterator[bytes]) -> int:
    """Write a file whole; makes the directories above it. Returns bytes."""
    _demand_below_root(where.path, "path")
    return await where.storage.write(where.path, pieces)


async def make_directory(where: Place) -> None:
    """Make a directory and its parents; already there is success."""
    await where.storage.make_directory(where.path)


async def move(where: Place, target: str) -> None:
    """Give a file or a tree another path on the same system."""
    await where.storage.move(*_both(where, target))


async def copy(where: Place, target: str) -> None:
    """Copy a file or a tree on the same system."""
    await where.storage.copy(*_both(where, target))


async def delete(where: Place) -> None:
    """Delete a file or a tree; FileMissing when there is none."""
    _demand_below_root(where.path, "path")
    await where.storage.stat(where.path)
    await where.storage.delete(where.path)


def _both(where: Place, target: str) -> tuple[str, str]:
    """Source and target; neither is the root, and the target does not lie in the source."""
    below = _below(target, "newPath")
    _demand_below_root(where.path, "path")
    _demand_below_root(below, "newPath")
    if f"{below}/".startswith(f"{where.path}/"):
        raise FileRefused(f"newPath: '{below}' is '{where.path}' or lies in it; name a path elsewhere")
    return where.path, below


def _below(path: str, field: str) -> str:
    try:
        return relative_path(path)
    except PathRefused as refused:
        raise SpecInvalid.of(field, str(refused), "name a path below the system's root directory") from None


def _demand_below_root(path: str, field: str) -> None:
    if not path:
        raise SpecInvalid.of(field, "is the root directory itself", "name a path below it")
