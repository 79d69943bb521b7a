"""Who may do what with a system, an app or a job: one table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import Protocol

from scheduler.model.apps import App
from scheduler.model.errors import Forbidden, NotFound
from scheduler.model.systems import System
from scheduler.model.users import Permission, Principal

__all__ = ["Action", "Principal", "Standing", "Thing", "demand", "demand_admin", "may"]


class Action(StrEnum):
    """What is about to be done. OWN: delete, hand over, grant, see others' credentials."""

    READ = "read"
    MODIFY = "change"
    EXECUTE = "run jobs on"
    OWN = "administer"


class Standing(StrEnum):
    """How a caller stands to a thing; one caller may stand in several ways."""

    ADMIN = "ADMIN"
    OWNER = "OWNER"
    MAY_READ = "MAY_READ"
    MAY_MODIFY = "MAY_MODIFY"
    MAY_EXECUTE = "MAY_EXECUTE"
    ANYONE = "ANYONE"
    """Any user of the tenant, when the thing is public."""


ALLOWED: Mapping[Standing, frozenset[Action]] = {
    Standing.ADMIN: frozenset(Action),
    Standing.OWNER: frozenset(Action),
    Standing.MAY_MODIFY: frozenset({Action.READ, Action.MODIFY}),
    Standing.MAY_EXECUTE: frozenset({Action.READ, Action.EXECUTE}),
    Standing.MAY_READ: frozenset({Action.READ}),
    Standing.ANYONE: frozenset({Action.READ, Action.EXECUTE}),
}

GRANTED: Mapping[Permission, Standing] = {
    Permission.READ: Standing.MAY_READ,
    Permission.MODIFY: Standing.MAY_MODIFY,
    Permission.EXECUTE: Standing.MAY_EXECUTE,
}


class Thing(Protocol):
    """Whatever belongs to someone: System, App, Job."""

    @property
    def tenant(self) -> str: ...

    @property
    def owner(self) -> str: ...


def may(principal: Principal, action: Action, thing: Thing, grants: Collection[Permission] = ()) -> bool:
    """Whether the caller may do this. grants: what the caller was granted on this very thing."""
    return any(action in ALLOWED[standing] for standing in _standings(principal, thing, grants))


def demand(
    principal: Principal, action: Action, thing: Thing, kind: str, name: str, grants: Collection[Permission] = ()
) -> None:
    """Forbidden when the caller may see the thing but not do this; NotFound when even that is not for them to know."""
    if may(principal, action, thing, grants):
        return
    if may(principal, Action.READ, thing, grants):
        raise Forbidden(f"{principal.username} may not {action} {kind} '{name}'; ask {thing.owner}")
    raise NotFound(kind, name)


def demand_admin(principal: Principal, what: str) -> None:
    """Forbidden when the caller is no admin of the tenant. what: as in "make users"."""
    if not principal.is_admin:
        raise Forbidden(f"only an admin may {what}; {principal.username} is none")


def _standings(principal: Principal, thing: Thing, grants: Collection[Permission]) -> Iterator[Standing]:
    """Every way in which the caller stands to the thing; none at all across tenants, not even for admins."""
    if principal.tenant != thing.tenant:
        return
    if principal.is_admin:
        yield Standing.ADMIN
    if principal.username == thing.owner:
        yield Standing.OWNER
    if isinstance(thing, System | App) and thing.is_public:
        yield Standing.ANYONE
    for permission in grants:
        yield GRANTED[permission]
