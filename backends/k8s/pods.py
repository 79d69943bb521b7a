"""Pods on Kubernetes: their ports, and commands inside them, through the API server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from backends.base import Channel
from backends.k8s.api import JOBS, PODS, Api, Object, Refused
from backends.k8s.exec import executed, give_at_once, open_session
from backends.k8s.objects import MANAGED, MARKER, is_void
from backends.k8s.sight import Sight, by_run, newest
from backends.k8s.site import Access
from backends.k8s.spdy import Session, Stream
from backends.k8s.states import WAITING, has_begun, pod_is_over, pod_waits_for
from backends.k8s.ways import Ways
from scheduler.model.errors import BackendUnavailable, PortClosed, UnexpectedReply
from scheduler.model.ids import Marker, RemoteId, checked_marker
from scheduler.model.pods import Executed, PodSeen

PORTS = "portforward.k8s.io"

QUIET_S = 0.25
"""A port that nobody listens to is refused on the node at once; silence for so long after it means that one does."""

SLOW = 5.0
"""A node that is slow to say that it has heard is as slow to refuse: its silence must last longer, as often as this."""

PROVEN_S = 4.0
"""How long a port that proved open is taken for open without another wait, while no connection says otherwise.

Less than the 5 s between two looks at a pod, so that each look is a proof and not the memory of the one before.
"""


NOT_FOUND = 404


class KubernetesPodHost:
    """One namespace of one cluster as one login."""

    def __init__(
        self,
        api: Api,
        access: Access,
        *,
        sight: Sight | None = None,
        ways: Ways | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """sight: what the backend of this login watches, and who closes it; None: everything is asked for.

        ways: to ports past the API server; None: there are none.
        """
        self._api, self._access, self._sight, self._monotonic = api, access, sight, monotonic
        self._ways = ways
        self._proven: dict[tuple[RemoteId, int], float] = {}

    async def look(self, ids: Mapping[RemoteId, Marker]) -> Mapping[RemoteId, PodSeen]:
        """As the watch shows it; by a list while there is none. A run whose pod was not made yet is seen as such."""
        if not ids:
            return {}
        jobs, pods = await self._all()
        there = {job["metadata"]["name"]: job for job in jobs if not is_void(job)}
        return {
            remote_id: seen_of(newest(pods.get(remote_id, ())))
            for remote_id, marker in ids.items()
            if (job := there.get(marker)) is not None and job["metadata"]["uid"] == remote_id
        }

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int) -> Channel:
        """By the pod's node where that is a way, or through the API server to the pod's own loopback.

        PortClosed also while the pod does not run.
        """
        pod = await self._running(remote_id, marker)
        if pod is None:
            raise PortClosed(f"{marker} does not run")
        if self._ways is not None and (straight := await self._ways.connect(remote_id, marker, port, pod)) is not None:
            return straight
        channel = await self._forward(remote_id, marker, _name_of(pod), port)
        if self._monotonic() - self._proven.get((remote_id, port), -PROVEN_S) < PROVEN_S:
            return channel
        try:
            await channel.prove()
        except BaseException:
            await channel.aclose()
            raise
        return channel

    async def execute(
        self, remote_id: RemoteId, marker: Marker, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float
    ) -> Executed:
        """In the container of the run. One that takes too long ends with 124 and what it wrote until then.

        Kubernetes has no way to end a command: its standard input and outputs are closed, and it may go on.
        """
        pod = await self._running(remote_id, marker)
        if pod is None:
            raise BackendUnavailable(f"{marker} does not run")
        try:
            session = await open_session(self._access, self._api.namespace, _name_of(pod), argv)
            return await executed(session, partial(give_at_once, stdin), timeout_s)
        except Refused as refused:
            raise BackendUnavailable(f"the API server refuses: {refused}") from None
        except ConnectionError as error:
            raise BackendUnavailable(f"the command was cut off: {error}") from None

    async def aclose(self) -> None:
        await self._api.aclose()

    # -- pieces ------------------------------------------------------------------------------------------------------

    def _seen(self) -> Sight | None:
        """What the watch shows, while it is open: as good as a list."""
        if self._sight is None:
            return None
        self._sight.start()
        return self._sight if self._sight.is_live else None

    async def _all(self) -> tuple[Collection[Object], Mapping[str, Sequence[Object]]]:
        """Berth's Jobs, and its pods by the id of their run."""
        if (seen := self._seen()) is not None:
            return seen.jobs.values(), seen.pods_by_run()
        jobs, pods = await asyncio.gather(self._api.list(JOBS, MANAGED), self._api.list(PODS, MANAGED))
        return jobs.items, by_run(pods.items)

    async def _running(self, remote_id: RemoteId, marker: Marker) -> Object | None:
        """The pod of this run that runs now; as the watch shows it, by a list while there is none."""
        if (seen := self._seen()) is not None:
            return _that_runs(seen.pods_by_run().get(remote_id, ()))
        try:
            listed = await self._api.list(PODS, {MARKER: checked_marker(marker)})
        except Refused as refused:
            raise BackendUnavailable(str(refused)) from None
        return _that_runs(by_run(listed.items).get(remote_id, ()))

    async def _session(self, pod: str) -> Session:
        path = f"/api/v1/namespaces/{self._api.namespace}/pods/{pod}/portforward"
        try:
            return await Session.open(self._access, path, (), PORTS)
        except Refused as refused:
            if refused.code == NOT_FOUND:  # the watch tells of it in a moment
                raise PortClosed(f"{pod} is gone") from None
            raise BackendUnavailable(f"the API server refuses: {refused}") from None

    async def _forward(self, remote_id: RemoteId, marker: Marker, pod: str, port: int) -> ForwardedPort:
        session = await self._session(pod)
        key, began_at = (remote_id, port), self._monotonic()

        def told(is_open: bool) -> None:
            if is_open:
                self._proven[key] = began_at
            else:
                self._proven.pop(key, None)

        try:
            headers = {"port": str(port), "requestid": "0"}
            errors = await session.stream({**headers, "streamtype": "error"})
            await errors.end()
            data = await session.stream({**headers, "streamtype": "data"})
            return ForwardedPort(session, data, errors, f"{marker} port {port}", told)
        except ConnectionError as error:
            await session.aclose()
            raise BackendUnavailable(f"the node does not take the connection: {error}") from None
        except BaseException:
            await session.aclose()
            raise


class ForwardedPort:
    """A ``Channel`` to a port of a pod. What the node says against it comes on a stream of its own."""

    def __init__(self, session: Session, data: Stream, errors: Stream, name: str, told: Callable[[bool], None]) -> None:
        self._session, self._data, self._name, self._told = session, data, name, told
        self._complaint, self._came = "", False
        self._listening = asyncio.create_task(self._listen(errors))

    async def prove(self) -> None:
        """Return when somebody took the connection. PortClosed when nobody did.

        The node says so when nobody does, and nothing when somebody does. So what counts is that it has heard of the
        connection, and then says nothing for a moment; or that bytes come.
        """
        try:
            asked_s = time.monotonic()
            await self._session.ping()
            quiet_s = max(QUIET_S, SLOW * (time.monotonic() - asked_s))
            heard = asyncio.create_task(self._data.wait())
            await asyncio.wait({heard, self._listening}, timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                await asyncio.wait({self._listening}, timeout=quiet_s / 5)  # a refusal also ends the data
            heard.cancel()
        except ConnectionError as error:
            raise BackendUnavailable(str(error)) from None
        if self._complaint:
            raise PortClosed(f"{self._name}: {self._complaint}")
        self._told(True)

    async def read(self, most_bytes: int) -> bytes:
        """Some bytes; empty at the end."""
        some = await self._data.read(most_bytes)
        if not some and not self._came:  # a refusal may still be on its way
            await asyncio.wait({self._listening}, timeout=QUIET_S)
            if self._complaint:
                raise ConnectionRefusedError(self._complaint)
        self._came = self._came or bool(some)
        return some

    async def write(self, data: bytes) -> None:
        await self._data.write(data)

    async def end(self) -> None:
        await self._data.end()

    async def aclose(self) -> None:
        self._listening.cancel()
        await self._session.aclose()

    async def _listen(self, errors: Stream) -> None:
        with contextlib.suppress(ConnectionError, UnexpectedReply):
            text = await errors.read_all(64 * 1024)
            if text:
                self._complaint = text.decode("utf-8", "replace")
                self._told(False)
                return
        await asyncio.Event().wait()  # nothing is said against it


def seen_of(pod: Object | None) -> PodSeen:
    """What can be said of a run's pod; None: it was not made yet."""
    if pod is None:
        return PodSeen(phase="Pending", waits_for="the cluster has not made its pod yet")
    status = pod.get("status", {})
    reason, words = pod_waits_for(pod)
    known = WAITING.get(reason)
    clause = known.words if known else ""
    containers = status.get("containerStatuses", [])
    return PodSeen(
        phase=str(status.get("phase", "Pending")),
        reason=reason or str(status.get("reason", "")),
        waits_for=f"{clause}: {words}" if clause and words else clause or words,
        is_ready=bool(containers) and all(each.get("ready") for each in containers),
        restarts=sum(int(each.get("restartCount", 0)) for each in containers),
        node=str(pod["spec"].get("nodeName", "")),
        details={"name": pod["metadata"]["name"], "containers": containers},
    )


def _name_of(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def _that_runs(pods: Sequence[Object]) -> Object | None:
    """The newest pod of one run; None where that does not run, or leaves."""
    pod = newest(pods)
    if pod is None or "deletionTimestamp" in pod["metadata"] or pod_is_over(pod) or not has_begun(pod):
        return None
    return pod
