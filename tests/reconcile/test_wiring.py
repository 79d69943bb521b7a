"""Connections follow what the store says of systems and credentials; nothing is opened before it is used."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from backends.slurm.pods import SlurmPodHost
from scheduler.model.errors import BackendUnavailable, CredentialRefused, NotAuthorised
from scheduler.model.probes import ProbeAsk
from scheduler.model.runs import JobType
from scheduler.model.systems import Credential
from scheduler.store.systems import CredentialStore, SystemStore
from scheduler.wiring import IDLE_S, REREAD_S, SystemConnections
from tests.reconcile.world import CLUSTER, World

LOGIN = CLUSTER.login_of("ann")
CREDENTIAL = Credential(tenant="dev", system_id="cluster", user="alice", login_user="alice", password="one")


class Time:
    """Seconds that tests turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
async def connections(world: World, time: Time, tmp_path: Path) -> AsyncIterator[SystemConnections]:
    opened = SystemConnections(
        world.database.reading,
        state_dir=tmp_path,
        images_dir=tmp_path / "images",
        allowed=(ip_network("192.0.2.0/24"),),
        refused_pause_s=30,
        own_places=[tmp_path / "home"],
        monotonic=time,
    )
    yield opened
    await opened.aclose()


async def stored(world: World, credential: Credential) -> None:
    async with world.database.transaction() as db:
        await CredentialStore(db).put(credential)


async def test_all_who_ask_share_one_backend_and_one_connection(connections: SystemConnections):
    backend = await connections.backend(LOGIN, JobType.BATCH)
    assert await connections.backend(LOGIN, JobType.BATCH) is backend
    assert await connections.storage(LOGIN) is await connections.storage(LOGIN)
    assert await connections.backend(LOGIN, JobType.FORK) is not backend


async def test_a_login_without_a_credential_is_not_authorised(connections: SystemConnections, world: World):
    async with world.database.transaction() as db:
        await CredentialStore(db).remove("dev", "cluster", "alice")
    with pytest.raises(NotAuthorised, match="no credential of alice for system 'cluster'"):
        await connections.backend(LOGIN, JobType.BATCH)


async def test_a_new_credential_is_used_at_once_when_told_and_soon_when_not(connections, world, time):
    first = await connections.backend(LOGIN, JobType.BATCH)
    await stored(world, CREDENTIAL)
    assert await connections.backend(LOGIN, JobType.BATCH) is first
    time.now += REREAD_S
    second = await connections.backend(LOGIN, JobType.BATCH)
    assert second is not first
    await stored(world, replace(CREDENTIAL, password="two"))
    await connections.forget(LOGIN)
    assert await connections.backend(LOGIN, JobType.BATCH) is not second


async def test_a_changed_system_is_opened_anew(connections: SystemConnections, world: World, time: Time):
    first = await connections.backend(LOGIN, JobType.BATCH)
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "cluster")
        await SystemStore(db).replace(replace(system, port=2222))
    time.now += REREAD_S
    assert await connections.backend(LOGIN, JobType.BATCH) is not first


async def test_pods_are_reached_where_the_owner_allows_no_more_of_them(
    connections: SystemConnections, world: World, time: Time
):
    assert isinstance(await connections.pod_host(LOGIN), SlurmPodHost), "those that run are ended and looked at"
    async with world.database.transaction() as db:
        system = await SystemStore(db).get("dev", "cluster")
        await SystemStore(db).replace(replace(system, notes={"berth": {"pods": {"sharedNetwork": True}}}))
    time.now += REREAD_S
    host = await connections.pod_host(LOGIN)
    assert isinstance(host, SlurmPodHost)
    assert await connections.pod_host(LOGIN) is host


async def test_what_nobody_uses_is_closed(connections: SystemConnections, world: World, time: Time):
    await connections.backend(LOGIN, JobType.BATCH)
    other = replace(CREDENTIAL, user="bob", login_user="bob")
    await stored(world, other)
    time.now += IDLE_S + 1
    await connections.backend(LOGIN._replace(owner="bob"), JobType.BATCH)
    assert [key.owner for key in connections._opened] == ["bob"]


async def test_a_connection_that_a_long_transfer_uses_is_not_idle(
    world: World, connections: SystemConnections, time: Time
):
    await stored(world, CREDENTIAL)
    await connections.backend(LOGIN, JobType.BATCH)
    other = replace(CREDENTIAL, user="bob", login_user="bob")
    await stored(world, other)
    connection = connections._opened[LOGIN].connection
    assert connection is not None
    with connection._operation():
        time.now += IDLE_S + 1
        await connections.backend(LOGIN._replace(owner="bob"), JobType.BATCH)
        assert LOGIN in connections._opened


async def test_hosts_outside_the_allow_list_are_not_talked_to(connections: SystemConnections):
    with pytest.raises(CredentialRefused, match="outside the addresses that BERTH_PROBE_ALLOW names"):
        await connections.probe(ProbeAsk(host="127.0.0.1", credential=CREDENTIAL))
    with pytest.raises(CredentialRefused, match="BERTH_PROBE_ALLOW"):
        await connections.verify(replace(CLUSTER, host="127.0.0.1"), CREDENTIAL)


async def test_a_kubernetes_has_one_backend_for_all_runs_and_no_files(connections: SystemConnections, world: World):
    notes = {"berth": {"backend": "k8s", "pods": True, "k8s": {"namespace": "lab"}}}
    system = replace(CLUSTER, id="kube", uuid="kube", host="192.0.2.7", notes=notes)
    login = system.login_of("ann")
    async with world.database.transaction() as db:
        await SystemStore(db).add(system)
    with pytest.raises(NotAuthorised, match="register one"):
        await connections.backend(login, JobType.BATCH)
    await stored(world, replace(CREDENTIAL, system_id="kube", user=login.owner, password="token"))
    backend = await connections.backend(login, JobType.BATCH)
    assert backend.capabilities.pods
    assert await connections.backend(login, JobType.FORK) is backend
    assert await connections.pod_host(login) is await connections.pod_host(login)
    with pytest.raises(BackendUnavailable, match="files"):
        await connections.storage(login)


async def test_a_root_directory_that_comes_to_hold_berths_home_is_not_opened(
    connections: SystemConnections, world: World, time: Time, tmp_path: Path
):
    work = tmp_path / "work"
    work.mkdir()
    notes = {"berth": {"backend": "local", "runAs": "nobody" if os.geteuid() == 0 else ""}}
    async with world.database.transaction() as db:
        system = replace(await SystemStore(db).get("dev", "cluster"), root_dir=str(work), notes=notes)
        await SystemStore(db).replace(system)
    assert await connections.backend(LOGIN, JobType.FORK)
    work.rmdir()
    work.symlink_to(tmp_path)
    for ask in (connections.storage(LOGIN), connections.pod_host(LOGIN), connections.backend(LOGIN, JobType.FORK)):
        time.now += REREAD_S
        with pytest.raises(NotAuthorised, match="for Berth alone"):
            await ask
