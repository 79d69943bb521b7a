"""Submissions per second are bounded, and many asks at a time are few calls."""

import asyncio

import pytest

from backends.slurm.pacing import Gathering, TokenBucket


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_a_bucket_lets_one_seconds_worth_through_and_then_keeps_its_rate():
    clock = Clock()
    bucket = TokenBucket(10, clock, clock.sleep)
    for _ in range(10):
        await bucket.take(1)
    assert clock.now == 100.0
    for _ in range(20):
        await bucket.take(1)
    assert clock.now == pytest.approx(102.0)


async def test_an_idle_bucket_saves_no_more_than_a_second():
    clock = Clock()
    bucket = TokenBucket(10, clock, clock.sleep)
    clock.now += 1000
    await bucket.take(30)
    assert clock.now == pytest.approx(1102.0)


async def test_no_bound_never_waits():
    clock = Clock()
    await TokenBucket(None, clock, clock.sleep).take(10**6)
    assert clock.now == 100.0


async def test_asks_at_the_same_time_go_in_few_calls_and_keep_their_answers():
    calls: list[int] = []

    async def double(asks):
        calls.append(len(asks))
        await asyncio.sleep(0)
        return [2 * ask for ask in asks]

    gathering = Gathering(double, most=4, calls_at_once=1)
    assert await asyncio.gather(*(gathering.ask(n) for n in range(10))) == [2 * n for n in range(10)]
    assert calls == [4, 4, 2]


async def test_an_error_reaches_everyone_who_asked_and_the_next_call_is_made():
    async def fail_on_one(asks):
        if 1 in asks:
            raise ValueError("no")
        return asks

    gathering = Gathering(fail_on_one, most=2, calls_at_once=1)
    answers = await asyncio.gather(*(gathering.ask(n) for n in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ValueError, ValueError, int, int]


async def test_who_stops_waiting_stops_nobody_else():
    gate = asyncio.Event()

    async def slow(asks):
        await gate.wait()
        return asks

    gathering = Gathering(slow, most=9, calls_at_once=1)
    first, second = (asyncio.create_task(gathering.ask(n)) for n in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == 2
