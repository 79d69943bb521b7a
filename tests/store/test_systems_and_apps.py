"""Systems and apps: unique in their tenant, seen by those who may, changed by one writer at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.model.apps import App
from scheduler.model.errors import AlreadyExists, NotFound, Stale
from scheduler.model.pages import Filter, Op, Page, Scope
from scheduler.model.systems import LogicalQueue, System
from scheduler.model.users import Permission
from scheduler.store.apps import AppStore
from scheduler.store.systems import SystemStore
from tests.store.things import NOW


def a_system(id="cluster", **changes):
    asked = {"tenant": "dev", "uuid": f"u-{id}", "owner": "ann", "host": "login", "can_exec": True, "created_at": NOW}
    return System(id=id, **{**asked, **changes})


def an_app(id="hello", version="1", **changes):
    asked = {"tenant": "dev", "uuid": f"u-{id}", "owner": "ann", "image": "docker://busybox", "created_at": NOW}
    return App(id=id, version=version, **{**asked, **changes})


async def stored(database, *things):
    async with database.transaction() as db:
        for thing in things:
            await (SystemStore if isinstance(thing, System) else AppStore)(db).add(thing)


async def test_a_system_is_read_back_as_it_was_stored(database):
    system = a_system(queues=(LogicalQueue(name="n", partition="p"),), notes={"berth": {"pricePerCoreHour": 0.1}})
    await stored(database, system)
    async with database.reading() as db:
        assert await SystemStore(db).get("dev", "cluster") == system


@pytest.mark.parametrize("thing", [a_system(), an_app()])
async def test_a_name_is_taken_once_in_a_tenant(database, thing):
    await stored(database, thing, replace(thing, tenant="other"))
    with pytest.raises(AlreadyExists, match=thing.id):
        await stored(database, thing)
    with pytest.raises(AlreadyExists):
        await stored(database, replace(thing, deleted=True))


async def test_nothing_is_seen_from_another_tenant(database):
    await stored(database, a_system(is_public=True), an_app(is_public=True))
    async with database.reading() as db:
        systems, apps = SystemStore(db), AppStore(db)
        with pytest.raises(NotFound):
            await systems.get("other", "cluster")
        with pytest.raises(NotFound):
            await apps.get("other", "hello", "1")
        with pytest.raises(NotFound):
            await apps.latest("other", "hello")
        assert await systems.list("other") == await apps.list("other") == []
        assert await systems.visible_to("other", "ann") == []


async def test_a_deleted_system_is_found_only_when_asked_for(database):
    await stored(database, a_system(deleted=True))
    async with database.reading() as db:
        store = SystemStore(db)
        with pytest.raises(NotFound):
            await store.get("dev", "cluster")
        assert (await store.get("dev", "cluster", deleted=True)).deleted
        assert await store.list("dev") == []
        assert len(await store.list("dev", Page(), Scope(deleted=True))) == 1


async def test_of_two_who_change_a_system_the_second_is_told(database):
    await stored(database, a_system())
    async with database.transaction() as db:
        store = SystemStore(db)
        seen = await store.get("dev", "cluster")
        newer = await store.replace(replace(seen, description="first", owner="bob"))
        with pytest.raises(Stale, match="cluster"):
            await store.replace(replace(seen, description="second"))
        assert await store.get("dev", "cluster") == newer
        assert await store.list("dev", Page(), Scope(owner="bob")) == [newer]


async def test_of_two_who_change_an_app_the_second_is_told(database):
    await stored(database, an_app())
    async with database.transaction() as db:
        store = AppStore(db)
        seen = await store.get("dev", "hello", "1")
        newer = await store.replace(replace(seen, locked=True))
        with pytest.raises(Stale, match="hello 1"):
            await store.replace(replace(seen, enabled=False))
        assert await store.get("dev", "hello", "1") == newer


async def test_a_user_sees_what_is_owned_granted_or_public(database):
    await stored(
        database,
        a_system("mine"),
        a_system("granted", owner="bob"),
        a_system("public", owner="bob", is_public=True),
        a_system("hidden", owner="bob"),
        a_system("gone", deleted=True),
    )
    async with database.transaction() as db:
        store = SystemStore(db)
        await store.grant("dev", "granted", "ann", [Permission.EXECUTE])
        await store.grant("dev", "hidden", "eve", [Permission.READ])
        assert [system.id for system in await store.visible_to("dev", "ann")] == ["granted", "mine", "public"]
        assert await store.count("dev", Page(), Scope(visible_to="ann")) == 3
        assert [system.id for system in await store.list("dev", Page(), Scope(public=True))] == ["public"]


async def test_grants_are_added_and_taken_one_by_one(database):
    async with database.transaction() as db:
        store = SystemStore(db)
        await store.grant("dev", "cluster", "bob", [Permission.READ, Permission.EXECUTE])
        await store.grant("dev", "cluster", "bob", [Permission.READ])
        assert await store.grants("dev", "cluster", "bob") == {Permission.READ, Permission.EXECUTE}
        await store.revoke("dev", "cluster", "bob", [Permission.READ, Permission.MODIFY])
        assert await store.grants("dev", "cluster", "bob") == {Permission.EXECUTE}
        assert await store.grants("dev", "cluster", "ann") == frozenset()
        assert await store.grants("other", "cluster", "bob") == frozenset()
        assert await AppStore(db).grants("dev", "cluster", "bob") == frozenset()


async def test_the_latest_version_is_the_one_made_last_that_is_enabled(database):
    await stored(database, an_app(version="10"), an_app(version="9"), an_app(version="8", version_enabled=False))
    async with database.reading() as db:
        store = AppStore(db)
        assert (await store.latest("dev", "hello")).version == "9"
        assert [app.version for app in await store.versions("dev", "hello")] == ["8", "9", "10"]


async def test_apps_are_listed_searched_and_counted(database):
    await stored(database, *(an_app(f"app{n}", owner="ann" if n % 2 else "bob") for n in range(5)))
    async with database.reading() as db:
        store = AppStore(db)
        page = Page(filters=(Filter("id", Op.LIKE, ("app*",)), Filter("id", Op.GT, ("app2",))))
        assert [app.id for app in await store.list("dev", page)] == ["app3", "app4"]
        assert await store.count("dev", page, Scope(owner="ann")) == 1
