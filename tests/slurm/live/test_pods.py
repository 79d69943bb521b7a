"""Pods on a real cluster: containers of Apptainer on compute nodes, reached through the login node's sshd."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from backends.slurm.pods import SlurmPodHost
from backends.ssh.connection import ForwardingClosed
from scheduler.model.errors import NothingLearnt, PortClosed
from scheduler.model.ids import RemoteId
from scheduler.model.runs import Ending, RemoteState, Resources, Runtime, SchedulerOption, SubmitIntent
from tests.contract.subjects import eventually
from tests.contract.test_pod_host import KNOCK, REACH_DOOR, REACH_PORTS, rest
from tests.slurm.live.conftest import Login

pytestmark = pytest.mark.testbed

PORT = 80
SERVE = (
    'trap "echo asked; exit 0" TERM; mkdir /srv; hostname > /srv/name; httpd -p 127.0.0.1:80 -h /srv; '
    "while :; do sleep 0.2; done"
)


class Pods:
    """Alice's pods on a cluster."""

    def __init__(self, login: Login) -> None:
        self.login, self.cluster = login, login.cluster
        self.system = replace(login.system, notes={"berth": {"pods": True}})
        self.host = SlurmPodHost(self.system, "alice", login.connection)
        self._made: list[SubmitIntent] = []

    def pod(self, node: str = "", **changes) -> SubmitIntent:
        image = self.login.info["demo_image"]["from_nodes"]
        made = self.login.intent(
            *("sh", "-c", SERVE),
            image=image,
            runtime=Runtime.SINGULARITY,
            use_entrypoint=False,
            env={"COLOUR": "green"},
            plain_http_registry=True,
            ports=(PORT,),
            resources=Resources(walltime_s=1800),
            **changes,
        )
        self._made.append(made)
        return made

    def end_all(self) -> None:
        """Other tests have jobs of alice's on the same cluster, which go on."""
        names = ",".join(intent.marker for intent in self._made)
        self.cluster.sh("login", f"scancel --user=alice --name={names}")

    async def started(self, intent: SubmitIntent) -> RemoteId:
        remote_id = await self.login.submit(intent)
        await self.answers(remote_id, intent)
        return remote_id

    async def answers(self, remote_id: RemoteId, intent: SubmitIntent) -> None:
        async def it_does() -> bool:
            seen = await self.login.backend.observe({remote_id: intent.marker})
            if remote_id in seen and seen[remote_id].state is RemoteState.ENDED:
                raise AssertionError(await self.login.log(intent, "tapisjob.err"))
            try:
                return bool(await self.name(remote_id, intent))
            except (PortClosed, NothingLearnt):
                return False

        await eventually(it_does, "the pod answers", timeout_s=120)

    async def name(self, remote_id: RemoteId, intent: SubmitIntent) -> str:
        """What its web server says: the name of its node."""
        channel = await self.host.connect(remote_id, intent.marker, PORT)
        await channel.write(b"GET /name HTTP/1.0\r\n\r\n")
        said = await rest(channel)
        await channel.aclose()
        return said.decode().rpartition("\r\n\r\n")[2].strip()

    def door_of(self, intent: SubmitIntent) -> dict:
        return json.loads(self.cluster.sh("login", f"cat /home/alice/live/.berth/markers/{intent.marker}/door"))

    def as_bob(self, node: str, program: str, *args: str) -> str:
        words = " ".join(f"'{word}'" for word in args)
        return self.cluster.sh(node, f"python3 -I - {words} <<'END'\n{program}\nEND\n", user="bob").strip()


@pytest_asyncio.fixture
async def pods(login: Login) -> AsyncIterator[Pods]:
    pods = Pods(login)
    yield pods
    pods.end_all()


async def test_a_container_on_a_node_answers_and_runs_commands(pods):
    intent = pods.pod()
    remote_id = await pods.started(intent)
    seen = (await pods.host.look({remote_id: intent.marker}))[remote_id]
    assert await pods.name(remote_id, intent) == seen.node
    assert seen.node.startswith("n")
    argv = ["sh", "-c", "echo $COLOUR; cat /srv/name; id -un 2>&1; ls -d /home/alice/live; echo $$; exit 4"]
    done = await pods.host.execute(remote_id, intent.marker, argv, timeout_s=30)
    assert done.exit_code == 4, done
    colour, node, *_, pid = done.stdout.decode().split("\n")[:-1]
    assert (colour, node) == ("green", seen.node)
    assert int(pid) < 1000, "it is in the container's own process namespace"
    assert b"No such file" in done.stderr, "the home directory is not the pod's to see"
    with pytest.raises(PortClosed):
        await pods.host.connect(remote_id, intent.marker, 22)


async def test_two_pods_of_one_node_have_the_same_port_and_nobody_else_reaches_them(pods):
    intents = [pods.pod(scheduler_options=(SchedulerOption("--nodelist", "n2"),)) for _ in range(2)]
    ids = await asyncio.gather(*(pods.started(intent) for intent in intents))
    assert [await pods.name(*one) for one in zip(ids, intents, strict=True)] == ["n2", "n2"]
    assert pods.as_bob("n2", REACH_PORTS, str(PORT)) == "tried"
    for intent in intents:
        door = pods.door_of(intent)
        assert pods.as_bob("n2", REACH_DOOR, door["socket"]) == "not permitted"
        host, port = door["tcp"][0]
        for node in ("n2", "n3", "login"):
            assert pods.as_bob(node, KNOCK, host, str(port)) == "b'BERTH-DOOR 1' b''"


async def test_a_cancelled_pod_is_asked_and_leaves_nothing_on_its_node(pods):
    intent = pods.pod()
    remote_id = await pods.started(intent)
    node = (await pods.host.look({remote_id: intent.marker}))[remote_id].node
    door = pods.door_of(intent)
    await pods.login.backend.cancel(remote_id, intent.marker)
    seen = await pods.login.until(remote_id, intent.marker, RemoteState.ENDED)

    async def was_asked() -> bool:
        return (await pods.login.log(intent)).endswith("asked\n")

    await eventually(was_asked, "the pod may put its things in order")
    assert seen.ending is Ending.CANCELLED

    left: list[str] = []

    async def is_clean() -> bool:
        find = f"pgrep -af '[b]{intent.marker[1:]}'; ls -d {door['socket']} 2> /dev/null"
        left.append(pods.cluster.sh(node, find, check=False).strip())
        return not left[-1]

    await eventually(is_clean, "nothing of the pod is left on its node", timeout_s=60)
    with pytest.raises((PortClosed, NothingLearnt)):
        await pods.host.connect(remote_id, intent.marker, PORT)


async def test_a_pod_that_was_put_back_in_the_queue_is_found_where_it_runs_then(pods):
    intent = pods.pod(scheduler_options=(SchedulerOption("--requeue"),))
    remote_id = await pods.started(intent)
    before = pods.door_of(intent)["secret"]
    pods.cluster.sh("login", f"scontrol requeue {remote_id} && scontrol release {remote_id}", check=False)

    async def has_another_door() -> bool:
        try:
            return pods.door_of(intent)["secret"] != before
        except Exception:
            return False

    await eventually(has_another_door, "it runs again", timeout_s=180)
    await pods.answers(remote_id, intent)


async def test_more_connections_than_sessions_are_carried_at_once_and_a_lost_link_comes_back(pods):
    intent = pods.pod()
    remote_id = await pods.started(intent)
    channels = [await pods.host.connect(remote_id, intent.marker, PORT) for _ in range(50)]
    for channel in channels[1:]:
        await channel.write(b"GET /name HTTP/1.0\r\n\r\n")
    assert all(await asyncio.gather(*map(rest, channels[1:])))
    pods.login.connection._connection.abort()
    with pytest.raises(ConnectionError):
        await channels[0].read(1)
    for channel in channels:
        await channel.aclose()
    assert await pods.name(remote_id, intent)


async def test_a_login_that_may_forward_nothing_reaches_its_pods_all_the_same(pods):
    intent = pods.pod()
    remote_id = await pods.started(intent)
    keys = "/home/alice/.ssh/authorized_keys"
    pods.cluster.sh("login", f"sed -i 's/^/no-port-forwarding /' {keys}")
    restricted = Login(pods.cluster)
    host = SlurmPodHost(pods.system, "alice", restricted.connection)
    try:
        with pytest.raises(ForwardingClosed):
            await restricted.connection.open_stream("n1", 22)
        channels = [await host.connect(remote_id, intent.marker, PORT) for _ in range(20)]
        for channel in channels:
            await channel.write(b"GET /name HTTP/1.0\r\n\r\n")
        assert all(said.endswith(b"\n") for said in await asyncio.gather(*map(rest, channels)))
        for channel in channels:
            await channel.aclose()
    finally:
        pods.cluster.sh("login", f"sed -i 's/^no-port-forwarding //' {keys}")
        await host.aclose()
        await restricted.connection.aclose()
