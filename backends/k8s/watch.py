"""The objects of one kind as the API server shows them: one list, then a watch, and a list again whenever in doubt."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from backends.k8s.api import Event, HistoryGone, Listed, Object
from scheduler.model.errors import NothingLearnt, UnexpectedReply

log = logging.getLogger(__name__)

WATCH_S = 60
"""How long one watch goes on before the next goes on from where it ended; it bounds how long a dead one is believed."""

RELIST_S = 15 * 60.0
"""After this long everything is listed again, for whatever a watch may have missed."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class Lister(Protocol):
    """What a reflection needs of an API server."""

    async def list(self, kind: Any, labels: Mapping[str, str]) -> Listed: ...

    def watch(self, kind: Any, labels: str, version: str, timeout_s: int) -> AsyncIterator[Event]: ...


class Reflection:
    """Objects by name, as a list and the events after it tell of them. Pure: it asks nobody."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.version: str | None = None
        """From where a watch may go on; None: a list is needed first."""

    def take(self, listed: Listed) -> None:
        """Everything that there is, in place of what was known."""
        self.objects = {item["metadata"]["name"]: _lean(item) for item in listed.items}
        self.version = listed.version

    def apply(self, event: Event) -> None:
        """One thing that happened. UnexpectedReply for a word that no watch has spoken so far."""
        about = event.object.get("metadata", {})
        match event.kind:
            case "ADDED" | "MODIFIED":
                self.objects[about["name"]] = _lean(event.object)
            case "DELETED":
                self.objects.pop(about["name"], None)
            case "BOOKMARK":
                pass
            case word:
                raise UnexpectedReply("an event of a watch was not understood", word)
        self.version = about["resourceVersion"]

    def forget(self) -> None:
        """The history is gone, or cannot be trusted; what is known stays until the next list."""
        self.version = None


def _lean(item: Object) -> Object:
    """Without what says who wrote which field: two fifths of a Job or a pod, and nothing to us."""
    item["metadata"].pop("managedFields", None)
    return item


class Reflector:
    """Keeps a reflection true in a task of its own, from ``start`` to ``aclose``."""

    def __init__(
        self,
        api: Lister,
        kind: Any,
        labels: Mapping[str, str],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self._api, self._kind, self._labels = api, kind, dict(labels)
        self._monotonic, self._sleep = monotonic, sleep
        self._seen = Reflection()
        self._listed_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self.is_live = False
        """Whether a watch is open now, so that what is known is what there is, but for the moments of its way here."""

    @property
    def objects(self) -> Mapping[str, Object]:
        return self._seen.objects

    @property
    def version(self) -> str | None:
        """Of what is known; another one after whatever happened."""
        return self._seen.version

    def start(self) -> None:
        """Begin, unless it goes on already."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.is_live = False

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self.follow_once()
                failures = 0
            except NothingLearnt as error:
                failures = 0 if isinstance(error, HistoryGone) and not failures else failures + 1
                log.info("a watch of Kubernetes objects ended: %s", error)
                await self._sleep(pause_s(failures))
            finally:
                self.is_live = False

    async def follow_once(self) -> None:
        """List if that is due, then watch until the server ends it. Whatever goes wrong makes a list due."""
        seen = self._seen
        try:
            if seen.version is None or self._monotonic() - self._listed_at >= RELIST_S:
                seen.take(await self._api.list(self._kind, self._labels))
                self._listed_at = self._monotonic()
            assert seen.version is not None
            selector = ",".join(f"{key}={value}" for key, value in self._labels.items())
            self.is_live = True
            async for event in self._api.watch(self._kind, selector, seen.version, WATCH_S):
                seen.apply(event)
        except NothingLearnt:
            seen.forget()
            raise
        finally:
            self.is_live = False


def pause_s(failures: int, draw: Callable[[], float] = random.random) -> float:
    """How long to wait after so many failures in a row: twice as long each time, and never all at the same moment."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * float(1 << min(failures, 10)))
    return longest * (0.5 + draw() / 2)
