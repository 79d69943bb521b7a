"""What a host of pods asks of the system when many want to reach one pod at once."""

import asyncio
import json
import socket
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backends.base import Channel
from backends.pods import talk
from backends.pods.facts import DoorFacts
from backends.pods.host import DoorHost
from backends.pods.sockets import OpenSocket
from scheduler.model.errors import BackendUnavailable, PortClosed
from scheduler.model.ids import Marker, RemoteId

MARKER = Marker("berth-507400d9-12fe-4bb8-a41c-6d2e7f47f833-007-1")
ENDED = {MARKER: {"begun": True, "door": None, "refused": None, "ended": 0}}
CROWD = 300


class Completed(NamedTuple):
    """A command that ended."""

    exit_status: int
    stdout: bytes
    stderr: bytes = b""


GONE = Completed(0, b"\2" + json.dumps(ENDED).encode())


class SlowSystem:
    """Answers once it is let to, and counts how often it was asked."""

    def __init__(self, answer: Completed) -> None:
        self.answer, self.asked, self.may_answer = answer, 0, asyncio.Event()

    async def run(self, argv: Sequence[str], stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
        self.asked += 1
        await self.may_answer.wait()
        return self.answer


async def nobody(door: DoorFacts) -> Channel:
    raise ConnectionRefusedError("nobody listens")


def crowd(system: SlowSystem) -> tuple[DoorHost, list[asyncio.Task[Channel]]]:
    host = DoorHost(system, "/markers", nobody)
    return host, [asyncio.create_task(host.connect(RemoteId("1"), MARKER, 80)) for _ in range(CROWD)]


async def test_a_crowd_that_wants_one_pod_costs_its_system_one_question():
    system = SlowSystem(GONE)
    host, waiting = crowd(system)
    await asyncio.sleep(0)
    system.may_answer.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in found} == {PortClosed}
    assert system.asked == 1
    with pytest.raises(PortClosed):
        await host.connect(RemoteId("1"), MARKER, 80)
    assert system.asked == 2, "an old answer is not given to who comes later"


async def test_one_who_leaves_takes_the_answer_from_nobody():
    system = SlowSystem(GONE)
    _, waiting = crowd(system)
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    system.may_answer.set()
    left, *stayed = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(left, asyncio.CancelledError)
    assert {type(one) for one in stayed} == {PortClosed}


async def test_a_question_without_an_answer_fails_for_all_who_waited():
    system = SlowSystem(Completed(-9, b""))
    _, waiting = crowd(system)
    system.may_answer.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(one) for one in found} == {BackendUnavailable}
    assert system.asked == 1


# -- connections that a door of this machine hands over ----------------------------------------------------------------


async def asked(answer: bytes, *files: int) -> tuple[OpenSocket, socket.socket]:
    """Berth's way to a door that has answered, and the door's end of it."""
    ours, theirs = socket.socketpair()
    socket.send_fds(theirs, [answer], files)
    return OpenSocket(ours), theirs


async def test_a_connection_that_is_handed_over_is_the_port_and_the_way_to_the_door_ends():
    with socket.create_server(("127.0.0.1", 0)) as pod, socket.create_connection(pod.getsockname()) as inside:
        way, door = await asked(talk.YES, inside.fileno())
        channel = await talk.connected(way, 80)
        served = pod.accept()[0]
        with served, door:
            await channel.write(b"hello")
            assert served.recv(5) == b"hello"
            served.sendall(b"yes")
            assert await channel.read(10) == b"yes"
            assert door.recv(1) == b""
        await channel.aclose()


async def test_a_door_that_hands_over_nothing_carries_as_before():
    way, door = await asked(talk.YES)
    with door:
        channel = await talk.connected(way, 80)
        await channel.write(b"hello")
        assert door.recv(5) == b"hello"
        await channel.aclose()


@pytest.mark.parametrize(
    "made",
    [
        tempfile.TemporaryFile,
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda: socket.socket(type=socket.SOCK_DGRAM),
        lambda: socket.socket(socket.AF_UNIX),
    ],
    ids=["a file", "a listener", "datagrams", "a socket of the machine"],
)
async def test_what_is_handed_over_and_no_connection_is_refused_and_closed(made: Callable[[], Any]):
    before = open_files()
    with made() as handed:
        way, door = await asked(talk.YES, handed.fileno())
        with pytest.raises(ConnectionError):
            await talk.connected(way, 80)
        await way.aclose()
        door.close()
    assert open_files() == before


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_an_account_that_makes_its_connection_wait_does_not_make_us_wait():
    with socket.create_server(("127.0.0.1", 0)) as pod, socket.create_connection(pod.getsockname()) as inside:
        way, door = await asked(talk.YES, inside.fileno())
        channel = await talk.connected(way, 80)
        with door, pod.accept()[0]:
            inside.setblocking(True)  # it is one file, whoever has it
            inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
            inside.close()
            for waiting in (channel.read(1), channel.write(bytes(64 << 20))):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await waiting
            async with asyncio.timeout(5):
                await channel.aclose()
