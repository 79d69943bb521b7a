"""FORK jobs over a real SSH link that is cut while it matters."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest_asyncio

from backends.paths import marker_root
from scheduler.model.errors import NothingLearnt, SubmitError
from scheduler.model.ids import marker_for, new_job_uuid
from scheduler.model.runs import Resources
from scheduler.model.snapshots import StartProbe
from tests.contract.sshd import Sshd, SshSubject, host_system, sshd
from tests.contract.subjects import INTENDED_AT, eventually


@dataclass
class Link:
    server: Sshd
    subject: SshSubject


@pytest_asyncio.fixture
async def link(tmp_path) -> AsyncIterator[Link]:
    async with sshd(tmp_path) as server:
        connection = server.connection()
        subject = SshSubject(connection, tmp_path)
        try:
            yield Link(server, subject)
        finally:
            await subject.all_ended()
            await connection.aclose()


async def test_a_link_cut_in_the_middle_of_a_submission_leaves_one_run_each(link):
    subject, markers = link.subject, [marker_for(new_job_uuid(), 1) for _ in range(4)]
    submission = asyncio.create_task(subject.backend.submit([subject.intent(marker) for marker in markers]))

    async def has_begun() -> bool:
        return subject.marker_dir(markers[0]).exists()

    await eventually(has_begun, "the submission begins")
    await link.server.hang_up()
    with contextlib.suppress(NothingLearnt):
        await submission

    async def found_or_given_up() -> bool:
        try:
            ids.update({marker: await subject.backend.find(marker, INTENDED_AT) for marker in markers})
        except NothingLearnt:
            return False
        return True

    ids: dict = {}
    await eventually(found_or_given_up, "find answers for every marker", timeout_s=40)
    again = await subject.backend.submit([subject.intent(marker) for marker in markers])
    for marker in markers:
        if ids[marker] is None:
            assert isinstance(again[marker], SubmitError)
        else:
            assert again[marker] == ids[marker]
            await subject.running(marker)
        assert await subject.runs_of(marker) == (ids[marker] is not None)


async def test_a_job_outlives_the_link_that_started_it(link):
    subject, marker = link.subject, marker_for(new_job_uuid(), 1)
    remote_id = (await subject.backend.submit([subject.intent(marker)]))[marker]
    await subject.running(marker)
    await link.server.hang_up()
    await subject.finish(marker, exit_code=5)

    async def has_ended() -> bool:
        try:
            seen = await subject.backend.observe({remote_id: marker})
        except NothingLearnt:
            return False
        return seen[remote_id].exit_code == 5

    await eventually(has_ended, "the job ends", timeout_s=40)


async def test_a_host_starts_what_fits_it_now(link):
    small, huge = StartProbe("fork", Resources()), StartProbe("fork", Resources(nodes=2))
    snapshot = await link.subject.backend.snapshot([small, huge])
    assert snapshot.starts == ((small, snapshot.taken_at),)


def test_markers_lie_where_they_are_found_without_the_job(tmp_path):
    system = host_system(tmp_path)
    for working_dir, expected in (
        (None, "/.berth/markers"),
        ("work", "/work/.berth/markers"),
        ("/work/${EffectiveUserId}/x", "/work/ann/x/.berth/markers"),
        ("work/${JobOwner}/x", "/work/.berth/markers"),
        ("HOST_EVAL($SCRATCH)/x", "/.berth/markers"),
    ):
        assert marker_root(replace(system, job_working_dir=working_dir), "ann") == f"{tmp_path}{expected}"
