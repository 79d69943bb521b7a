"""Whose slices go over a link."""

from __future__ import annotations

import asyncio

import pytest

from images.line import Line


async def rounds(count):
    """Let everybody else go on so often: a slice takes 20."""
    for _ in range(count):
        await asyncio.sleep(0)


class Link:
    """Notes whose slices are on it."""

    def __init__(self):
        self.line, self.log = Line(again_s=0.01), ""

    async def send(self, name, *turns):
        """A slice for each turn: as pressing as that."""
        left = list(turns)

        async def pressing(_):
            return left[0]

        async with self.line.place(pressing) as place:
            while left:
                await place.wait(1)
                self.log += name
                await rounds(20)
                left.pop(0)

    async def carry(self, **senders):
        await asyncio.wait_for(asyncio.gather(*(self.send(name, *turns) for name, turns in senders.items())), 10)
        return self.log


CASES = {
    "the most pressing first": ({"c": [1], "a": [9], "b": [5]}, "cba"),
    "who is less pressing pauses, and goes on": ({"a": [1, 9, 9], "b": [5, 5]}, "abbaa"),
    "equals one after another": ({"a": [1, 1, 1], "b": [1, 1, 1]}, "aaabbb"),
}


@pytest.mark.parametrize(("senders", "order"), CASES.values(), ids=CASES)
async def test_slices_go_by_how_pressing_their_images_are(senders, order):
    assert await Link().carry(**senders) == order


async def test_one_that_comes_later_and_is_needed_sooner_goes_first_from_then_on():
    link = Link()
    late = asyncio.create_task(link.send("a", *[1e9] * 20))
    await rounds(50)
    await link.send("b", 1, 1, 1)
    before = link.log.index("b")
    assert before > 0
    assert link.log[before:].startswith("bbb")
    await late
    assert link.log.count("a") == 20


async def test_who_waits_goes_once_its_job_is_to_begin():
    """The turn of the second shrinks while it waits, and nobody else moves."""
    link, soon = Link(), [9.0]
    held = asyncio.Event()

    async def first():
        async def pressing(_):
            return 5.0

        async with link.line.place(pressing) as place:
            await place.wait(1)
            await held.wait()

    async def second():
        async def pressing(_):
            return soon[0]

        async with link.line.place(pressing) as place:
            await place.wait(1)

    tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
    await asyncio.sleep(0.05)
    assert not tasks[1].done()
    soon[0] = 1.0
    await asyncio.wait_for(tasks[1], 10)
    held.set()
    await tasks[0]


@pytest.mark.parametrize("when", ["waits", "sends"])
async def test_who_gives_up_leaves_the_link_to_the_others(when):
    link = Link()
    first = asyncio.create_task(link.send("a", 1, 1, 1))
    await rounds(1)
    second = asyncio.create_task(link.send("b", 2))
    third = asyncio.create_task(link.send("c", 3))
    await rounds(5)
    (second if when == "waits" else first).cancel()
    await asyncio.wait_for(asyncio.gather(first, second, third, return_exceptions=True), 10)
    assert link.log == ("aaac" if when == "waits" else "abc")


async def test_one_whose_need_cannot_be_learnt_holds_nobody_up():
    link = Link()

    async def lost(_):
        raise OSError

    with pytest.raises(OSError):
        async with link.line.place(lost) as place:
            await place.wait(1)
    assert await link.carry(a=[1]) == "a"
