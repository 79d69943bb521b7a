"""What one namespace holds of Berth's, as one watch of its Jobs and one of its pods tell: for all who ask about it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from backends.k8s import arrays
from backends.k8s.api import JOBS, PODS, Api, Object
from backends.k8s.objects import MANAGED
from backends.k8s.watch import Reflector


class Sight:
    """The Jobs and pods of one namespace as one login. Nothing is asked before ``start``."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._jobs, self._pods = Reflector(api, JOBS, MANAGED), Reflector(api, PODS, MANAGED)
        self._sorted: tuple[str | None, Mapping[str, Sequence[Object]]] | None = None

    @property
    def is_live(self) -> bool:
        """Whether both are watched now, so that what is shown is what there is, but for the moments of its way here."""
        return self._jobs.is_live and self._pods.is_live

    @property
    def jobs(self) -> Mapping[str, Object]:
        """By name, as last known."""
        return self._jobs.objects

    @property
    def pods(self) -> Mapping[str, Object]:
        return self._pods.objects

    def pods_by_run(self) -> Mapping[str, Sequence[Object]]:
        """By the id of their run. Sorted again only after something happened to a pod, for it is asked for often."""
        if self._sorted is None or self._sorted[0] != self._pods.version:
            self._sorted = self._pods.version, by_run(self.pods.values())
        return self._sorted[1]

    def start(self) -> None:
        """Begin to watch, unless that goes on already."""
        self._jobs.start()
        self._pods.start()

    async def aclose(self) -> None:
        await asyncio.gather(self._jobs.aclose(), self._pods.aclose())
        await self._api.aclose()


def by_run(pods: Iterable[Object]) -> Mapping[str, list[Object]]:
    """Pods by the id of their run."""
    found: dict[str, list[Object]] = {}
    for pod in pods:
        found.setdefault(run_of(pod), []).append(pod)
    return found


def run_of(pod: Object) -> str:
    """The id of the run that a pod belongs to: that of the Job that made it, or of its array; empty where none did."""
    if (array := pod["metadata"].get("labels", {}).get(arrays.TASK_OF)) is not None:
        return str(array)
    owners = pod["metadata"].get("ownerReferences", [])
    return next((str(owner["uid"]) for owner in owners if owner.get("kind") == "Job"), "")


def newest(pods: Sequence[Object]) -> Object | None:
    """The one that was made last."""
    return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
