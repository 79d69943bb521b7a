"""The life of pods: what is wanted is brought about, and nothing is said that is not so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from scheduler.model.errors import BackendUnavailable, FileRefused, NotFound
from scheduler.model.ids import marker_for
from scheduler.model.pods import Desired, InstanceState, NetProtocol, PodMount, PodStatus, VolumeKind
from scheduler.model.runs import Ending, RemoteState
from scheduler.reconcile.pod_rules import DRAIN, MOST_QUICK_ENDS
from scheduler.reconcile.pod_watch import PodWatch
from scheduler.services import pods as services
from scheduler.store.pod_files import PodVolumeStore
from scheduler.store.pods import PodStore
from tests.contract.subjects import eventually
from tests.fakes.pod_host import FakePodHost
from tests.fakes.system import FakeBackend, FakeSystem, Fault
from tests.reconcile.pods_world import ANN, KEEPER, STATELESS, WEB, WITH_DATA, PodProcess, PodWorld
from tests.reconcile.world import CLUSTER, LEASE_S, LOST_AFTER_S, database_in, prepared

P, I = PodStatus, InstanceState  # noqa: E741


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PodWorld]:
    async with database_in(tmp_path) as database:
        await prepared(database, KEEPER)
        yield PodWorld(database, FakeSystem())


# -- coming up ---------------------------------------------------------------------------------------------------------


async def test_a_pod_goes_its_way_and_is_available_once_its_port_answers(world):
    await world.create()
    seen = [(await world.pod()).status]
    for _ in range(12):
        await world.tick()
        world.site_starts()
        seen.append((await world.pod()).status)
    ways = list(dict.fromkeys(seen))
    assert ways == [P.REQUESTED, P.SUBMITTED, P.CREATING, P.AVAILABLE]
    assert [line.split(": ")[1] for line in await world.actions()][-3:] == ["SUBMITTED", "CREATING", "AVAILABLE"]
    [job] = world.running
    assert job.intent.run.ports == (5000,)
    assert job.intent.run.image == "docker://nginx"
    [net] = await world.nets()
    assert (net.status, net.instance.marker) == (P.AVAILABLE, job.marker)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("nginx:1", "docker://nginx:1"),
        ("localhost:5000/nginx", "docker://localhost:5000/nginx"),
        ("docker://nginx", "docker://nginx"),
        ("/images/app.sif", "/images/app.sif"),
        ("oci:folder:tag", "oci:folder:tag"),
        ("oci-archive:/images/app.tar", "oci-archive:/images/app.tar"),
        ("docker-archive:/images/app.tar", "docker-archive:/images/app.tar"),
        ("dir:latest", "docker://dir:latest"),
        ("docker-daemon:latest", "docker://docker-daemon:latest"),
    ],
)
async def test_an_image_is_run_as_it_was_allowed(world, said, read):
    await world.create(definition=replace(WEB, image=said))
    await world.tick()
    [instance] = await world.instances()
    assert instance.run.image == read


async def test_a_pod_is_told_when_it_may_start_and_how_long_it_may_stay_and_of_no_result(world):
    await world.create(definition=replace(WEB, time_to_stop_s=43_200))
    await world.tick()
    [told] = [line for line in await world.actions() if "goes to" in line]
    assert " may start it in about " in told
    assert ", 9 times in 10 within " in told
    assert "; it may stay for up to 12 h. It is the only place that can take the pod now." in told
    assert not any(word in told for word in ("result", "run ", "archive", "job"))


async def test_a_place_that_calls_it_ready_makes_no_pod_available(world):
    await world.create()
    await world.tick()
    [job] = world.jobs
    world.system.pods.closed[job.marker] = {5000}
    await world.until(P.CREATING)
    await world.tick(3)
    assert (await world.pod()).message == "it runs; port 5000 does not answer yet"
    await world.tick(40)
    pod = await world.pod()
    assert pod.status is P.CREATING, "it may be slow; that is no error"
    assert "nobody listens on port 5000" in pod.message
    world.system.pods.closed.clear()
    assert (await world.until(P.AVAILABLE)).message == "instance 1 is on cluster (normal)"


async def test_every_port_that_has_a_name_must_answer(world):
    [net] = WEB.nets
    await world.create(definition=replace(WEB, nets=(net, replace(net, name="db", port=5432))))
    await world.tick()
    world.system.pods.closed[world.jobs[0].marker] = {5432}
    pod = await world.until(P.CREATING)
    await world.tick(3)
    assert "port 5432" in (await world.pod()).message
    world.system.pods.closed.clear()
    pod = await world.until(P.AVAILABLE)
    assert pod.started_at is not None


async def test_a_port_without_a_name_keeps_no_pod_from_being_available(world):
    [net] = WEB.nets
    inner = replace(net, name="inner", port=7000, protocol=NetProtocol.LOCAL_ONLY)
    await world.create(definition=replace(WEB, nets=(net, inner)))
    await world.tick()
    world.system.pods.closed[world.jobs[0].marker] = {7000}
    await world.until(P.AVAILABLE)
    await world.create("inner", replace(WEB, nets=(inner,)))
    await world.tick()
    world.system.pods.closed[world.jobs[1].marker] = {7000}
    await world.until(P.CREATING, "inner")
    await world.tick(3)
    assert "port 7000" in (await world.pod("inner")).message, "where no port has a name, all are tried"


async def test_what_its_place_waits_for_is_told_in_words(world):
    await world.create()
    await world.tick()
    [job] = world.jobs
    world.system.pods.waits_for[job.marker] = "the image nginx cannot be pulled: not found"
    await world.tick(3)
    pod = await world.pod()
    assert pod.status is P.SUBMITTED
    assert pod.message == "it waits on cluster: the image nginx cannot be pulled: not found"
    seen = (await services.containers(world.ports(), [pod]))[pod.uuid]
    assert seen["waits_for"] == "the image nginx cannot be pulled: not found"


async def test_a_pod_that_comes_up_is_looked_at_every_second_whatever_runs_beside_it(world):
    await world.create("settled")
    await world.until(P.AVAILABLE, "settled")
    await world.tick(70, 1.0)
    for name in ("one", "two", "three"):
        await world.create(name)
        await world.tick(1, 1.0)
        world.site_starts()
        await world.tick(2, 1.0)
        assert (await world.pod(name)).status is P.AVAILABLE


async def test_a_pod_that_no_system_keeps_is_an_error_that_says_so(tmp_path):
    async with database_in(tmp_path) as database:
        await prepared(database, CLUSTER)
        world = PodWorld(database, FakeSystem())
        await world.create()
        await world.tick()
        pod = await world.pod()
        assert (pod.status, pod.next_look_at) == (P.ERROR, None)
        assert "notes.berth.pods" in pod.message


@pytest.mark.parametrize(
    ("queue", "status", "words"),
    [
        ("cluster", P.SUBMITTED, ""),
        ("cluster.normal", P.SUBMITTED, ""),
        ("elsewhere", P.ERROR, "use default or one of cluster"),
        ("cluster.none", P.ERROR, "none"),
    ],
)
async def test_a_compute_queue_names_a_place_or_none(world, queue, status, words):
    await world.create(definition=replace(WEB, compute_queue=queue))
    await world.tick()
    pod = await world.pod()
    assert pod.status is status, pod.message
    assert words in pod.message


async def test_secrets_reach_the_run_and_nothing_that_is_kept(world):
    env = {"USER": "<<TAPIS_user_username>>", "PASS": "<<TAPIS_user_password>>"}
    mount = PodMount(
        kind=VolumeKind.EPHEMERAL, target="/etc/app", content="s=<<TAPIS_podsservice_password>>", content_name="app.ini"
    )
    definition = replace(WEB, environment=env, arguments=("--key=<<TAPIS_user_password>>",), mounts=(mount,))
    await world.create(definition=definition)
    await world.tick()
    secrets = await services.credentials(world.ports(), ANN, "web")
    [job] = world.jobs
    run = job.intent.run
    assert run.env == {"USER": "web", "PASS": secrets.user_password}
    assert run.args == (f"--key={secrets.user_password}",)
    [there] = run.mounts
    assert there.target == "/etc/app/app.ini"
    assert world.system.files.nodes[there.source] == f"s={secrets.service_password}".encode()
    [kept] = await world.instances()
    assert kept.run.env == env
    assert secrets.user_password not in repr(kept)


async def test_a_later_volume_of_the_same_name_has_files_of_its_own(world):
    sources = []
    for name in ("one", "two"):
        await world.volume({}, f"uuid-of-{name}")
        await world.create(name, WITH_DATA)
        await world.tick()
        sources += [job.intent.run.mounts[0].source for job in world.jobs if job.intent.run.name == name]
        async with world.database.transaction() as db:
            await PodVolumeStore(db).remove(await world.kept())
    assert [source.rpartition("/")[2] for source in sources] == ["uuid-of-one", "uuid-of-two"]


async def test_a_volume_that_is_gone_is_an_error_that_names_it(world):
    await world.create(definition=WITH_DATA)
    await world.tick()
    pod = await world.pod()
    assert pod.status is P.ERROR
    assert pod.message == "volume 'data' was not found; mount another, or none"


async def test_a_refusal_of_its_place_is_an_error_in_its_words(world):
    world.system.refuse = lambda intent: "sbatch: error: invalid account"
    await world.create()
    await world.tick()
    pod = await world.pod()
    assert pod.status is P.ERROR
    assert "invalid account" in pod.message
    assert world.jobs == []


@pytest.mark.parametrize("fault", [Fault.BEFORE_ACCEPT, Fault.AFTER_ACCEPT])
async def test_a_connection_cut_while_it_is_handed_over_leaves_one_instance(world, fault):
    world.system.fail("submit", fault)
    await world.create()
    await world.until(P.AVAILABLE)
    assert len(world.running) == 1


async def test_an_instance_that_was_taken_before_is_kept_though_the_next_try_is_refused(world, monkeypatch):
    world.system.fail("submit", Fault.AFTER_ACCEPT)
    world.system.fail("find", Fault.UNAVAILABLE)
    await world.create()
    await world.tick()
    [job] = world.jobs
    [instance] = await world.instances()
    assert instance.remote_id is None, "its place has it, and the answer was lost"

    def full(path: str) -> None:
        raise FileRefused(f"{path}: No space left on device")

    monkeypatch.setattr(world.system.files, "make_directory", full)
    await world.until(P.AVAILABLE)
    assert world.jobs == [job]
    assert [one.remote_id for one in await world.instances()] == [job.id]


async def test_a_place_that_is_out_of_reach_is_waited_for_and_told(world):
    world.system.fail("stage", Fault.UNAVAILABLE, times=3)
    await world.create()
    await world.tick()
    assert (await world.pod()).message == "fake: no route to host; being tried again"
    assert (await world.pod()).status is P.SPAWNER_SETUP
    await world.until(P.AVAILABLE)
    assert [one.number for one in await world.instances()] == [1]


async def test_mounts_that_change_before_the_place_heard_of_it_keep_nothing_from_starting(world):
    small = PodMount(kind=VolumeKind.EPHEMERAL, target="/etc/web", content="one", content_name="web.conf")
    world.system.fail("stage", Fault.UNAVAILABLE, times=2)
    await world.create(definition=replace(WEB, mounts=(small,)))
    await world.tick()
    changed = replace(WEB, mounts=(replace(small, content="two"), replace(small, target="/more")))

    async def change(db, pod):
        return {"definition": changed}

    await services.update(world.ports(), ANN, "web", change)
    await world.until(P.AVAILABLE)
    [mount] = world.running[0].intent.run.mounts
    assert world.system.files.nodes[mount.source] == b"one"


async def test_an_instance_of_an_older_version_that_kept_no_small_files_makes_way_for_one_that_does(world):
    small = PodMount(kind=VolumeKind.EPHEMERAL, target="/etc/web", content="one", content_name="web.conf")
    world.system.fail("stage", Fault.UNAVAILABLE, times=2)
    await world.create(definition=replace(WEB, mounts=(small,)))
    await world.tick()
    [older] = await world.instances()
    [mount] = older.run.mounts
    async with world.database.transaction() as db:
        await PodStore(db).write(older, run=replace(older.run, mounts=(replace(mount, text=None),)))
    world.restart()
    await world.until(P.AVAILABLE)
    [job] = world.jobs
    assert job.marker == marker_for(older.pod_uuid, 2)
    assert world.system.files.nodes[job.intent.run.mounts[0].source] == b"one"


# -- being available ---------------------------------------------------------------------------------------------------


async def available(world: PodWorld, definition=WEB, name: str = "web"):
    await world.create(name, definition)
    await world.until(P.AVAILABLE, name)
    return (await world.instances(name))[-1]


@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.LOGIN_FAILS, Fault.SLOW])
async def test_a_place_out_of_reach_takes_available_away_within_ten_seconds(world, fault):
    await available(world)
    for method in ("observe", "look", "connect"):
        world.system.fail(method, fault, times=1000)
    answered_at = (await world.instances())[-1].answered_at
    for _ in range(20):
        await world.process.pods.tick()
        await world.process.pods.crew.settle()
        await world.process.watch.tick()
        await world.process.watch.crew.settle(0.05)
        world.later(1)
        pod = await world.pod()
        if pod.status is not P.AVAILABLE:
            break
    assert world.now - answered_at <= timedelta(seconds=11)
    assert pod.status is P.CREATING
    world.system.heal()
    world.system.release()
    await world.until(P.AVAILABLE)
    assert len(world.running) == 1


async def test_a_port_that_closes_is_noticed_at_the_next_look(world):
    instance = await available(world)
    world.system.pods.closed[instance.marker] = {5000}
    await world.tick(4)
    pod = await world.pod()
    assert (pod.status, pod.message) == (P.CREATING, "port 5000 does not answer any more")
    [net] = await world.nets()
    assert net.instance is None


async def test_nobody_who_looks_is_told_available_when_no_process_looks(world):
    await available(world)
    world.later(11)
    assert (await world.pod()).status is P.CREATING
    assert [net.instance for net in await world.nets()] == [None]


async def test_a_site_that_takes_the_turn_away_puts_it_back_in_the_queue(world):
    instance = await available(world)
    world.system.requeue(instance.marker)
    world.system.pods.waits_for[instance.marker] = "preempted"
    await world.tick(4)
    assert (await world.pod()).status is P.SUBMITTED
    world.system.pods.waits_for.clear()
    await world.until(P.AVAILABLE)
    assert len(await world.instances()) == 1


async def test_an_instance_that_its_place_could_not_start_and_puts_off_is_replaced(world):
    instance = await available(world)
    world.system.requeue(instance.marker)
    world.system.jobs[instance.marker].is_put_off = True
    world.later(31)
    await world.tick(4)
    await world.until(P.AVAILABLE)
    assert [one.number for one in await world.instances()] == [1, 2]
    assert len(world.running) == 1


# -- ending by itself --------------------------------------------------------------------------------------------------


async def test_exit_zero_is_complete_and_its_last_words_are_kept(world):
    instance = await available(world)
    world.system.end(instance.marker, output=b"all done\n")
    pod = await world.until(P.COMPLETE)
    assert (pod.message, pod.next_look_at) == ("the container ended with exit code 0", None)
    text, _ = await services.logs(world.ports(), ANN, "web")
    assert text == "all done\n"
    await world.tick(10)
    assert len(world.jobs) == 1, "nobody asked for another"


@pytest.mark.parametrize("ending", [Ending.NODE_FAILURE, Ending.TIMEOUT, Ending.PREEMPTED, Ending.CANCELLED])
async def test_what_is_lost_with_its_place_is_placed_again(world, ending):
    instance = await available(world)
    world.later(3600)
    await world.tick(2)
    world.system.end(instance.marker, 1, ending)
    await world.tick(4)
    await world.until(P.AVAILABLE)
    assert [one.number for one in await world.instances()] == [1, 2]
    assert len(world.running) == 1


async def test_a_crash_is_started_again_later_each_time_and_given_up_with_its_last_words(world):
    await world.create()
    starts = []
    for _ in range(400):
        await world.tick()
        for job in world.jobs:
            if job.state is RemoteState.QUEUED:
                starts.append(world.now)
                world.system.start(job.marker)
                world.system.end(job.marker, 3, output=b"Traceback\nno database\n")
        if (await world.pod()).status is P.ERROR:
            break
    pod = await world.pod()
    assert pod.status is P.ERROR
    assert len(world.jobs) == MOST_QUICK_ENDS
    gaps = [(after - before).total_seconds() for before, after in pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= 10
    assert gaps[-1] >= 80
    assert pod.message.startswith("the container ended with exit code 3, and it ended soon after its start 5 times")
    assert pod.message.endswith("no database")
    await world.want(Desired.ON)
    await world.until(P.AVAILABLE)


async def test_an_instance_that_its_place_forgot_is_lost_only_when_that_is_proven(world):
    instance = await available(world)
    world.system.forget(instance.marker)
    await world.tick(7)
    assert (await world.pod()).status is P.CREATING
    await world.tick(int(LOST_AFTER_S / 2 / 2))
    assert len(world.jobs) == 1, "absence is not an outcome"
    for _ in range(int(LOST_AFTER_S / 2)):
        await world.tick()
        if len(world.jobs) > 1:
            break
    assert len(world.jobs) == 2
    assert world.system.jobs[instance.marker].state is RemoteState.ENDED, "it was told to end before"


# -- ending because somebody wants it ----------------------------------------------------------------------------------


async def test_a_stopped_pod_rests_once_its_end_is_proven(world):
    instance = await available(world)
    lost = iter([True, True, False])
    world.system.loses_cancel = lambda: next(lost)
    await world.want(Desired.OFF)
    await world.tick()
    assert (await world.pod()).status is P.DELETING
    await world.tick(2)
    assert (await world.pod()).status is P.DELETING, "the place has not ended it"
    pod = await world.until(P.STOPPED, ticks=20)
    assert world.system.jobs[instance.marker].state is RemoteState.ENDED
    assert (pod.next_look_at, pod.stop_at) == (None, None)
    await world.tick(10)
    assert len(world.jobs) == 1


async def test_a_pod_comes_up_and_ends_though_its_place_says_no_more_than_how_it_is(world):
    world.system.fail("look", Fault.UNAVAILABLE, times=1000)
    await available(world)
    await world.want(Desired.OFF)
    await world.until(P.STOPPED)
    assert world.running == []


async def test_a_pod_that_changes_while_it_is_worked_on_is_taken_up_again_at_once(world, monkeypatch):
    await available(world)
    began, goes_on = asyncio.Event(), asyncio.Event()
    cancelled = FakeBackend.cancel

    async def cancel(self, remote_id, marker):
        done = await cancelled(self, remote_id, marker)
        began.set()
        await goes_on.wait()
        return done

    monkeypatch.setattr(FakeBackend, "cancel", cancel)
    await world.want(Desired.OFF)
    await world.process.pods.tick()
    await began.wait()
    world.later(10)
    await world.process.watch.tick()
    await world.process.watch.crew.settle()
    await world.process.pods.tick()
    goes_on.set()
    await world.process.pods.crew.settle()
    await world.until(P.STOPPED, ticks=5)


async def test_a_pod_that_is_stopped_while_its_place_does_not_answer_is_taken_up_again_at_once(world, monkeypatch):
    began, goes_on, rung = asyncio.Event(), asyncio.Event(), []

    async def stage(self, plan):
        began.set()
        await goes_on.wait()
        raise BackendUnavailable("fake: no route to host")

    monkeypatch.setattr(FakeBackend, "stage", stage)
    world.process = PodProcess(world.ports(wake=lambda: rung.append(world.now)))
    await world.create()
    await world.process.pods.tick()
    await began.wait()
    await world.want(Desired.OFF)
    await world.process.pods.tick()
    rung.clear()
    goes_on.set()
    await world.process.pods.crew.settle()
    assert rung, "no loop waits for its interval"
    await world.process.pods.tick()
    await world.process.pods.crew.settle()
    assert (await world.pod()).status is P.STOPPED


async def test_a_restart_ends_the_old_instance_before_the_new_one_begins(world):
    first = await available(world)
    world.system.loses_cancel = lambda: True
    await world.want(Desired.RESTART)
    await world.tick(20)
    assert [job.marker for job in world.jobs] == [first.marker]
    world.system.loses_cancel = lambda: False
    await world.tick(5)
    pod = await world.until(P.AVAILABLE)
    assert pod.desired is Desired.ON
    assert [job.state for job in world.jobs] == [RemoteState.ENDED, RemoteState.RUNNING]


async def test_a_removed_pod_is_gone_when_nothing_of_it_runs(world):
    await available(world)
    await services.remove(world.ports(), ANN, "web")
    await world.tick(6)
    with pytest.raises(NotFound):
        await world.pod()
    assert world.running == []
    await available(world)


async def test_a_pod_is_stopped_when_its_time_is_up(world):
    await available(world, replace(WEB, time_to_stop_s=600))
    pod = await world.pod()
    assert pod.stop_at == pod.started_at + timedelta(seconds=600)
    world.later(600)
    pod = await world.until(P.STOPPED)
    assert pod.desired is Desired.OFF
    assert any("time_to_stop is reached" in line for line in await world.actions())
    assert world.running == []


async def test_a_pod_that_is_stopped_before_its_place_heard_of_it_never_reaches_it(world):
    world.system.fail("stage", Fault.UNAVAILABLE, times=100)
    await world.create()
    await world.tick(2)
    await world.want(Desired.OFF)
    await world.until(P.STOPPED)
    world.system.heal()
    await world.tick(10)
    assert world.jobs == []


# -- before its walltime ends ------------------------------------------------------------------------------------------


async def test_a_pod_without_files_is_handed_over_before_its_walltime_ends(world):
    first = await available(world, STATELESS)
    world.now = first.go_on_until - timedelta(seconds=30)
    await world.tick(2)
    assert len(world.jobs) == 2
    assert (await world.pod()).status is P.AVAILABLE, "the old one answers while the new one waits"
    [net] = await world.nets()
    assert net.instance.number == 1
    world.site_starts()
    await world.tick(5)
    [net] = await world.nets()
    assert net.instance.number == 2
    assert len(world.running) == 2, "the old one drains"
    await world.tick(int(DRAIN.total_seconds() / 2) + 4)
    assert [job.state for job in world.jobs] == [RemoteState.ENDED, RemoteState.RUNNING]
    assert (await world.pod()).status is P.AVAILABLE
    assert (await world.instances())[-1].number == 2


async def test_a_queue_that_allows_three_minutes_keeps_pods_for_as_long(tmp_path):
    async with database_in(tmp_path) as database:
        short = tuple(replace(queue, max_walltime_s=180) for queue in KEEPER.queues)
        await prepared(database, replace(KEEPER, queues=short))
        first = await available(PodWorld(database, FakeSystem()), STATELESS)
        assert first.go_on_until - first.started_at == timedelta(minutes=3)


async def test_a_successor_is_asked_for_as_long_before_as_waiting_takes(world):
    first = await available(world, STATELESS)
    assert first.wait_p90_s >= 0
    async with world.database.transaction() as db:
        await PodStore(db).write(first, wait_p90_s=3600.0)
        await PodStore(db).look_at([first.pod_uuid], world.now)
    world.now = first.go_on_until - timedelta(seconds=3600 + 65)
    await world.tick()
    assert len(world.jobs) == 1
    world.later(10)
    await world.tick()
    assert len(world.jobs) == 2


async def test_an_instance_is_ended_though_the_place_of_another_is_out_of_reach(world, monkeypatch):
    await available(world, STATELESS)
    async with world.database.transaction() as db:
        store = PodStore(db)
        pod = await store.get("dev", "web")
        [first] = await store.instances(pod.uuid)
        second = replace(first, number=2, marker=marker_for(pod.uuid, 2), remote_id=None, state=I.INTENDED, version=0)
        await store.intend(second)
    cancelled = FakeBackend.cancel

    async def cancel(self, remote_id, marker):
        if marker == first.marker:
            raise BackendUnavailable("fake: no route to host")
        return await cancelled(self, remote_id, marker)

    monkeypatch.setattr(FakeBackend, "cancel", cancel)
    await world.want(Desired.OFF)
    await world.tick(2)
    assert [one.state for one in await world.instances()] == [I.RUNNING, I.ENDED]
    assert "no route to host" in (await world.pod()).message


async def test_a_pod_with_files_never_overlaps_and_is_held_for_the_meantime(world):
    first = await available(world)
    world.now = first.go_on_until - timedelta(seconds=40)
    world.system.loses_cancel = lambda: True
    await world.tick(3)
    assert len(world.jobs) == 1
    world.system.end_by_us(world.system.jobs[first.marker])
    world.system.loses_cancel = lambda: False
    await world.tick(4)
    assert len(world.jobs) == 2
    assert world.jobs[0].state is RemoteState.ENDED
    [net] = await world.nets()
    assert net.instance is None
    assert net.held_until is not None
    await world.until(P.AVAILABLE)
    [net] = await world.nets()
    assert (net.instance.number, net.held_until) == (2, None)


async def test_a_pod_that_stops_before_its_walltime_ends_gets_no_successor(world):
    first = await available(world, replace(STATELESS, time_to_stop_s=3600))
    pod = await world.pod()
    world.now = min(pod.stop_at, first.go_on_until) - timedelta(seconds=20)
    await world.tick()
    assert len(world.jobs) == 1


# -- processes ---------------------------------------------------------------------------------------------------------


async def test_a_new_process_takes_over_where_the_old_one_died(world):
    await available(world)
    world.restart()
    world.later(LEASE_S + 1)
    assert (await world.pod()).status is P.CREATING
    await world.tick(3)
    assert (await world.pod()).status is P.AVAILABLE
    assert len(world.jobs) == 1


async def test_probes_are_bounded_in_number_at_once(world):
    world.system.nodes = tuple(replace(kind, total=200, free=200, free_cores=800) for kind in world.system.nodes)
    for n in range(40):
        await world.create(f"pod{n}")
    for _ in range(8):
        await world.tick()
        world.site_starts()
    world.system.pods.connect_takes = lambda: 3
    await world.tick(6)
    pods = await services.list_pods(world.ports(), ANN)
    assert {pod.status for pod in pods} == {P.AVAILABLE}
    assert 1 < world.system.pods.most_at_once <= 32


async def test_what_answers_is_not_kept_waiting_by_what_hangs(world, monkeypatch):
    monkeypatch.setattr("scheduler.reconcile.pod_watch.PROBES_OF_LOGIN", 1)
    for name in ("good", "hangs", "hangstoo"):
        await world.create(name)
    for _ in range(6):
        await world.tick()
        world.site_starts()
    assert (await world.pod("good")).status is P.AVAILABLE
    [good] = await world.instances("good")
    release, connect = asyncio.Event(), FakePodHost.connect

    async def slow(host, remote_id, marker, port):
        if marker != good.marker:
            await release.wait()
        return await connect(host, remote_id, marker, port)

    monkeypatch.setattr(FakePodHost, "connect", slow)
    watch = PodWatch(world.ports(), lost_after_s=LOST_AFTER_S)
    for name in ("hangs", "hangstoo"):
        [one] = await world.instances(name)
        async with world.database.transaction() as db:
            await PodStore(db).write(one, answered_at=None)
    world.later(20)
    await watch.tick()

    async def is_noted() -> bool:
        return (await world.instances("good"))[0].answered_at == world.now

    await eventually(is_noted, "the answer is noted", timeout_s=5)
    release.set()
    await watch.crew.settle()
