"""One loop sleeps, wakes and survives; nothing else does."""

import asyncio

import pytest

from scheduler.reconcile.loop import Bell, Crew, run_every


async def test_a_ring_wakes_every_loop_before_its_interval():
    bell, stop = Bell(), asyncio.Event()
    ticks: asyncio.Queue[str] = asyncio.Queue()

    async def tick() -> None:
        ticks.put_nowait("tick")

    loops = [asyncio.create_task(run_every(3600, bell.listen(), tick, stop)) for _ in range(2)]
    async with asyncio.timeout(5):
        await ticks.get(), await ticks.get()
        bell.ring()
        await ticks.get(), await ticks.get()
        stop.set()
        await asyncio.gather(*loops)
    assert ticks.empty()


async def test_a_ring_during_a_tick_is_not_lost():
    wake, stop, ticks = asyncio.Event(), asyncio.Event(), []

    async def tick() -> None:
        ticks.append(1)
        if len(ticks) == 1:
            wake.set()
        else:
            stop.set()

    async with asyncio.timeout(5):
        await run_every(3600, wake, tick, stop)
    assert len(ticks) == 2


async def test_a_tick_that_raises_is_followed_by_the_next():
    wake, stop, ticks = asyncio.Event(), asyncio.Event(), []

    async def tick() -> None:
        ticks.append(1)
        if len(ticks) == 2:
            stop.set()
        raise RuntimeError("boom")

    async with asyncio.timeout(5):
        await run_every(0.001, wake, tick, stop)
    assert len(ticks) == 2


async def test_a_crew_runs_one_piece_per_key_and_survives_its_failure():
    crew = Crew(2)
    gate = asyncio.Event()

    async def fail() -> None:
        await gate.wait()
        raise RuntimeError("boom")

    crew.start("a", fail())
    assert "a" in crew
    assert crew.free == 1
    gate.set()
    await crew.settle()
    assert "a" not in crew
    assert crew.free == 2


async def test_closing_a_crew_cancels_what_runs():
    crew = Crew(1)
    cancelled = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    crew.start("a", forever())
    await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await crew.settle()
    await crew.aclose()
    assert cancelled == [True]
