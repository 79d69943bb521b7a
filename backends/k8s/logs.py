"""What runs wrote, kept on the volume once they are over: their nodes forget it, and keep only the newest of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence

from backends.base import LOG_CHUNK_BYTES, Storage
from backends.below import Below
from backends.k8s import objects
from backends.k8s.api import Api, Object
from backends.k8s.objects import MAIN
from backends.k8s.states import has_begun, index_of
from scheduler.model.errors import FileMissing, FileRefused, NothingLearnt, SpecInvalid
from scheduler.model.runs import LogChunk

WAIT_S = 3.0
"""How long one look at a run waits until what it wrote is kept; it goes on after that."""

GIVE_UP_S = 120.0
"""After this long of failures the end of a run is told without."""

log = logging.getLogger(__name__)


def log_paths(pod: Object) -> tuple[str, str]:
    """The paths under which the log of a pod is asked for: of its run alone, and of one of an array's tasks."""
    path = str(pod["metadata"].get("annotations", {}).get(objects.STDOUT, ""))
    return path, f"{path}.{index_of(pod)}"


def kept_path(pod: Object) -> str:
    """Where the log of a pod is kept: each task of an array, and each node but the first, has its own."""
    path, numbered = log_paths(pod)
    variables = {each["name"] for each in pod["spec"]["containers"][0].get("env", [])}
    return numbered if objects.TASK_VARIABLE in variables or index_of(pod) else path


class KeptLogs:
    """Copies of logs on a volume (files; None: there is none), each made by a task: nobody waits long for it."""

    def __init__(
        self, api: Api, files: Storage | None, root_dir: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._files, self._root_dir, self._monotonic = api, files, root_dir, monotonic
        self._copying: dict[str, asyncio.Task[None]] = {}
        self._failing_since: dict[str, float] = {}

    async def keep(self, pods: Sequence[Object]) -> bool:
        """Copy what these pods wrote. Whether there is nothing more to do; False: ask again."""
        if self._files is None:
            return True
        newest = {kept_path(pod): pod for pod in sorted(pods, key=_created) if has_begun(pod) and log_paths(pod)[0]}
        for path, pod in newest.items():
            uid = pod["metadata"]["uid"]
            if uid not in self._copying:
                copy = self._copy(self._files, pod, path)
                self._copying[uid] = asyncio.create_task(copy)
        if newest:
            await asyncio.wait([self._copying[pod["metadata"]["uid"]] for pod in newest.values()], timeout=WAIT_S)
        done = [self._is_done(pod) for pod in newest.values()]
        return all(done)

    async def read(self, path: str, offset_bytes: int, pod: Object | None) -> LogChunk | None:
        """From a file of the volume; None where there is none. pod: which wrote it; None: it is gone."""
        if self._files is None:
            return None
        data = b""
        try:
            files, inside = _kept_in(self._files, pod, objects.below(self._root_dir, path))
            async for piece in files.read(inside, offset_bytes, LOG_CHUNK_BYTES):
                data += piece
        except (FileMissing, FileRefused, SpecInvalid):
            return None
        return LogChunk(data, offset_bytes, offset_bytes + len(data))

    async def aclose(self) -> None:
        for task in self._copying.values():
            task.cancel()
        await asyncio.gather(*self._copying.values(), return_exceptions=True)

    async def _copy(self, volume: Storage, pod: Object, path: str) -> None:
        """What a node has no more of never replaces what was kept of it before."""
        try:
            files, inside = _kept_in(volume, pod, objects.below(self._root_dir, path))
        except SpecInvalid as error:
            raise FileRefused(str(error)) from None
        pieces = self._api.whole_log(pod["metadata"]["name"], MAIN)
        first = await anext(pieces, b"")
        if not first:
            with contextlib.suppress(FileMissing):
                await files.stat(inside)
                return

        async def everything() -> AsyncIterator[bytes]:
            yield first
            async for piece in pieces:
                yield piece

        await files.write(inside, everything())

    def _is_done(self, pod: Object) -> bool:
        uid = pod["metadata"]["uid"]
        if not self._copying[uid].done():
            return False
        task = self._copying.pop(uid)
        try:
            task.result()
        except FileRefused as error:
            log.warning("what %s wrote is not kept: %s", pod["metadata"]["name"], error)
        except NothingLearnt as error:
            log.info("what %s wrote is not kept yet: %s", pod["metadata"]["name"], error)
            since = self._failing_since.setdefault(uid, self._monotonic())
            if self._monotonic() - since < GIVE_UP_S:
                return False
        self._failing_since.pop(uid, None)
        return True


def _kept_in(volume: Storage, pod: Object | None, path: str) -> tuple[Storage, str]:
    """The directory of a run that holds this path of the volume, and the path there.

    What a run can write to it can fill with links, so none is followed there; what leads there it cannot change.
    """
    mounts = pod["spec"]["containers"][0].get("volumeMounts", ()) if pod is not None else ()
    folders = [str(each.get("subPath", "")) for each in mounts]
    own = min((each for each in folders if each and path.startswith(f"{each}/")), key=len, default="")
    return Below(volume, own), path.removeprefix(own).lstrip("/")


def _created(pod: Object) -> str:
    return str(pod["metadata"]["creationTimestamp"])
