"""What people may ask of pods, who may, and that nothing is told of a pod that is not so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from scheduler.model.errors import AlreadyExists, Forbidden, IllegalMove, NotFound, SpecInvalid
from scheduler.model.pod_catalog import PodKind, PodLevel
from scheduler.model.pods import (
    Desired,
    Executed,
    InstanceState,
    NetProtocol,
    PodDefinition,
    PodEvent,
    PodInstance,
    PodNet,
    PodRequest,
    PodStatus,
)
from scheduler.model.runs import SubmitIntent, Way
from scheduler.model.users import Principal
from scheduler.services import pod_grants, pods
from scheduler.store.pods import PodStore
from scheduler.store.systems import SystemStore
from tests.fakes.system import FakeSystem, Fault
from tests.reconcile.world import World, database_in, prepared
from tests.store.test_pods import an_instance

P, E = PodStatus, PodEvent

ANN, BOB = Principal(tenant="dev", username="ann"), Principal(tenant="dev", username="bob")
ROOT = Principal(tenant="dev", username="root", is_admin=True)
STRANGER = Principal(tenant="other", username="ann", is_admin=True)

WEB = PodDefinition(
    image="docker://nginx", nets=(PodNet(name="default", protocol=NetProtocol.HTTP, port=5000),), time_to_stop_s=3600
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with database_in(tmp_path) as database:
        await prepared(database)
        yield World(database, FakeSystem())


def request(name: str = "web", **changes) -> PodRequest:
    return PodRequest(**{"pod_id": name, "asked": {"pod_id": name}, "definition": WEB, **changes})


async def created(world: World, name: str = "web", caller: Principal = ANN, **changes):
    return await pods.create(world.ports(), caller, request(name, **changes))


async def moved(world: World, name: str, *events: PodEvent, **changes):
    async with world.database.transaction() as db:
        pod = await PodStore(db).get("dev", name)
        for event in events:
            pod = await PodStore(db).move(pod, event, world.now, **changes)
    return pod


async def running(world: World, name: str = "web"):
    """A pod whose instance runs on the system, and answered just now."""
    await created(world, name)
    pod = await moved(world, name, E.PLACED, E.ACCEPTED, E.STARTED, E.ANSWERED, started_at=world.now, instance_number=1)
    instance = an_instance(pod)
    remote_id = world.system.accept(SubmitIntent(instance.marker, instance.run, world.now))
    world.system.start(instance.marker)
    instance = replace(instance, remote_id=remote_id, state=InstanceState.RUNNING, answered_at=world.now)
    async with world.database.transaction() as db:
        await PodStore(db).intend(instance)
    return pod, instance


def to(**changes) -> pods.Change:
    """A change to these, whatever the pod is."""

    async def change(db, pod):
        return changes

    return change


async def granted(world: World, user: Principal, level: PodLevel) -> None:
    await pod_grants.grant(world.ports(), ANN, PodKind.POD, "web", user.username, level)


async def test_a_pod_is_wanted_as_soon_as_it_is_made_and_belongs_to_its_creator(world):
    pod = await created(world)
    assert (pod.status, pod.desired, pod.owner, pod.next_look_at) == (P.REQUESTED, Desired.ON, "ann", world.now)
    levels = await pod_grants.permissions(world.ports(), ANN, PodKind.POD, "web")
    assert levels == {"ann": PodLevel.ADMIN}
    _, actions = await pods.logs(world.ports(), ANN, "web")
    assert actions == ["26/03/01 12:00: Pod object created by 'ann'"]
    with pytest.raises(AlreadyExists):
        await created(world, caller=BOB)


async def test_a_pod_that_is_made_off_rests_until_it_is_started(world):
    pod = await created(world, desired=Desired.OFF)
    assert (pod.status, pod.desired, pod.next_look_at) == (P.STOPPED, Desired.OFF, None)
    pod = await pods.want(world.ports(), ANN, "web", Desired.ON)
    assert (pod.status, pod.desired, pod.next_look_at) == (P.REQUESTED, Desired.ON, world.now)


async def test_every_pod_has_secrets_of_its_own(world):
    await created(world)
    await created(world, "other")
    one = await pods.credentials(world.ports(), ANN, "web")
    other = await pods.credentials(world.ports(), ANN, "other")
    words = {one.user_password, one.service_password, other.user_password, other.service_password}
    assert len(words) == 4
    assert all(len(word) == 30 and word.isalnum() for word in words)
    assert one.user_password not in repr(one)


NEEDED = {
    "get": (PodLevel.READ, lambda p, who: pods.get(p, who, "web")),
    "logs": (PodLevel.READ, lambda p, who: pods.logs(p, who, "web")),
    "credentials": (PodLevel.USER, lambda p, who: pods.credentials(p, who, "web")),
    "stop": (PodLevel.USER, lambda p, who: pods.want(p, who, "web", Desired.OFF)),
    "update": (PodLevel.ADMIN, lambda p, who: pods.update(p, who, "web", to(description="x"))),
    "execute": (
        PodLevel.ADMIN,
        lambda p, who: pods.execute(
            p, who, "web", [["id"]], total_timeout_s=9, command_timeout_s=9, fail_on_non_success=True
        ),
    ),
    "upload": (PodLevel.ADMIN, lambda p, who: pods.upload(p, who, "web", "/tmp/x", b"x")),
    "remove": (PodLevel.ADMIN, lambda p, who: pods.remove(p, who, "web")),
}


@pytest.mark.parametrize("what", NEEDED)
async def test_every_use_needs_its_level_and_none_is_told_more(world, what):
    needed, use = NEEDED[what]
    await running(world)
    for who in (BOB, STRANGER):
        with pytest.raises(NotFound):
            await use(world.ports(), who)
    for level in [level for level in PodLevel if level < needed]:
        await granted(world, BOB, level)
        with pytest.raises(Forbidden):
            await use(world.ports(), BOB)
    await granted(world, BOB, needed)
    await use(world.ports(), BOB)


async def test_people_see_the_pods_that_they_may_read_and_admins_all(world):
    await created(world)
    await created(world, "bobs", caller=BOB)
    assert [pod.id for pod in await pods.list_pods(world.ports(), ANN)] == ["web"]
    await granted(world, BOB, PodLevel.READ)
    assert [pod.id for pod in await pods.list_pods(world.ports(), BOB)] == ["bobs", "web"]
    assert [pod.id for pod in await pods.list_pods(world.ports(), ROOT)] == ["bobs", "web"]
    assert await pods.list_pods(world.ports(), STRANGER) == []


async def test_available_is_said_only_while_an_answer_is_fresh(world):
    await running(world)
    assert (await pods.get(world.ports(), ANN, "web")).status is P.AVAILABLE
    world.later(10.1)
    assert (await pods.get(world.ports(), ANN, "web")).status is P.CREATING
    assert [pod.status for pod in await pods.list_pods(world.ports(), ANN)] == [P.CREATING]


async def test_a_stop_is_written_down_and_answered_at_once(world):
    await running(world)
    pod = await pods.want(world.ports(), ANN, "web", Desired.OFF)
    assert (pod.status, pod.desired, pod.next_look_at) == (P.AVAILABLE, Desired.OFF, world.now)
    with pytest.raises(IllegalMove, match="wait until it is STOPPED"):
        await pods.want(world.ports(), ANN, "web", Desired.ON)
    assert (await pods.want(world.ports(), ANN, "web", Desired.RESTART)).desired is Desired.RESTART


async def test_a_pod_that_runs_is_not_started_again(world):
    await running(world)
    with pytest.raises(IllegalMove, match="restart it instead"):
        await pods.want(world.ports(), ANN, "web", Desired.ON)


@pytest.mark.parametrize("desired", [Desired.ON, Desired.RESTART])
@pytest.mark.parametrize("event", [E.FAILED, E.COMPLETED, E.GONE])
async def test_whatever_is_at_rest_can_be_started_and_its_past_is_forgiven(world, desired, event):
    way = {E.FAILED: [], E.COMPLETED: [E.PLACED, E.ACCEPTED], E.GONE: [E.STOPPING]}[event]
    await created(world)
    await moved(world, "web", *way, event, next_look_at=None)
    world.later(60)
    newer = replace(WEB, image="docker://nginx:2")
    pod = await pods.want(world.ports(), ANN, "web", desired, definition=newer)
    assert (pod.status, pod.desired, pod.wanted_at, pod.next_look_at) == (P.REQUESTED, Desired.ON, world.now, world.now)
    assert pod.definition == newer


async def test_a_change_counts_from_the_next_start_but_the_time_to_stop_at_once(world):
    pod, _ = await running(world)
    newer = replace(WEB, image="docker://nginx:2", time_to_stop_s=600)
    changed = await pods.update(world.ports(), ANN, "web", to(definition=newer, description="new"))
    assert (changed.definition, changed.description, changed.status) == (newer, "new", P.AVAILABLE)
    assert changed.stop_at == pod.started_at + timedelta(seconds=600)
    never = await pods.update(world.ports(), ANN, "web", to(definition=replace(WEB, time_to_stop_s=-1)))
    assert never.stop_at is None
    with pytest.raises(ValueError, match="status"):
        await pods.update(world.ports(), ANN, "web", to(status="AVAILABLE"))


async def test_a_pod_of_which_nothing_runs_is_gone_at_once_and_its_name_is_free(world):
    await created(world, desired=Desired.OFF)
    await granted(world, BOB, PodLevel.ADMIN)
    await pods.remove(world.ports(), ANN, "web")
    with pytest.raises(NotFound):
        await pods.get(world.ports(), ANN, "web")
    await created(world)
    with pytest.raises(NotFound):
        await pods.get(world.ports(), BOB, "web")


async def test_a_pod_that_may_run_goes_only_once_it_is_proven_gone(world):
    await running(world)
    pod = await pods.remove(world.ports(), ANN, "web")
    assert (pod.desired, pod.delete_requested_at) == (Desired.OFF, world.now)
    with pytest.raises(IllegalMove, match="being deleted"):
        await pods.want(world.ports(), ANN, "web", Desired.RESTART)
    assert (await pods.remove(world.ports(), ANN, "web")).delete_requested_at == world.now


async def test_logs_are_what_was_written_last_and_kept_when_it_ended(world):
    _, instance = await running(world)
    world.system.write_log(instance.marker, b"x" * (11 * 1024 * 1024) + b"the end")
    text, _ = await pods.logs(world.ports(), ANN, "web")
    assert len(text) == pods.LOGS_SHOWN_BYTES // 2
    assert text.endswith("the end")
    async with world.database.transaction() as db:
        await PodStore(db).write(instance, state=InstanceState.ENDED)
        await PodStore(db).keep_log(instance, "last words")
    assert (await pods.logs(world.ports(), ANN, "web"))[0] == "last words"


async def test_last_words_stay_until_the_next_instance_writes_something(world):
    pod, instance = await running(world)
    async with world.database.transaction() as db:
        await PodStore(db).write(instance, state=InstanceState.ENDED)
        await PodStore(db).keep_log(instance, "last words")
        await PodStore(db).intend(an_instance(pod, 2))
    assert (await pods.logs(world.ports(), ANN, "web"))[0] == "last words"


async def test_a_place_that_does_not_answer_costs_the_log_but_not_the_actions(world):
    await running(world)
    world.system.fail("read_log", Fault.UNAVAILABLE)
    text, actions = await pods.logs(world.ports(), ANN, "web")
    assert text == "[cluster does not tell what the pod wrote: fake: no route to host]\n"
    assert len(actions) == 1


async def run(world: World, *commands, **changes):
    limits = {"total_timeout_s": 30, "command_timeout_s": 10, "fail_on_non_success": True, **changes}
    return await pods.execute(world.ports(), ANN, "web", [command.split() for command in commands], **limits)


async def test_commands_run_in_turn_until_one_fails(world):
    await running(world)
    world.system.pods.runs_command = lambda marker, argv, stdin: Executed(
        exit_code=int(argv[0] == "false"), stdout=argv[0].encode(), stderr=b""
    )
    assert [one.executed.stdout for one in await run(world, "true", "false", "id")] == [b"true", b"false"]
    everything = await run(world, "true", "false", "id", fail_on_non_success=False)
    assert [one.succeeded for one in everything] == [True, False, True]
    [out_of_time] = await run(world, "id", total_timeout_s=0)
    assert (out_of_time.executed, out_of_time.message) == (None, "no time was left for it")


async def test_nothing_runs_inside_a_pod_that_does_not_run(world):
    await created(world)
    with pytest.raises(IllegalMove, match="REQUESTED"):
        await run(world, "id")


@pytest.mark.parametrize("path", ["", "etc/passwd", "/etc/", "/etc/\0x"])
async def test_a_file_goes_only_to_a_path_that_names_one(world, path):
    await running(world)
    with pytest.raises(SpecInvalid, match="dest_path"):
        await pods.upload(world.ports(), ANN, "web", path, b"x")


async def test_a_file_comes_whole_and_a_refusal_is_told_in_the_shells_words(world):
    await running(world)
    seen = []

    def shell(marker, argv, stdin):
        seen.append((argv[-1], stdin))
        return Executed(exit_code=len(seen) - 1, stdout=b"", stderr=b"Read-only file system\n")

    world.system.pods.runs_command = shell
    await pods.upload(world.ports(), ANN, "web", "/data/a b'c", b"\0\xff")
    assert seen == [("/data/a b'c", b"\0\xff")]
    with pytest.raises(SpecInvalid, match="Read-only file system"):
        await pods.upload(world.ports(), ANN, "web", "/data/x", b"")


# -- a cluster whose own proxy leads to pods ---------------------------------------------------------------------------

INGRESS = {"ingress": {"domain": "pods.kube.example.org"}}
GATEWAY = {"gateway": {"domain": "pods.kube.example.org", "name": "shared"}}


async def on_kubernetes(world: World, notes) -> PodInstance:
    """A pod that runs there under a name that anyone may ask."""
    pod, instance = await running(world)
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", instance.system_id)
        await SystemStore(db).replace(replace(system, notes={"berth": {"backend": "k8s", "k8s": notes}}))
        [instance] = await PodStore(db).instances(pod.uuid)
        run = replace(instance.run, ways=(Way(5000, "web", "default"),))
        return await PodStore(db).write(instance, run=run)


def with_net(**changes) -> dict[str, PodDefinition]:
    return {"definition": replace(WEB, nets=(replace(WEB.nets[0], **changes),))}


CLOSED_TO_ANYONE = [
    with_net(needs_login=True),
    with_net(ip_allow=("203.0.113.0/24",)),
    with_net(cors={"cors_allow_origins": ["https://example.org"]}),
    with_net(protocol=NetProtocol.LOCAL_ONLY),
    {"definition": replace(WEB, nets=())},
]


@pytest.mark.parametrize("notes", [INGRESS, GATEWAY])
@pytest.mark.parametrize("changes", CLOSED_TO_ANYONE)
async def test_a_name_is_not_said_to_be_closed_while_the_clusters_own_proxy_leads_to_it(world: World, notes, changes):
    instance = await on_kubernetes(world, notes)
    with pytest.raises(IllegalMove, match="lets anyone in to pod 'web' as web until the pod stops: stop it, change it"):
        await pods.update(world.ports(), ANN, "web", to(**changes))
    assert (await pods.get(world.ports(), ANN, "web")).definition == WEB
    async with world.database.transaction() as db:
        await PodStore(db).write(instance, state=InstanceState.ENDED)
    assert (await pods.update(world.ports(), ANN, "web", to(**changes))).definition == changes["definition"]


async def test_what_closes_no_name_is_changed_while_the_pod_runs(world: World):
    await on_kubernetes(world, INGRESS)
    for changes in (with_net(port=8000), {"description": "a page"}):
        await pods.update(world.ports(), ANN, "web", to(**changes))


@pytest.mark.parametrize("changes", CLOSED_TO_ANYONE)
async def test_names_that_lead_by_way_of_berth_alone_are_closed_at_once(world: World, changes):
    await on_kubernetes(world, {"nodePorts": True})
    assert (await pods.update(world.ports(), ANN, "web", to(**changes))).definition == changes["definition"]
