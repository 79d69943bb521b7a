"""Files of volumes go where the first pod goes that mounts them, whole before it starts; and they stay there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backends.local.commands import account_for
from backends.local.storage import LocalStorage
from scheduler.model.errors import BackendUnavailable, IllegalMove, NothingLearnt
from scheduler.model.pod_catalog import FilesStatus, PodKind, PodSnapshot
from scheduler.model.pods import Desired, PodMount, PodStatus, VolumeKind
from scheduler.model.systems import Credential
from scheduler.pod_files import files_of, settle_volume
from scheduler.reconcile.pod_files import PodFiles
from scheduler.reconcile.pod_homes import settled
from scheduler.reconcile.sides import side_of
from scheduler.services import pod_grants, pod_volumes
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore
from scheduler.store.systems import CredentialStore, SystemStore
from tests.crash.fuse import Crash, Fuse, Fused, FusedConnections, fused_transactions
from tests.fakes.system import FakeSystem
from tests.reconcile.pods_world import ANN, KEEPER, WEB, WITH_DATA, PodProcess, PodWorld
from tests.reconcile.world import LEASE_S, database_in, prepared

P = PodStatus
FILES = {"a": b"first", "b/c": b"second", "b/d/e": bytes(70_000)}
HOME = "/work/pod-volumes/dev/of-data"
OTHER = replace(KEEPER, id="other", uuid="other")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PodWorld]:
    async with database_in(tmp_path) as database:
        await prepared(database, KEEPER)
        yield PodWorld(database, FakeSystem())


def there(world: PodWorld, home: str = HOME) -> dict[str, bytes]:
    """The files at the volume's place on the system."""
    nodes = world.system.files.nodes
    return {path[len(home) + 1 :]: data for path, data in nodes.items() if path.startswith(f"{home}/") and data}


def left_with_berth(world: PodWorld) -> list[str]:
    return [path for path, data in world.with_berth.nodes.items() if data is not None]


async def pieces(*each: bytes) -> AsyncIterator[bytes]:
    for one in each:
        yield one


async def test_files_are_there_before_the_pod_and_read_there_from_then_on(world):
    await world.volume(FILES)
    world.system.refuse = lambda intent: None if there(world) == FILES else "sbatch: error: its files are not there"
    await world.create(definition=WITH_DATA)
    await world.until(P.AVAILABLE)
    [job] = world.jobs
    assert [mount.source for mount in job.intent.run.mounts] == [HOME]
    assert left_with_berth(world) == []
    world.system.files.put(f"{HOME}/by-the-pod", b"row")
    assert sorted(path for path, _ in await pod_volumes.files(world.ports(), await world.kept())) == [
        "a",
        "b/c",
        "b/d/e",
        "by-the-pod",
    ]
    await pod_volumes.upload(world.ports(), ANN, "data", "b/f", pieces(b"later"), None)
    assert there(world)["b/f"] == b"later"
    assert left_with_berth(world) == []


async def test_pods_that_mount_it_go_where_it_lies_and_say_so(world):
    async with world.database.transaction() as db:
        await SystemStore(db).add(OTHER)
        await CredentialStore(db).put(Credential(tenant="dev", system_id="other", user="alice", login_user="alice"))
    world.connections.systems["other"] = FakeSystem(clock=world.clock)
    await world.volume(FILES)
    await world.create("one", replace(WITH_DATA, compute_queue="other"))
    await world.tick()
    assert (await world.kept()).system_id == "other", (await world.pod("one")).message
    await world.create("two", WITH_DATA)
    await world.create("three", replace(WITH_DATA, compute_queue="cluster"))
    await world.tick()
    assert (await world.instances("two"))[0].system_id == "other"
    assert "No other place was asked: volume 'data' on 'other' lies there alone" in "".join(await world.actions("two"))
    three = await world.pod("three")
    assert three.status is P.ERROR
    assert "compute_queue: 'cluster' is elsewhere, and volume 'data' on 'other'" in three.message
    assert world.jobs == []

    await world.want(Desired.RESTART, "two")
    async with world.database.transaction() as db:
        await SystemStore(db).replace(replace(await SystemStore(db).get("dev", "other"), enabled=False))
    await world.tick(8)
    two = await world.pod("two")
    assert two.status is P.REQUESTED
    assert "system 'other' is disabled, or keeps no pods now, and volume 'data'" in two.message


async def test_volumes_of_two_systems_are_mounted_together_nowhere(world):
    volume = await world.volume({})
    async with world.database.transaction() as db:
        store = PodVolumeStore(db)
        await store.change(volume, world.now, system_id="other", login_owner="alice", directory="x", moved_at=world.now)
        await store.add(replace(volume, id="more", uuid="of-more", system_id="cluster", directory="y"))
    mounts = [PodMount(kind=VolumeKind.VOLUME, target=f"/{name}", source=name) for name in ("data", "more")]
    await world.create(definition=replace(WEB, mounts=tuple(mounts)))
    await world.tick()
    pod = await world.pod()
    assert pod.status is P.ERROR
    assert "its files lie apart: volume 'data' on 'other' and volume 'more' on 'cluster'" in pod.message


async def test_a_kubernetes_without_a_claim_takes_no_pod_with_files(world):
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "cluster")
        await SystemStore(db).replace(replace(system, notes={"berth": {"pods": True, "backend": "k8s"}}))
    await world.volume(FILES)
    await world.create(definition=WITH_DATA)
    await world.tick()
    pod = await world.pod()
    assert pod.status is P.ERROR
    assert "notes.berth.k8s.volume" in pod.message
    assert not (await world.kept()).system_id


async def test_the_files_of_one_login_are_not_mounted_by_another(world):
    volume = await world.volume({})
    async with world.database.transaction() as db:
        home = {"system_id": "cluster", "login_owner": "bob", "directory": "home/bob/x"}
        await PodVolumeStore(db).change(volume, world.now, **home, moved_at=world.now)
    await world.create(definition=WITH_DATA)
    await world.tick()
    pod = await world.pod()
    assert pod.status is P.ERROR
    assert "among the files of bob" in pod.message


async def test_a_system_that_is_not_reached_hides_no_files(world):
    await world.volume(FILES)
    await world.create(definition=WITH_DATA)
    await world.until(P.AVAILABLE)
    world.connections.refused.add("alice")
    volume = await world.kept()
    for asked in (pod_volumes.files(world.ports(), volume), pod_volumes.find(world.ports(), volume, "a")):
        with pytest.raises(
            BackendUnavailable, match=r"volume 'data' are on system 'cluster', which is not reached: no us"
        ):
            await asked
    with pytest.raises(BackendUnavailable):
        await settle_volume(world.ports(), replace(volume, status=FilesStatus.DELETING))
    assert there(world) == FILES


async def test_a_deleted_volume_leaves_no_files_at_its_home(world):
    await world.volume(FILES)
    await world.create(definition=WITH_DATA)
    await world.until(P.AVAILABLE)
    await world.want(Desired.OFF)
    await world.until(P.STOPPED)
    async with world.database.transaction() as db:
        await PodVolumeStore(db).change(await world.kept(), world.now, status=FilesStatus.DELETING)
    await PodFiles(world.ports(), world.process.moves).tick()
    assert there(world) == {}
    assert [path for path in world.system.files.nodes if "of-data" in path] == []


async def test_a_volume_that_is_being_brought_is_deleted_after_that(world):
    await world.volume(FILES)
    async with world.database.transaction() as db:
        home = {"system_id": "cluster", "login_owner": "alice", "directory": HOME[1:]}
        store = PodVolumeStore(db)
        volume = await store.change(await store.get("dev", "data"), world.now, **home)
        assert await store.lease(volume, "other", world.now, world.now + timedelta(seconds=LEASE_S))
        volume = await store.change(volume, world.now, status=FilesStatus.DELETING)
    with pytest.raises(NothingLearnt, match="is still being brought to 'cluster'"):
        await settle_volume(world.ports(), volume)
    world.later(LEASE_S + 1)
    await settle_volume(world.ports(), volume)
    assert left_with_berth(world) == []


async def test_on_this_machine_a_rename_is_enough_where_one_account_has_both(tmp_path):
    for path, content in FILES.items():
        (tmp_path / "here" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / path).write_bytes(content)
    kept = (tmp_path / "here" / "a").stat().st_ino
    there = LocalStorage(tmp_path / "work")
    assert await there.adopt(tmp_path / "here", "pod-volumes/dev/x")
    assert (tmp_path / "work/pod-volumes/dev/x/a").stat().st_ino == kept
    (tmp_path / "here").mkdir()
    assert not await there.adopt(tmp_path / "here", "pod-volumes/dev/x"), "files that are there are never replaced"
    assert not await LocalStorage(tmp_path / "work", account_for("nobody")).adopt(tmp_path / "here", "pod-volumes/y")
    await there.aclose()


async def test_files_that_a_pod_left_there_before_are_kept(world):
    await world.volume(FILES)
    world.system.files.put(f"{HOME}/a", b"a row of a pod")
    await world.create(definition=WITH_DATA)
    await world.until(P.AVAILABLE)
    assert there(world) == {**FILES, "a": b"a row of a pod"}


async def test_files_whose_pod_was_stopped_on_the_way_come_there_all_the_same(world):
    await world.volume(FILES)
    await world.create(definition=WITH_DATA)
    world.connections.refused.add("alice")
    await world.tick()
    assert "which is not reached" in (await world.pod()).message
    await world.want(Desired.OFF)
    world.connections.refused.clear()
    await world.until(P.STOPPED)
    assert (await world.kept()).is_on_its_way
    with pytest.raises(IllegalMove, match="is being brought to 'cluster'"):
        await pod_volumes.upload(world.ports(), ANN, "data", "f", pieces(), None)
    assert [path for path, _ in await pod_volumes.files(world.ports(), await world.kept())] == sorted(FILES)
    await PodFiles(world.ports(), world.process.moves).tick()
    await world.process.moves.crew.settle()
    assert there(world) == FILES
    assert (await world.kept()).moved_at is not None


async def test_a_snapshot_is_mounted_after_its_first_copy_and_never_without_one(world):
    await world.volume(FILES)
    source = {"source_volume_id": "data", "owner": ANN.username, "created_at": world.now, "updated_at": world.now}
    async with world.database.transaction() as db:
        for name, path in (("good", "b"), ("bad", "nowhere")):
            await PodSnapshotStore(db).add(PodSnapshot(tenant="dev", id=name, uuid=name, source_path=path, **source))
            await pod_grants.begin(db, "dev", PodKind.SNAPSHOT, name, ANN.username)
    for name in ("good", "bad"):
        mount = PodMount(kind=VolumeKind.SNAPSHOT, target="/data", source=name)
        await world.create(name, replace(WEB, mounts=(mount,)))
    await world.tick()
    assert "snapshot 'good' is REQUESTED" in (await world.pod("good")).message
    await PodFiles(world.ports(), world.process.moves).tick()
    await world.until(P.AVAILABLE, "good")
    assert there(world, "/work/pod-volumes/dev/snapshots/good/copy") == {"c": b"second", "d/e": bytes(70_000)}
    bad = await world.until(P.ERROR, "bad")
    assert "snapshot 'bad' holds no files (the copy of" in bad.message


@pytest.mark.slow
async def test_a_process_that_dies_on_the_way_loses_no_file_and_starts_no_pod_without_them(tmp_path):
    for at in range(1, 200):
        (tmp_path / str(at)).mkdir()
        async with database_in(tmp_path / str(at)) as database:
            await prepared(database, KEEPER)
            world, fuse = PodWorld(database, FakeSystem()), Fuse(at)
            world.system.refuse = lambda intent, world=world: None if there(world) == FILES else "its files are missing"
            await world.volume(FILES)
            await world.create(definition=WITH_DATA)
            with_berth = world.ports().volumes
            world.process = PodProcess(
                world.ports(
                    connections=FusedConnections(world.connections, fuse),
                    transaction=fused_transactions(database.transaction, fuse),
                    volumes=lambda place, opened=with_berth, fuse=fuse: Fused(opened(place), fuse),
                )
            )
            try:
                await world.tick(3)
            except Crash:
                pass
            except ExceptionGroup:
                pass
            world.restart()
            world.later(LEASE_S + 1)
            await world.until(P.AVAILABLE)
            async with files_of(world.ports(), await world.kept()) as storage:
                assert sorted([entry.name for entry in await storage.list("")]) == ["a", "b"], fuse.moments
            assert there(world) == FILES, (at, fuse.moments)
            if not fuse.blown:
                return
    raise AssertionError("there are more moments than this test tries")


async def test_a_volume_that_got_a_home_at_another_login_meanwhile_is_not_mounted(world):
    """Two pods of different users are placed at once: both saw a volume without a home."""
    volume = await world.volume(FILES)
    pod = await world.create(definition=WITH_DATA)
    side = await side_of(world.ports(), ANN.tenant, "cluster", ANN.username)
    home = {"system_id": "cluster", "login_owner": "bob", "directory": "home/bob/x"}
    async with world.database.transaction() as db:
        await PodVolumeStore(db).change(volume, world.now, **home)
        with pytest.raises(NothingLearnt, match="among the files of bob"):
            await settled(db, pod, side, world.now)
