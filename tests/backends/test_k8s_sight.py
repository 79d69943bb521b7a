"""What the host of pods asks an API server for while a watch tells it, and when a watch is not enough."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import AsyncMock

import pytest

from backends.k8s.api import JOBS, PODS, Event, Listed, Refused
from backends.k8s.objects import MARKER
from backends.k8s.pods import KubernetesPodHost
from backends.k8s.sight import Sight
from backends.k8s.site import Access
from backends.k8s.spdy import Session
from scheduler.model.errors import BackendUnavailable, PortClosed
from scheduler.model.ids import marker_for, new_job_uuid

MARKERS = {uid: marker_for(new_job_uuid(), 1) for uid in ("uid-1", "uid-2")}


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("never")


def job(uid: str) -> dict:
    return {"metadata": {"name": MARKERS[uid], "uid": uid, "labels": {MARKER: MARKERS[uid]}, "resourceVersion": "1"}}


def pod(uid: str, phase: str = "Running", version: str = "1") -> dict:
    about = {
        "name": f"{MARKERS[uid]}-x",
        "labels": {MARKER: MARKERS[uid]},
        "ownerReferences": [{"kind": "Job", "uid": uid}],
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "resourceVersion": version,
    }
    state = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
    status = {"phase": phase, "containerStatuses": [{"name": "main", "ready": True, "state": state}]}
    return {"metadata": about, "spec": {"nodeName": "n"}, "status": status}


class Server:
    """An API server that counts what it is asked for, and tells of what happens."""

    namespace = "lab"

    def __init__(self) -> None:
        self.objects = {JOBS: [job(uid) for uid in MARKERS], PODS: [pod(uid) for uid in MARKERS]}
        self.lists, self.watches = 0, 0
        self.happens: asyncio.Queue[Event] = asyncio.Queue()

    async def list(self, kind, labels=None) -> Listed:
        self.lists += 1
        found = [one for one in self.objects[kind] if (labels or {}).items() <= one["metadata"]["labels"].items()]
        return Listed(found if MARKER in (labels or {}) else self.objects[kind], "1")

    async def watch(self, kind, labels, version, timeout_s):
        self.watches += 1
        while kind is PODS:
            yield await self.happens.get()
        await asyncio.Event().wait()

    async def aclose(self) -> None: ...


@pytest.fixture
async def watched(monkeypatch):
    """A host of pods over a live watch, and the server; what is connected to is noted, and may be refused by code."""
    server = Server()
    sight = Sight(server)
    host = KubernetesPodHost(server, Access("https://k8s", "token"), sight=sight)
    host.reached = []

    async def forward(remote_id, marker, name, port):
        host.reached.append(name)
        if name in host.refused:
            await host._session(name)
        return AsyncMock()

    async def refuse(access, path, *_):
        raise Refused(host.refused[path.split("/")[-2]], "", "no")

    host.refused = {}
    monkeypatch.setattr(Session, "open", refuse)
    monkeypatch.setattr(host, "_forward", forward)
    sight.start()
    await eventually(lambda: sight.is_live)
    server.lists = 0
    yield host, server, sight
    await sight.aclose()


async def test_a_live_watch_answers_for_all_pods_and_nothing_is_asked(watched):
    host, server, _ = watched
    seen = await host.look(MARKERS)
    assert {uid: one.phase for uid, one in seen.items()} == dict.fromkeys(MARKERS, "Running")
    for uid, marker in MARKERS.items():
        await host.connect(uid, marker, 80)
    assert host.reached == [f"{marker}-x" for marker in MARKERS.values()]
    assert (server.lists, server.watches) == (0, 2), "one watch of Jobs, one of pods"


async def test_what_happens_to_a_pod_is_shown_at_the_next_look(watched):
    host, server, sight = watched
    assert (await host.look(MARKERS))["uid-1"].phase == "Running"
    server.happens.put_nowait(Event("MODIFIED", pod("uid-1", "Failed", version="2")))
    await eventually(lambda: sight.pods[f"{MARKERS['uid-1']}-x"]["status"]["phase"] == "Failed")
    assert (await host.look(MARKERS))["uid-1"].phase == "Failed"
    assert server.lists == 0


@pytest.mark.parametrize(("code", "told"), [(404, PortClosed), (500, BackendUnavailable)])
async def test_a_connection_that_is_refused_is_told_of_and_costs_no_list(watched, code, told):
    host, server, _ = watched
    host.refused[f"{MARKERS['uid-1']}-x"] = code
    with pytest.raises(told):
        await host.connect("uid-1", MARKERS["uid-1"], 80)
    assert (server.lists, len(host.reached)) == (0, 1)


async def test_a_pod_that_the_watch_shows_as_ended_is_not_connected_to(watched):
    host, server, sight = watched
    server.happens.put_nowait(Event("MODIFIED", pod("uid-1", "Failed", version="2")))
    await eventually(lambda: sight.pods[f"{MARKERS['uid-1']}-x"]["status"]["phase"] == "Failed")
    with pytest.raises(PortClosed):
        await host.connect("uid-1", MARKERS["uid-1"], 80)
    assert (server.lists, host.reached) == (0, [])


async def test_who_wrote_which_field_is_not_kept(watched):
    _, server, sight = watched
    changed = pod("uid-1", version="2")
    changed["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    server.happens.put_nowait(Event("MODIFIED", changed))
    name = changed["metadata"]["name"]
    await eventually(lambda: sight.pods[name]["metadata"]["resourceVersion"] == "2")
    assert "managedFields" not in sight.pods[name]["metadata"]


async def test_a_watch_that_is_cut_is_believed_no_more(watched):
    host, server, sight = watched
    await sight.aclose()
    sight.start = lambda: None
    server.objects[PODS] = [pod("uid-2")]
    assert (await host.look(MARKERS))["uid-1"].phase == "Pending"
    assert server.lists == 2
