"""Who may do what with pods: levels, names that stand for everyone, and an ADMIN that is always there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scheduler.model.errors import Forbidden, IllegalMove, NotFound
from scheduler.model.pod_catalog import PodKind, PodLevel
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.services import pod_grants
from scheduler.store.database import Database

ANN, BOB, ROOT = (Principal(tenant="dev", username=name, is_admin=name == "root") for name in ("ann", "bob", "root"))
STRANGER = Principal(tenant="other", username="ann")
POD = PodKind.POD


@pytest.fixture
async def ports(database: Database) -> Ports:
    """With a pod ``mine`` that ann made."""
    ports = on(database)
    async with ports.transaction() as db:
        await pod_grants.begin(db, "dev", POD, "mine", "ann")
    return ports


def on(database: Database) -> Ports:
    connections: Any = None
    return Ports(transaction=database.transaction, reads=database.reading, connections=connections)


async def held(ports: Ports, caller: Principal) -> set[PodLevel]:
    async with ports.reading() as db:
        return {level for level in PodLevel if await pod_grants.may(db, caller, POD, "mine", level)}


async def test_who_made_a_thing_and_an_admin_may_do_everything_and_nobody_else_anything(ports: Ports):
    assert await held(ports, ANN) == await held(ports, ROOT) == set(PodLevel)
    assert await held(ports, BOB) == await held(ports, STRANGER) == set()


@pytest.mark.parametrize("level", PodLevel)
@pytest.mark.parametrize("user", ["bob", "*", "TENANT"])
async def test_a_level_holds_those_below_in_person_or_as_anyone_of_the_tenant(ports: Ports, user: str, level: PodLevel):
    await pod_grants.grant(ports, ANN, POD, "mine", user, level)
    assert await held(ports, BOB) == {each for each in PodLevel if each <= level}
    assert await held(ports, STRANGER) == set()
    async with ports.reading() as db:
        assert await pod_grants.visible(db, BOB, POD) == {"mine"}
        assert await pod_grants.visible(db, ROOT, POD) is None


async def test_what_one_may_not_read_is_not_there_and_what_one_may_is_forbidden(ports: Ports):
    async with ports.reading() as db:
        with pytest.raises(NotFound):
            await pod_grants.demand(db, BOB, POD, "mine", PodLevel.ADMIN)
    await pod_grants.grant(ports, ANN, POD, "mine", "bob", PodLevel.READ)
    async with ports.reading() as db:
        await pod_grants.demand(db, BOB, POD, "mine", PodLevel.READ)
        with pytest.raises(Forbidden, match="needs USER on pod 'mine'"):
            await pod_grants.demand(db, BOB, POD, "mine", PodLevel.USER)


async def test_the_last_admin_stays(ports: Ports):
    with pytest.raises(IllegalMove, match="last with ADMIN"):
        await pod_grants.revoke(ports, ANN, POD, "mine", "ann")
    with pytest.raises(IllegalMove, match="last with ADMIN"):
        await pod_grants.grant(ports, ANN, POD, "mine", "ann", PodLevel.USER)
    await pod_grants.grant(ports, ANN, POD, "mine", "bob", PodLevel.ADMIN)
    assert await pod_grants.revoke(ports, BOB, POD, "mine", "ann") == {"bob": PodLevel.ADMIN}
    with pytest.raises(NotFound):
        await pod_grants.revoke(ports, BOB, POD, "mine", "ann")


async def test_two_admins_who_remove_each_other_leave_one(on_postgresql: Database):
    ports = on(on_postgresql)
    async with ports.transaction() as db:
        await pod_grants.begin(db, "dev", POD, "mine", "ann")
    await pod_grants.grant(ports, ANN, POD, "mine", "bob", PodLevel.ADMIN)
    removing = (pod_grants.revoke(ports, ROOT, POD, "mine", user) for user in ("ann", "bob"))
    outcomes = await asyncio.gather(*removing, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["IllegalMove", "dict"]


async def test_grants_end_with_the_thing(ports: Ports):
    await pod_grants.grant(ports, ANN, POD, "mine", "bob", PodLevel.ADMIN)
    async with ports.transaction() as db:
        await pod_grants.end(db, "dev", POD, "mine")
    with pytest.raises(NotFound):
        await pod_grants.permissions(ports, ROOT, POD, "mine")
    async with ports.transaction() as db:
        await pod_grants.begin(db, "dev", POD, "mine", "bob")
    assert await held(ports, ANN) == set()
