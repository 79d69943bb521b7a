"""Looks at the store that callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pytest

from scheduler.store.together import Together


class Counting:
    """A look that takes until it is let go, and keeps what each one was asked."""

    def __init__(self) -> None:
        self.looks: list[set[str]] = []
        self.go = asyncio.Event()

    async def look(self, asked: Collection[str]) -> Mapping[str, int]:
        self.looks.append(set(asked))
        number = len(self.looks)
        await self.go.wait()
        if "bad" in asked:
            raise LookupError("no store")
        return dict.fromkeys(asked, number)


async def _begun() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_asks_during_a_look_gets_the_next_one():
    counting = Counting()
    together = Together(counting.look)
    first = asyncio.create_task(together.ask("a"))
    await _begun()
    others = [asyncio.create_task(together.ask(each)) for each in ("a", "b", "a")]
    await _begun()
    counting.go.set()
    assert await asyncio.gather(first, *others) == [1, 2, 2, 2]
    assert counting.looks == [{"a"}, {"a", "b"}]


async def test_what_a_look_raises_reaches_all_who_share_it_and_no_one_after():
    counting = Counting()
    counting.go.set()
    together = Together(counting.look)
    refused = await asyncio.gather(together.ask("bad"), together.ask("b"), return_exceptions=True)
    assert [type(each) for each in refused] == [LookupError, LookupError]
    assert await together.ask("b") == 2


async def test_a_caller_that_leaves_takes_no_answer_from_the_others():
    counting = Counting()
    together = Together(counting.look)
    leaving, staying = (asyncio.create_task(together.ask("a")) for _ in range(2))
    await _begun()
    leaving.cancel()
    counting.go.set()
    assert await staying == 1
    with pytest.raises(asyncio.CancelledError):
        await leaving
