"""A site's own records over HTTP: learnt whole or refused whole, with the line and the fix."""

from __future__ import annotations

from datetime import timedelta

import pytest

from api.middleware import MAX_BODY_BYTES, MAX_RECORD_BYTES
from api.schemas.systems import PAST_JOBS_EXAMPLE, PastJobsBody
from scheduler.services import history
from scheduler.store.learning import SightingStore
from tests.api.world import BEGIN, World

NOW_S = int(BEGIN.timestamp())
PATH = "/v3/systems/alder/pastJobs"
HEADER = "JobID|User|Partition|NCPUS|TimelimitRaw|Submit|Start|End|State"


def line(job: int = 11, partition: str = "debug", ago_s: int = 7200, state: str = "COMPLETED", end: str = "") -> str:
    at_s = NOW_S - ago_s
    return f"{job}|ann|{partition}|16|90|{at_s}|{at_s + 60}|{end or at_s + 600}|{state}"


def sacct(*lines: str, **options: str) -> dict[str, str]:
    return {"format": "SACCT", "text": "\n".join([HEADER, *lines]) + "\n", **options}


async def kept(world: World) -> list:
    async with world.ports.reading() as db:
        return list(await SightingStore(db).recent("dev", "alder", 1000))


async def refused(world: World, body: dict, status: int = 400, user: str = "admin") -> str:
    response = await world.call("POST", PATH, body, user=user)
    assert response.status_code == status, response.text
    assert await kept(world) == []
    return response.json()["message"]


async def test_what_sacct_says_is_kept_once_however_often_it_is_sent(world: World):
    body = sacct(line(11), line(12, "normal"), line(13, "gpu"), line(14, ago_s=90 * 86_400))
    for _ in range(2):
        learnt = await world.post(PATH, body, user="admin")
        assert learnt == {"toldJobs": 4, "keptJobs": 2, "tooOldJobs": 1, "otherQueueJobs": 1}
        assert [(seen.remote_id, seen.partition) for seen in await kept(world)] == [("11", "debug"), ("12", "normal")]


async def test_many_jobs_are_kept_batch_by_batch(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(history, "BATCH_JOBS", 3)
    await world.post(PATH, sacct(*(line(job) for job in range(8))), user="admin")
    assert len(await kept(world)) == 8


async def test_a_job_that_has_not_ended_is_known_as_of_the_record_so_that_later_looks_win(world: World):
    running = line(12, ago_s=3600, state="RUNNING", end="Unknown")
    await world.post(PATH, sacct(line(11), running), user="admin")
    seen = {each.remote_id: each for each in await kept(world)}
    assert seen["11"].seen_at >= BEGIN
    assert seen["12"].seen_at == BEGIN - timedelta(seconds=3540)
    assert seen["12"].ended_at is None


async def test_a_log_is_of_the_queue_that_is_named(world: World):
    log = f"; UnixStartTime: {NOW_S - 9000}\n1 100 50 600 4 -1 -1 8 500 -1 1 7 1 1 1 -1 -1 -1\n"
    message = await refused(world, {"format": "SWF", "text": log})
    assert message == "queue: is missing, and the system has several; say whose jobs the log holds"
    message = await refused(world, {"format": "SWF", "text": log, "queue": "huge"})
    assert message == "queue: 'huge' is no queue of alder; its queues are short, long"
    await world.post(PATH, {"format": "SWF", "text": log, "queue": "long"}, user="admin")
    assert [(seen.remote_id, seen.partition) for seen in await kept(world)] == [("swf-1", "normal")]


async def test_a_bad_line_is_named_and_nothing_is_kept(world: World):
    message = await refused(world, sacct(line(11), "12|ann", line(13)))
    assert message.startswith("line 3: has 2 columns, fewer than the first line names")
    message = await refused(world, {"format": "SWF", "text": "; MaxProcs: 4\n1 2\n", "queue": "long"})
    assert message.startswith("line 2: has 2 fields")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (sacct(), "text: tells of no job"),
        (sacct(line(ago_s=90 * 86_400)), "text: tells only of jobs older than 60 days"),
        (sacct(line(partition="gpu")), "text: tells only of other partitions; the system's are debug, normal"),
        (sacct(line(ago_s=-7200)), "text: speaks of 2026-03-01 14:01 UTC, which is to come; check timeZone"),
        (sacct(line(), timeZone="Mars/Base"), "timeZone: 'Mars/Base' is no time zone"),
        (sacct(line(), timeZone="Europe"), "timeZone: 'Europe' is no time zone"),
        (sacct(line(), timeZone="../etc"), "timeZone: '../etc' is no time zone"),
        ({"format": "CSV", "text": "x"}, "format: must be 'SACCT' or 'SWF'"),
        ({"format": "SWF", "text": ""}, "text: is too short"),
        ({"format": "SWF", "text": "a\x00b"}, "body: is not JSON (a NUL character"),
        ({"format": "SWF", "text": "a\x1bb"}, "text: holds the control character"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_record_that_cannot_be_meant_is_refused_with_what_to_do(world: World, body, said):
    assert (await refused(world, body)).startswith(said)


async def test_only_who_may_change_the_system_may_teach_about_it(world: World):
    await refused(world, sacct(line()), 404, user="bob")
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["READ"]}, user="admin")
    await refused(world, sacct(line()), 403, user="bob")
    await world.post("/v3/systems/perms/alder/user/bob", {"permissions": ["MODIFY"]}, user="admin")
    await world.post(PATH, sacct(line()), user="bob")


async def test_a_record_may_be_larger_than_other_bodies_but_not_endless(world: World):
    many = sacct(*(line(job) + "|" + 500 * "x" for job in range(2000)))
    assert len(many["text"]) > MAX_BODY_BYTES
    assert (await world.post(PATH, many, user="admin"))["keptJobs"] == 2000
    headers = {"Content-Length": str(MAX_RECORD_BYTES + 1), "Content-Type": "application/json"}
    response = await world.call("POST", PATH, user="admin", content=b"", headers=headers)
    assert response.status_code == 413


def test_the_example_is_read_as_it_stands():
    body = PastJobsBody.model_validate(PAST_JOBS_EXAMPLE)
    assert len(history.parse_history(body.text.splitlines(), BEGIN)) == 1
