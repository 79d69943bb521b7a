"""What a host of pods asks of the system when many want to reach one pod at once."""

import asyncio
import json
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from backends.base import Channel
from backends.pods.facts import DoorFacts
from backends.pods.host import DoorHost
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
