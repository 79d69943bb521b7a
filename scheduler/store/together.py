"""Questions that arrive together are answered by one look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping
from typing import Generic, TypeVar

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class Together(Generic[Question, Answer]):
    """Shares looks at the store among those who ask at the same time.

    An answer always comes from a look that began after the question was asked: while one is under way the questions
    of the next gather, so a lone caller never waits for company. ``look`` answers every question that it is given.
    """

    def __init__(self, look: Callable[[Collection[Question]], Awaitable[Mapping[Question, Answer]]]) -> None:
        self._look = look
        self._waiting: dict[Question, asyncio.Future[Answer]] = {}
        self._looking: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer; whatever the look raises, all who share it are told."""
        answer = self._waiting.get(question)
        if answer is None:
            answer = self._waiting[question] = asyncio.get_running_loop().create_future()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_for_all(), name="looking together")
        return await asyncio.shield(answer)  # one caller that is cancelled takes nothing from the others

    async def _look_for_all(self) -> None:
        while self._waiting:
            asked, self._waiting = self._waiting, {}
            try:
                found = await self._look(asked.keys())
            except Exception as error:  # nothing is hidden: whatever it was, the callers get it
                for answer in asked.values():
                    answer.set_exception(error)
            else:
                for question, answer in asked.items():
                    answer.set_result(found[question])
