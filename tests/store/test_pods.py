"""Pods are kept with their instances; every write is guarded, and nothing is forgotten while anything may run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from scheduler.model.errors import AlreadyExists, IllegalMove, NotFound, Stale
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.pages import Filter, Op, Page
from scheduler.model.pods import (
    ANSWER_HOLDS,
    InstanceState,
    NetProtocol,
    Pod,
    PodCredentials,
    PodDefinition,
    PodEvent,
    PodInstance,
    PodNet,
    PodStatus,
)
from scheduler.model.runs import RunSpec, Way
from scheduler.security.secrets import SecretBox
from scheduler.store.pods import PodStore
from scheduler.store.schema import pod_credentials
from tests.store.things import NOW

P, E, I = PodStatus, PodEvent, InstanceState  # noqa: E741

LATER = NOW + timedelta(minutes=5)
WEB = PodNet(name="default", protocol=NetProtocol.HTTP, port=5000)
INSIDE = PodNet(name="db", protocol=NetProtocol.LOCAL_ONLY, port=5432)
SECRETS = PodCredentials(user_password="u" * 30, service_password="s" * 30)


def a_pod(name: str = "web", **changes) -> Pod:
    definition = PodDefinition(image="docker://nginx", nets=(WEB, INSIDE))
    asked = {"tenant": "dev", "id": name, "uuid": new_job_uuid(), "owner": "ann", "asked": {"pod_id": name}}
    at = {"created_at": NOW, "updated_at": NOW, "next_look_at": NOW}
    return Pod(**{**asked, **at, "definition": definition, **changes})


def an_instance(pod: Pod, number: int = 1, **changes) -> PodInstance:
    run = RunSpec(
        job_uuid=pod.uuid, name=pod.id, image="x", exec_dir="/e", input_dir="/e", output_dir="/e", ports=(5000, 5432)
    )
    where = {"tenant": pod.tenant, "system_id": "cluster", "owner": "ann", "queue": None, "run": run}
    marker = marker_for(pod.uuid, number)
    asked = {"pod_uuid": pod.uuid, "number": number, "marker": marker, **where, "intended_at": NOW}
    return PodInstance(**{**asked, **changes})


async def added(database, name: str = "web", **changes) -> Pod:
    pod = a_pod(name, **changes)
    async with database.transaction() as db:
        await PodStore(db).add(pod, SECRETS)
    return pod


async def intended(database, pod: Pod, number: int = 1, **changes) -> PodInstance:
    async with database.transaction() as db:
        await PodStore(db).intend(an_instance(pod, number, **changes))
    return an_instance(pod, number, **changes)


async def moved(database, pod: Pod, *events: PodEvent, **changes) -> Pod:
    for event in events:
        async with database.transaction() as db:
            pod = await PodStore(db).move(pod, event, NOW, **changes)
    return pod


async def available(database, name: str = "web", **changes) -> tuple[Pod, PodInstance]:
    pod = await moved(database, await added(database, name), E.PLACED, E.ACCEPTED, E.STARTED, E.ANSWERED)
    return pod, await intended(database, pod, state=I.RUNNING, answered_at=NOW, **changes)


async def test_a_pod_is_kept_as_it_was_given_and_its_name_is_taken(database):
    pod = await added(database)
    async with database.reading() as db:
        assert await PodStore(db).get("dev", "web") == pod
        with pytest.raises(NotFound):
            await PodStore(db).get("other", "web")
    with pytest.raises(AlreadyExists):
        await added(database)
    await added(database, tenant="other")


async def test_secrets_lie_sealed_bound_to_their_pod_and_can_be_sealed_anew(database):
    pod, other = await added(database), await added(database, "other")
    async with database.transaction() as db:
        assert await PodStore(db).credentials(pod.uuid) == SECRETS
        assert await PodStore(db).reseal() == 2
        assert await PodStore(db).credentials(other.uuid) == SECRETS
        row = (await db.execute(_sealed(pod.uuid))).one()
    assert all("uuuu" not in text and "ssss" not in text for text in row)
    assert SecretBox(bytes(32)).decrypt(row[0], f"pod/{pod.uuid}/user") == "u" * 30


def _sealed(uuid):
    table = pod_credentials
    return select(table.c.user_password_sealed, table.c.service_password_sealed).where(table.c.pod_uuid == uuid)


async def test_lists_are_of_one_tenant_and_of_those_that_are_asked_for(database):
    for name, owner in (("a", "ann"), ("b", "bob"), ("c", "bob")):
        await added(database, name, owner=owner)
    await added(database, "z", tenant="other")
    async with database.reading() as db:
        store = PodStore(db)
        assert [pod.id for pod in await store.list("dev")] == ["a", "b", "c"]
        assert [pod.id for pod in await store.list("dev", ids={"a", "c", "z"})] == ["a", "c"]
        assert await store.list("dev", ids=()) == []
        wanted = Page(filters=(Filter("owner", Op.EQ, ("bob",)),))
        assert [pod.id for pod in await store.list("dev", wanted)] == ["b", "c"]


async def test_a_move_is_written_with_its_words_or_not_at_all(database):
    pod = await added(database)
    placed = await moved(database, pod, E.PLACED, words="placed on cluster")
    assert (placed.status, placed.message, placed.version) == (P.SPAWNER_SETUP, "placed on cluster", 1)
    with pytest.raises(Stale):
        await moved(database, pod, E.FAILED, words="too late")
    with pytest.raises(IllegalMove):
        await moved(database, placed, E.ANSWERED)
    async with database.reading() as db:
        assert await PodStore(db).get("dev", "web") == placed
        assert [str(line) for line in await PodStore(db).actions(pod.uuid)] == ["26/03/01 12:00: placed on cluster"]


async def test_those_who_change_a_pod_from_what_it_is_take_turns(database):
    await added(database)

    async def lengthen():
        async with database.transaction() as db:
            pod = await PodStore(db).get("dev", "web", to_change=True)
            await asyncio.sleep(0)
            await PodStore(db).note(pod, NOW, description=pod.description + "x")

    await asyncio.gather(*(lengthen() for _ in range(5)))
    async with database.reading() as db:
        assert (await PodStore(db).get("dev", "web")).description == "xxxxx"


async def test_a_pod_is_worked_on_by_one_process_until_it_writes_or_its_lease_ends(database):
    await added(database)
    await added(database, "later", next_look_at=LATER)
    await added(database, "never", next_look_at=None)

    async def claimed(at=NOW, process_id="one"):
        async with database.transaction() as db:
            return await PodStore(db).claim(process_id, 30.0, 10, at)

    [pod] = await claimed()
    assert (pod.id, pod.version) == ("web", 1)
    assert await claimed(process_id="two") == []
    async with database.transaction() as db:
        kept = await PodStore(db).note(pod, NOW, keep=True, message="more follows")
    assert await claimed() == []
    async with database.transaction() as db:
        await PodStore(db).note(kept, NOW, next_look_at=NOW)
        assert await PodStore(db).is_any_due(NOW)
    [pod] = await claimed(process_id="two")
    assert [one.id for one in await claimed(NOW + timedelta(seconds=31))] == ["web"]
    with pytest.raises(Stale):
        await moved(database, pod, E.PLACED)


async def test_claims_of_processes_never_meet(on_postgresql):
    for n in range(6):
        await added(on_postgresql, f"pod{n}")
    async with on_postgresql.transaction() as one:
        first = await PodStore(one).claim("one", 30.0, 3, NOW)
        async with on_postgresql.transaction() as two:
            second = await PodStore(two).claim("two", 30.0, 10, NOW)
    assert len(first) == len(second) == 3
    assert not {pod.uuid for pod in first} & {pod.uuid for pod in second}


async def test_what_happens_to_an_instance_makes_its_pod_due_whoever_works_on_it(database):
    pod, idle = await added(database), await added(database, "idle", next_look_at=None)
    async with database.transaction() as db:
        [held] = await PodStore(db).claim("one", 30.0, 10, NOW)
        await PodStore(db).look_at({pod.uuid, idle.uuid}, NOW)
        assert (await PodStore(db).get("dev", "idle")).next_look_at == NOW
    with pytest.raises(Stale):  # the news would be lost
        async with database.transaction() as db:
            await PodStore(db).note(held, NOW, next_look_at=None)
    async with database.transaction() as db:
        assert len(await PodStore(db).claim("two", 30.0, 10, NOW)) == 2


async def test_instances_are_written_as_they_were_seen(database):
    pod = await added(database)
    first = await intended(database, pod)
    async with database.transaction() as db:
        queued = await PodStore(db).write(first, state=I.QUEUED, remote_id="7")
        with pytest.raises(Stale):
            await PodStore(db).write(first, state=I.ENDED)
        assert await PodStore(db).live_versions() == {first.marker: 1}
        assert await PodStore(db).live([first.marker]) == [queued]
    await intended(database, pod, 2)
    async with database.transaction() as db:
        await PodStore(db).write(queued, state=I.ENDED, ended_at=NOW)
        assert [one.number for one in await PodStore(db).instances(pod.uuid)] == [1, 2]
        assert list(await PodStore(db).live_versions()) == [marker_for(pod.uuid, 2)]


async def test_answers_of_many_are_noted_without_disturbing_who_works_on_them(database):
    _, running = await available(database)
    queued = await intended(database, await added(database, "other"), state=I.QUEUED)
    async with database.transaction() as db:
        await PodStore(db).answered([running.marker, queued.marker], LATER)
        [now] = await PodStore(db).live([running.marker])
        [still] = await PodStore(db).live([queued.marker])
    assert (now.answered_at, now.version) == (LATER, running.version)
    assert still.answered_at is None


async def test_outside_nets_are_open_only_while_answers_are_fresh(database):
    _, instance = await available(database)
    await added(database, "new")

    async def nets(at):
        async with database.reading() as db:
            return [(net.pod_id, net.net.name, net.instance, net.status) for net in await PodStore(db).open_nets(at)]

    waiting = ("new", "default", None, P.REQUESTED)
    assert await nets(NOW + ANSWER_HOLDS) == [waiting, ("web", "default", instance, P.AVAILABLE)]
    stale_at = NOW + ANSWER_HOLDS + timedelta(seconds=1)
    assert await nets(stale_at) == [waiting, ("web", "default", None, P.CREATING)]


async def test_a_net_whose_port_changed_leads_to_the_one_that_runs_until_the_next_start(database):
    pod, _ = await available(database)
    new, moved_to = replace(WEB, name="new", port=9000), replace(WEB, port=8000, needs_login=True)
    ways = (Way(5000, "web", "default"),)

    async def leads():
        async with database.reading() as db:
            return {each.net.name: (each.port, each.net.needs_login) for each in await PodStore(db).open_nets(NOW)}

    async with database.transaction() as db:
        [one] = await PodStore(db).instances(pod.uuid)
        await PodStore(db).write(one, run=replace(one.run, ways=ways))
        await PodStore(db).note(pod, NOW, definition=replace(pod.definition, nets=(moved_to, new)))
    assert await leads() == {"default": (5000, True), "new": (None, False)}


async def test_connections_go_to_the_newest_instance_that_answers(database):
    pod, _ = await available(database)
    second = await intended(database, pod, 2, state=I.RUNNING)

    async def behind():
        async with database.reading() as db:
            [net] = await PodStore(db).open_nets(NOW)
            stands = await PodStore(db).current([pod.uuid])
        assert stands[pod.uuid].number == net.instance.number
        return net.instance.number

    assert await behind() == 1
    async with database.transaction() as db:
        await PodStore(db).answered([second.marker], NOW)
    assert await behind() == 2


async def test_a_pod_is_not_forgotten_while_anything_of_it_may_run(database):
    pod, instance = await available(database)
    with pytest.raises(Stale):
        async with database.transaction() as db:
            await PodStore(db).remove(pod, NOW)
    async with database.transaction() as db:
        assert await PodStore(db).credentials(pod.uuid) == SECRETS
        await PodStore(db).write(instance, state=I.ENDED)
        await PodStore(db).keep_log(instance, "last words")
    with pytest.raises(Stale):
        async with database.transaction() as db:
            await PodStore(db).remove(replace(pod, version=99), NOW)
    async with database.transaction() as db:
        assert await PodStore(db).log(pod.uuid, 1) == "last words"
        await PodStore(db).remove(pod, NOW)
        with pytest.raises(NotFound):
            await PodStore(db).get("dev", "web")
        with pytest.raises(NotFound):
            await PodStore(db).credentials(pod.uuid)
    await added(database)


async def test_old_instances_are_forgotten_but_never_live_ones(database):
    pod = await added(database)
    for number in (1, 2, 3):
        await intended(database, pod, number, state=I.RUNNING if number == 1 else I.ENDED)
    async with database.transaction() as db:
        await PodStore(db).forget_instances(pod, 3)
        assert [one.number for one in await PodStore(db).instances(pod.uuid)] == [1, 3]
