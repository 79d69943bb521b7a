"""Kubernetes with a real node: logs and exit codes of runs, and the contract of PodHost."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from backends.base import Backend, PodHost
from backends.k8s.api import Api
from backends.k8s.backend import KubernetesBackend
from backends.k8s.pods import KubernetesPodHost
from backends.k8s.sight import Sight
from backends.k8s.site import Access
from scheduler.model.errors import BackendUnavailable, PortClosed, SubmitError
from scheduler.model.ids import Marker, RemoteId
from scheduler.model.runs import Ending, RemoteState, Resources, SubmitIntent
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from tests.contract import test_pod_host
from tests.contract.subjects import INTENDED_AT, eventually, run_spec
from tests.contract.test_pod_host import *  # noqa: F403 - the contract, on another subject
from tests.contract.test_pod_host import line, rest, said, started
from tests.testbed.k8s_subject import Link, kubernetes, let_all_go
from tests.testbed.kubernetes import own_namespace

pytestmark = pytest.mark.testbed

# A pod has a network card of its own here, no door of Berth's, and as a user no low port before Kubernetes 1.22.
del test_a_command_inside_sees_the_pods_own_network  # noqa: F821
del test_another_user_of_the_node_reaches_neither_a_port_nor_the_door  # noqa: F821
del test_a_pod_may_listen_on_a_low_port  # noqa: F821
# containerd tells no pod that its client has ended one way; a second later it ends the connection.
del test_the_end_of_one_way_leaves_the_other_open  # noqa: F821
del test_a_mebibyte_goes_each_way_unchanged  # noqa: F821
del test_many_connections_at_once_do_not_mix  # noqa: F821
# What a container wrote goes when its pod is deleted.
del test_a_cancelled_pod_is_asked_first_and_reached_no_more  # noqa: F821

PORTS = (7001, 7002)
ANSWER = 'echo "pod $1 port $2"; cat; printf END'
SERVE = f"""
trap 'echo asked to end; exit 0' TERM
printf '%s\\n' '#!/bin/sh' 'set -- "$MARK" "$PORT"' '{ANSWER}' > /TapisExec/answer
chmod +x /TapisExec/answer
for port in {" ".join(map(str, PORTS))}; do PORT=$port nc -ll -p $port -e /TapisExec/answer & done
echo ready
while :; do sleep 0.2; done
"""


@dataclass
class Place:
    """A namespace of a cluster with a real node."""

    plane: ControlPlane
    namespace: str
    image: str
    backend: Backend
    host: PodHost
    link: Link
    link_port: int

    def run(self, marker: Marker, *args: str, **changes: Any) -> SubmitIntent:
        run = run_spec("/work", marker, image=f"docker://{self.image}", args=args, use_entrypoint=False, **changes)
        return SubmitIntent(marker, run, INTENDED_AT)

    def pod(self, marker: Marker) -> SubmitIntent:
        return self.run(marker, "sh", "-c", SERVE, ports=PORTS, env={"MARK": marker[-6:]})

    def reopened(self) -> tuple[Backend, PodHost]:
        return self.backend, self._host(self.plane.url)

    def log_path(self, marker: Marker) -> str:
        return f"/work/jobs/{marker}/output/tapisjob.out"

    def cut(self) -> None:
        self.link.cut()

    def heal(self) -> None:
        self.link.is_cut = False

    def cut_host(self) -> PodHost:
        return self._host(f"https://127.0.0.1:{self.link_port}")

    def _host(self, server: str) -> PodHost:
        access = Access(server, self.plane.token(), self.plane.ca.read_text())
        return KubernetesPodHost(Api(access, self.namespace), access)


@pytest.fixture
def admin(real_node_cluster: ControlPlane) -> Iterator[httpx.Client]:
    with client(real_node_cluster) as api:
        yield api


@pytest.fixture
def namespace(real_node_cluster: ControlPlane, admin: httpx.Client) -> Iterator[str]:
    with own_namespace(real_node_cluster, admin) as name:
        yield name


@pytest_asyncio.fixture
async def subject(
    real_node_cluster: ControlPlane, admin: httpx.Client, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    monkeypatch.setattr(test_pod_host, "LOW", PORTS[1])
    plane = real_node_cluster
    access = Access(plane.url, plane.token(), plane.ca.read_text())
    sight = Sight(Api(access, namespace))
    backend = KubernetesBackend(kubernetes(plane, namespace), Api(access, namespace), sight=sight)
    host = KubernetesPodHost(Api(access, namespace), access, sight=sight)
    link = Link(plane.spec.ports["kube-apiserver"])
    async with link.up() as port:
        try:
            yield Place(plane, namespace, f"{Node(plane).registry}/demo/busybox:1", backend, host, link, port)
        finally:
            await backend.aclose()
            await host.aclose()
            let_all_go(admin, namespace)


async def ended(subject: Place, intent: SubmitIntent):
    """The id of a run and how it ended."""
    remote_id = (await subject.backend.submit([intent]))[intent.marker]
    assert not isinstance(remote_id, SubmitError), remote_id
    seen = {}

    async def has_ended() -> bool:
        seen.update(await subject.backend.observe({remote_id: intent.marker}))
        return seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, f"{intent.marker} ends", timeout_s=60)
    return remote_id, seen[remote_id]


async def log_of(subject: Place, remote_id: RemoteId, marker: Marker) -> bytes:
    return (await subject.backend.read_log(remote_id, subject.log_path(marker), 0)).data


async def test_what_was_sent_before_the_end_of_one_way_comes_back_and_then_the_end(subject, marker):
    remote_id = await started(subject, marker)
    channel = await subject.host.connect(remote_id, marker, PORTS[0])
    await line(channel)
    await channel.write(b"last words")
    await channel.end()
    assert (await rest(channel)).removesuffix(b"END") == b"last words"
    await channel.aclose()


async def test_a_mebibyte_goes_each_way_and_comes_back_whole(subject, marker):
    remote_id = await started(subject, marker)
    channel = await subject.host.connect(remote_id, marker, PORTS[0])
    await line(channel)
    content = os.urandom(2**20)
    sending = asyncio.create_task(channel.write(content))
    assert await said(channel, len(content)) == content
    await sending
    await channel.aclose()


async def test_connections_at_the_same_time_are_not_mixed(subject, marker):
    remote_id = await started(subject, marker)

    async def speak(number: int) -> bytes:
        channel = await subject.host.connect(remote_id, marker, PORTS[0])
        await line(channel)
        await channel.write(b"%04d" % number)
        heard = await said(channel, 4)
        await channel.aclose()
        return heard

    few = range(4)  # the server of this pod, busybox's nc, resets some when many come at once
    assert await asyncio.gather(*(speak(number) for number in few)) == [b"%04d" % number for number in few]


async def test_a_cancelled_pod_ends_and_is_reached_no_more(subject, marker):
    remote_id = await started(subject, marker)
    open_before = await subject.host.connect(remote_id, marker, PORTS[0])
    await line(open_before)
    assert await log_of(subject, remote_id, marker) == b"ready\n"
    assert await subject.backend.cancel(remote_id, marker) is True

    async def has_ended() -> bool:
        seen = await subject.backend.observe({remote_id: marker})
        return seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, "the pod ends", timeout_s=60)
    with pytest.raises(PortClosed):
        await subject.host.connect(remote_id, marker, PORTS[0])
    with pytest.raises(BackendUnavailable):
        await subject.host.execute(remote_id, marker, ["true"], timeout_s=5)
    with contextlib.suppress(ConnectionError):  # as good an end
        assert await open_before.read(1) == b""
    await open_before.aclose()
    assert await log_of(subject, remote_id, marker) == b""


async def test_a_run_ends_with_its_own_code_and_its_log_is_read(subject, marker):
    intent = subject.run(marker, "sh", "-c", 'echo "$WORD"; id -u; pwd; exit 7', env={"WORD": "$(HOME) ü"})
    remote_id, seen = await ended(subject, intent)
    assert (seen.ending, seen.exit_code) == (Ending.FAILED, 7)
    assert (await log_of(subject, remote_id, marker)).decode() == "$(HOME) ü\n1000\n/TapisExec\n"


async def test_a_walltime_that_is_over_ends_the_run(subject, marker):
    resources = Resources(memory_mib=64, walltime_s=3)
    _, seen = await ended(subject, subject.run(marker, "sh", "-c", "sleep 300", resources=resources))
    assert seen.ending is Ending.TIMEOUT


async def test_an_image_that_is_not_there_keeps_the_run_waiting_and_says_so(subject, marker):
    intent = subject.run(marker, "true")
    registry = subject.image.partition("/")[0]
    intent = replace(intent, run=replace(intent.run, image=f"docker://{registry}/no/such:1"))
    remote_id = (await subject.backend.submit([intent]))[marker]

    async def says_so() -> bool:
        seen = (await subject.backend.observe({remote_id: marker}))[remote_id]
        return seen.state is RemoteState.QUEUED and seen.reason_words == "its image cannot be pulled"

    await eventually(says_so, "the run says that its image cannot be pulled", timeout_s=60)
    looked = (await subject.host.look({remote_id: marker}))[remote_id]
    assert "its image cannot be pulled" in looked.waits_for
    await subject.backend.cancel(remote_id, marker)
