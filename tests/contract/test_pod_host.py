"""The contract of PodHost: Berth reaches the ports of an instance and runs commands in it, and nobody else does."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from backends.base import Channel, PodHost
from scheduler.model.errors import BackendUnavailable, NothingLearnt, PortClosed, SubmitError
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import RemoteState
from testbed.pytest_plugin import cannot_run
from tests.contract.pods import POD_HOSTS, PORTS, PodSubject
from tests.contract.subjects import eventually

HIGH, LOW, UNHEARD = PORTS
MIB = 1024 * 1024


@pytest_asyncio.fixture(params=POD_HOSTS)
async def subject(request, tmp_path) -> AsyncIterator[PodSubject]:
    async with POD_HOSTS[request.param](tmp_path) as subject:
        yield subject


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


async def started(subject: PodSubject, marker: Marker) -> RemoteId:
    """The pod, once its ports answer."""
    remote_id = (await subject.backend.submit([subject.pod(marker)]))[marker]
    assert not isinstance(remote_id, SubmitError), remote_id

    async def answers() -> bool:
        seen = await subject.backend.observe({remote_id: marker})
        assert remote_id not in seen or seen[remote_id].state is not RemoteState.ENDED, "the pod ended by itself"
        for port in (HIGH, LOW):
            try:
                await (await subject.host.connect(remote_id, marker, port)).aclose()
            except (PortClosed, NothingLearnt):
                return False
        return True

    await eventually(answers, f"{marker} answers", timeout_s=60)
    return remote_id


async def said(channel: Channel, count: int) -> bytes:
    heard = bytearray()
    while len(heard) < count:
        piece = await channel.read(count - len(heard))
        assert piece, f"it ended after {bytes(heard[-80:])!r}"
        heard += piece
    return bytes(heard)


async def line(channel: Channel) -> bytes:
    heard = b""
    while not heard.endswith(b"\n"):
        heard += await said(channel, 1)
    return heard


async def rest(channel: Channel) -> bytes:
    heard = bytearray()
    while piece := await channel.read(MIB):
        heard += piece
    return bytes(heard)


async def test_a_port_of_a_pod_answers_and_echoes(subject, marker):
    remote_id = await started(subject, marker)
    channel = await subject.host.connect(remote_id, marker, HIGH)
    assert await line(channel) == b"pod %s port 7001\n" % marker[-6:].encode()
    await channel.write(b"hello")
    assert await said(channel, 5) == b"hello"
    await channel.aclose()


async def test_a_pod_may_listen_on_a_low_port(subject, marker):
    remote_id = await started(subject, marker)
    channel = await subject.host.connect(remote_id, marker, LOW)
    assert (await line(channel)).endswith(b"port 80\n")
    await channel.aclose()


async def test_what_nobody_listens_to_is_closed(subject, marker):
    remote_id = await started(subject, marker)
    with pytest.raises(PortClosed):
        await subject.host.connect(remote_id, marker, UNHEARD)
    with pytest.raises(PortClosed):
        await subject.host.connect(remote_id, marker, 22)


async def test_a_pod_that_never_began_is_closed(subject, marker):
    with pytest.raises(PortClosed):
        await subject.host.connect(RemoteId("1"), marker, HIGH)
    assert await subject.host.look({RemoteId("1"): marker}) == {}


async def test_two_pods_have_one_port_number_each_for_itself(subject, marker):
    other = marker_for(new_job_uuid(), 2)
    ids = await asyncio.gather(started(subject, marker), started(subject, other))
    for remote_id, one in zip(ids, (marker, other), strict=True):
        channel = await subject.host.connect(remote_id, one, HIGH)
        assert one[-6:].encode() in await line(channel)
        await channel.aclose()


async def test_the_end_of_one_way_leaves_the_other_open(subject, marker):
    remote_id = await started(subject, marker)
    channel = await subject.host.connect(remote_id, marker, HIGH)
    await line(channel)
    await channel.write(b"last words")
    await channel.end()
    assert await rest(channel) == b"last wordsEND"
    await channel.aclose()


async def test_a_mebibyte_goes_each_way_unchanged(subject, marker):
    remote_id = await started(subject, marker)
    channel = await subject.host.connect(remote_id, marker, HIGH)
    await line(channel)
    content = os.urandom(MIB)

    async def send() -> None:
        for start in range(0, MIB, 50_000):
            await channel.write(content[start : start + 50_000])
        await channel.end()

    sending = asyncio.create_task(send())
    assert await rest(channel) == content + b"END"
    await sending
    await channel.aclose()


async def test_many_connections_at_once_do_not_mix(subject, marker):
    remote_id = await started(subject, marker)

    async def speak(number: int) -> bytes:
        channel = await subject.host.connect(remote_id, marker, HIGH)
        await line(channel)
        await channel.write(b"%d" % number)
        await channel.end()
        heard = await rest(channel)
        await channel.aclose()
        return heard

    heard = await asyncio.gather(*(speak(number) for number in range(40)))
    assert heard == [b"%dEND" % number for number in range(40)]


async def test_a_command_inside_answers_with_its_code_and_both_outputs(subject, marker):
    remote_id = await started(subject, marker)
    argv = ["sh", "-c", "cat; echo wrong >&2; exit 3"]
    done = await subject.host.execute(remote_id, marker, argv, stdin=b"given\n", timeout_s=20)
    assert (done.exit_code, done.stdout, done.stderr) == (3, b"given\n", b"wrong\n")


async def test_a_command_inside_gets_all_of_a_large_file(subject, marker):
    remote_id = await started(subject, marker)
    content = bytes(20 * 1024 * 1024)
    done = await subject.host.execute(remote_id, marker, ["wc", "-c"], stdin=content, timeout_s=60)
    assert (done.exit_code, done.stdout.strip()) == (0, b"%d" % len(content))


async def test_a_command_inside_sees_the_pods_own_network(subject, marker):
    remote_id = await started(subject, marker)
    argv = ["cat", "/proc/net/dev", "/proc/self/net/tcp"]
    done = await subject.host.execute(remote_id, marker, argv, timeout_s=20)
    assert done.exit_code == 0
    assert b":1B59 " in done.stdout  # port 7001
    assert b"eth" not in done.stdout


async def test_words_of_a_command_are_not_read_by_any_shell(subject, marker):
    remote_id = await started(subject, marker)
    argv = ["sh", "-c", 'printf "%s" "$1"', "sh", "$(id) 'x' \"y\" \n é"]
    done = await subject.host.execute(remote_id, marker, argv, timeout_s=20)
    assert done.stdout.decode() == argv[-1]


async def test_a_command_that_takes_too_long_is_ended(subject, marker):
    remote_id = await started(subject, marker)
    begun = time.monotonic()
    argv = ["sh", "-c", "echo begun; sleep 300"]
    done = await subject.host.execute(remote_id, marker, argv, timeout_s=6)
    assert (done.exit_code, done.stdout) == (124, b"begun\n")
    assert time.monotonic() - begun < 60


async def test_a_command_that_is_not_there_says_so(subject, marker):
    remote_id = await started(subject, marker)
    done = await subject.host.execute(remote_id, marker, ["no-such-program"], timeout_s=20)
    assert done.exit_code == 127
    assert b"no-such-program" in done.stderr


async def test_a_look_says_that_it_runs_where_and_that_it_is_ready(subject, marker):
    remote_id = await started(subject, marker)

    async def is_seen() -> bool:
        seen = await subject.host.look({remote_id: marker})
        return seen[remote_id].phase == "Running" and bool(seen[remote_id].node)

    await eventually(is_seen, "the look says that it runs")


async def test_a_cancelled_pod_is_asked_first_and_reached_no_more(subject, marker):
    remote_id = await started(subject, marker)
    open_before = await subject.host.connect(remote_id, marker, HIGH)
    await line(open_before)
    await subject.backend.cancel(remote_id, marker)

    async def has_ended() -> bool:
        seen = await subject.backend.observe({remote_id: marker})
        return remote_id in seen and seen[remote_id].state is RemoteState.ENDED

    await eventually(has_ended, "the pod ends", timeout_s=60)
    with pytest.raises(PortClosed):
        await subject.host.connect(remote_id, marker, HIGH)
    with pytest.raises(BackendUnavailable):
        await subject.host.execute(remote_id, marker, ["true"], timeout_s=5)
    with contextlib.suppress(ConnectionError):  # as good an end
        assert await open_before.read(1) == b""
    await open_before.aclose()
    log = await subject.backend.read_log(remote_id, subject.log_path(marker), 0)
    assert log.data == b"ready\nasked to end\n"


async def test_a_killed_berth_finds_the_pod_again(subject, marker):
    remote_id = await started(subject, marker)
    backend, host = subject.reopened()
    assert await backend.find(marker, subject.pod(marker).intended_at) == remote_id
    channel = await host.connect(remote_id, marker, HIGH)
    await line(channel)
    await channel.aclose()
    assert (await host.look({remote_id: marker}))[remote_id].phase == "Running"


REACH_PORTS = """
import socket, sys
for port in sys.argv[1:]:
    for host in ("127.0.0.1", "::1", socket.gethostname()):
        try:
            with socket.create_connection((host, int(port)), 5) as sock:
                sock.settimeout(2)
                print(port, sock.recv(100))
        except OSError:
            pass
print("tried")
"""

REACH_DOOR = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
    print("connected")
except PermissionError:
    print("not permitted")
"""

KNOCK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as sock:
    sock.settimeout(20)
    greeting = sock.recv(1000)
    sock.sendall(bytes(64) + b"connect 7001\\n")
    answer = b""
    try:
        while piece := sock.recv(1000):
            answer += piece
    except ConnectionError:
        pass
    print(greeting[:12], answer)
"""


async def test_another_user_of_the_node_reaches_neither_a_port_nor_the_door(subject, marker):
    if os.geteuid() != 0:
        cannot_run("only root can try what another user can")
    await started(subject, marker)
    assert subject.as_stranger(REACH_PORTS, str(HIGH), str(LOW)) == "tried"
    door = subject.door_of(marker)
    assert subject.as_stranger(REACH_DOOR, door["socket"]) == "not permitted"
    for host, port in door["tcp"][:1]:
        assert subject.as_stranger(KNOCK, host, str(port)) == "b'BERTH-DOOR 1' b''"


async def test_a_host_that_cannot_be_asked_has_told_nothing(subject, marker):
    remote_id = await started(subject, marker)
    _, host = subject.reopened()
    subject.cut()
    cut: PodHost = subject.cut_host()
    with pytest.raises(NothingLearnt):
        await cut.look({remote_id: marker})
    with pytest.raises(NothingLearnt):
        await cut.connect(remote_id, marker, HIGH)
    subject.heal()
    await (await host.connect(remote_id, marker, HIGH)).aclose()
