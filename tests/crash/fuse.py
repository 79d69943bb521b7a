"""A process that dies at a chosen moment: before or after any remote call, before or after any commit."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from scheduler.model.ids import LoginKey
from scheduler.model.runs import JobType


class Crash(BaseException):
    """The process is gone. No guard catches it, as no guard catches SIGKILL."""


class Fuse:
    """Counts the moments at which a process may die. It dies at the ``at``-th, and nothing of it works afterwards."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.moments: list[str] = []
        self.blown = False

    def moment(self, name: str) -> None:
        if not self.blown:
            self.moments.append(name)
            self.blown = len(self.moments) == self.at
        if self.blown:
            raise Crash(name)


class FusedConnections:
    """Connections whose backends and storages may die around every call."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    async def backend(self, login: LoginKey, job_type: JobType) -> Any:
        return Fused(await self._inner.backend(login, job_type), self._fuse)

    async def storage(self, login: LoginKey) -> Any:
        return Fused(await self._inner.storage(login), self._fuse)

    async def storage_below(self, login: LoginKey, directory: str) -> Any:
        return Fused(await self._inner.storage_below(login, directory), self._fuse)


class Fused:
    """Any object whose coroutine methods may die before they begin and after they are done."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            self._fuse.moment(f"before {name}")
            answer = await method(*args, **kwargs)
            self._fuse.moment(f"after {name}")
            return answer

        return call


def fused_transactions(
    inner: Callable[[], AbstractAsyncContextManager[Any]], fuse: Fuse
) -> Callable[[], AbstractAsyncContextManager[Any]]:
    """Transactions that may die before they begin, before they commit, and after they did."""

    @asynccontextmanager
    async def transaction() -> AsyncIterator[Any]:
        fuse.moment("before a transaction")
        async with inner() as db:
            yield db
            fuse.moment("before a commit")
        fuse.moment("after a commit")

    return transaction
