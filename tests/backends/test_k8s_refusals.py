"""What an API server's refusal means for a run: nothing, until it is known whether an earlier try was taken."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backends.k8s import objects
from backends.k8s.api import JOBS, SECRETS, Listed, Object, Refused
from backends.k8s.backend import KubernetesBackend
from backends.k8s.site import Site
from scheduler.model.errors import NothingLearnt, SubmitRejected, SubmitUncertain
from scheduler.model.runs import Mount, RunSpec, SubmitIntent
from tests.backends.test_k8s_objects import MARKER, RUN, system

POLICY = Refused(403, "Forbidden", 'admission webhook "policy" denied the request: no such image here')
EXISTS = Refused(409, "AlreadyExists", "jobs.batch already exists")
UNMOUNTABLE = replace(RUN, mounts=(Mount(source="/elsewhere/data", target="/data"),))
TAKEN = objects.job(MARKER, RUN, Site(), "/work")
TAKEN = {**TAKEN, "metadata": {**TAKEN["metadata"], "uid": "uid-1"}}


class Server:
    """An API server that refuses every Job, and may have taken one before."""

    def __init__(self, refusal: Refused, there: Object | None) -> None:
        self.refusal, self.there = refusal, there
        self.deleted: list[Any] = []

    async def version(self) -> tuple[str, tuple[int, int]]:
        return "v1.36.0", (1, 36)

    async def create(self, kind: Any, manifest: Object, *, only_try: bool = False) -> Object:
        if kind is JOBS:
            raise self.refusal
        return manifest

    async def get(self, kind: Any, name: str) -> Object | None:
        return self.there if kind is JOBS else None

    async def delete(self, kind: Any, name: str, *, foreground: bool = False) -> None:
        self.deleted.append(kind)

    async def list(self, kind: Any, labels: Any = None, **_: Any) -> Listed:
        raise self.refusal


def backend_of(server: Server) -> KubernetesBackend:
    return KubernetesBackend(system({}, root_dir="/work"), server)


async def handed_over(server: Server, run: RunSpec) -> object:
    return (await backend_of(server).submit([SubmitIntent(MARKER, run, datetime.now(UTC))]))[MARKER]


@pytest.mark.parametrize("run", [RUN, UNMOUNTABLE], ids=["by policy", "by us"])
async def test_a_refused_retry_of_a_run_that_was_taken_before_is_the_run(run):
    server = Server(POLICY, TAKEN)
    assert await handed_over(server, run) == "uid-1"
    assert server.deleted == [], "it may yet read its Secret"


@pytest.mark.parametrize("run", [RUN, UNMOUNTABLE], ids=["by policy", "by us"])
async def test_a_refused_run_that_nothing_has_the_name_of_is_rejected_and_leaves_no_secret(run):
    server = Server(POLICY, None)
    assert isinstance(await handed_over(server, run), SubmitRejected)
    assert server.deleted == [SECRETS]


async def test_a_name_that_was_taken_and_is_free_again_proves_nothing():
    assert isinstance(await handed_over(Server(EXISTS, None), RUN), SubmitUncertain)


async def test_a_refused_look_is_nothing_learnt():
    with pytest.raises(NothingLearnt, match="denied"):
        await backend_of(Server(POLICY, None)).snapshot()
    with pytest.raises(NothingLearnt, match="denied"):
        await backend_of(Server(POLICY, TAKEN)).withdraw("uid-1", MARKER)
