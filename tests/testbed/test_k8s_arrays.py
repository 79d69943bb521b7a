"""Arrays of plain Jobs on a real control plane: made once whatever is cut off; found, ended and cleared together."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio

from backends.k8s import arrays
from backends.k8s.api import JOBS, PODS, Object
from backends.k8s.objects import MARKER
from scheduler.model.errors import BackendUnavailable, SubmitError
from scheduler.model.ids import Marker, RemoteId, marker_for, new_job_uuid
from scheduler.model.runs import ArraySpec, Ending, Observation, RemoteState
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.fake_nodes import PREFIX
from tests.contract.subjects import INTENDED_AT, eventually
from tests.testbed.k8s_subject import KubernetesSubject, kubernetes_subject
from tests.testbed.kubernetes import made, own_namespace

pytestmark = pytest.mark.testbed

NOT_FROM_0 = ArraySpec((1, 2, 5, 9))
"""Of plain Jobs on every version: no Indexed Job can be it."""


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[httpx.Client]:
    with client(control_plane) as api:
        yield api


@pytest_asyncio.fixture
async def subject(control_plane: ControlPlane, admin: httpx.Client) -> AsyncIterator[KubernetesSubject]:
    with own_namespace(control_plane, admin) as namespace:
        async with kubernetes_subject(control_plane, admin, namespace) as subject:
            yield subject


@pytest.fixture
def marker() -> Marker:
    return marker_for(new_job_uuid(), 1)


async def submitted(subject: KubernetesSubject, marker: Marker, array: ArraySpec = NOT_FROM_0) -> RemoteId:
    answer = (await subject.backend.submit([subject.intent(marker, array=array)]))[marker]
    assert not isinstance(answer, SubmitError), answer
    return answer


async def until(subject: KubernetesSubject, remote_id: RemoteId, marker: Marker, holds: Any, what: str) -> Observation:
    found: list[Observation] = []

    async def does() -> bool:
        found[:] = (await subject.backend.observe({remote_id: marker})).values()
        return bool(found) and holds(found[0])

    await eventually(does, what)
    return found[0]


async def tasks(subject: KubernetesSubject, marker: Marker) -> list[Object]:
    jobs = (await subject.api.list(JOBS, {MARKER: marker})).items
    return [job for job in jobs if arrays.TASK_OF in job["metadata"]["labels"]]


def indices(found: list[Object]) -> list[int]:
    return sorted(map(arrays.index, found))


def end_soon(subject: KubernetesSubject) -> None:
    """From now on containers end by themselves."""
    subject.api.notes = {f"{PREFIX}run-s": "0.1"}


class CutAfter:
    """A way of creating objects that is cut off after so many Jobs."""

    def __init__(self, subject: KubernetesSubject, objects: int) -> None:
        self._create, self._left = subject.api.create, objects

    async def __call__(self, kind: Any, manifest: Object, *, only_try: bool = False) -> Object:
        if kind is JOBS and self._left == 0:
            raise BackendUnavailable("cut off")
        self._left -= kind is JOBS
        return await self._create(kind, manifest, only_try=only_try)


async def test_an_array_runs_every_task_and_ends_as_one(subject, marker):
    end_soon(subject)
    remote_id = await submitted(subject, marker)
    told = await until(subject, remote_id, marker, lambda one: one.state is RemoteState.ENDED, "the array ends")
    assert (told.ending, told.exit_code) == (Ending.COMPLETED, 0)
    assert (told.tasks.completed, told.tasks.failed, told.tasks.queued) == (4, 0, 0)
    assert indices(await tasks(subject, marker)) == [1, 2, 5, 9]
    assert await subject.runs_of(marker) == 4


async def test_at_most_so_many_tasks_run_at_once_as_the_array_allows(subject, marker):
    remote_id = await submitted(subject, marker, ArraySpec((1, 2, 3, 4, 5), limit=2))
    await until(subject, remote_id, marker, lambda one: one.tasks.running == 2, "two tasks run")
    assert indices(await tasks(subject, marker)) == [1, 2]
    end_soon(subject)
    (first, *_) = (await subject.api.list(PODS, {MARKER: marker})).items
    subject.admin.patch(
        f"/api/v1/namespaces/{subject.api.namespace}/pods/{first['metadata']['name']}/status",
        json={"status": {"phase": "Failed"}},
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
    told = await until(subject, remote_id, marker, lambda one: one.tasks.completed == 3, "the next ones ran")
    assert told.state is RemoteState.RUNNING
    assert told.tasks.failed_indices == (arrays.index(first),)
    assert len(await tasks(subject, marker)) == 5


@pytest.mark.parametrize("objects", [1, 3])
async def test_an_array_that_was_cut_off_while_it_was_made_is_completed_by_who_looks(subject, marker, objects):
    whole, subject.api.create = subject.api.create, CutAfter(subject, objects)
    remote_id = await submitted(subject, marker)
    assert len(await tasks(subject, marker)) == objects - 1
    subject.api.create = whole
    assert await subject.backend.find(marker, INTENDED_AT) == remote_id
    assert await submitted(subject, marker) == remote_id
    told = await until(subject, remote_id, marker, lambda one: one.tasks.running == 4, "all tasks run")
    assert told.state is RemoteState.RUNNING
    assert await subject.runs_of(marker) == 4


async def test_whoever_looks_at_the_same_time_makes_each_task_once(subject, marker):
    whole, subject.api.create = subject.api.create, CutAfter(subject, 1)
    remote_id = await submitted(subject, marker)
    subject.api.create = whole
    await asyncio.gather(*(subject.backend.observe({remote_id: marker}) for _ in range(4)))
    await until(subject, remote_id, marker, lambda one: one.tasks.running == 4, "all tasks run")
    assert indices(await tasks(subject, marker)) == [1, 2, 5, 9]
    assert await subject.runs_of(marker) == 4


async def test_a_marker_that_was_given_up_makes_no_task(subject, marker):
    assert await subject.backend.find(marker, INTENDED_AT) is None
    assert isinstance((await subject.backend.submit([subject.intent(marker, array=NOT_FROM_0)]))[marker], SubmitError)
    assert await tasks(subject, marker) == []


async def test_cancelling_an_array_ends_all_its_tasks_and_makes_no_more(subject, marker):
    remote_id = await submitted(subject, marker, ArraySpec((1, 2, 3, 4), limit=2))
    await until(subject, remote_id, marker, lambda one: one.tasks.running == 2, "two tasks run")
    assert await subject.backend.unended() == {marker: remote_id}
    assert await subject.backend.withdraw(remote_id, marker) is False
    assert await subject.backend.cancel(remote_id, marker) is True
    told = await until(subject, remote_id, marker, lambda one: one.state is RemoteState.ENDED, "the array ends")
    assert told.ending is Ending.CANCELLED
    assert indices(await tasks(subject, marker)) == [1, 2]
    assert await subject.backend.cancel(remote_id, marker) is True
    assert await subject.backend.unended() == {}


async def test_a_head_that_an_administrator_deletes_ends_the_array(subject, marker):
    remote_id = await submitted(subject, marker)
    await until(subject, remote_id, marker, lambda one: one.tasks.running == 4, "all tasks run")
    path = f"/apis/batch/v1/namespaces/{subject.api.namespace}/jobs/{marker}"
    made(subject.admin.request("DELETE", path, json={"propagationPolicy": "Background"}))
    told = await until(subject, remote_id, marker, lambda one: one.state is RemoteState.ENDED, "the array ends")
    assert told.ending is Ending.CANCELLED


async def test_an_array_that_ended_long_ago_is_cleared_away_with_all_its_tasks(subject, marker):
    end_soon(subject)
    remote_id = await submitted(subject, marker)
    await until(subject, remote_id, marker, lambda one: one.state is RemoteState.ENDED, "the array ends")
    subject.backend._clock = lambda: datetime.now(UTC) + timedelta(days=2)
    await subject.backend.unended()
    assert (await subject.api.list(JOBS, {MARKER: marker})).items == []

    async def has_no_pods() -> bool:
        return (await subject.api.list(PODS, {MARKER: marker})).items == []

    await eventually(has_no_pods, "its pods are gone")
