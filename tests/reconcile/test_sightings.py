"""What looks show of everyone's jobs is kept as differences; what they do not show is not concluded."""

from dataclasses import replace
from datetime import timedelta

from scheduler.model.snapshots import SystemSnapshot, VisibleJob
from scheduler.reconcile.sightings import news
from scheduler.store.learning import SightingStore
from tests.reconcile.world import START, World

WAITS = VisibleJob(
    remote_id="7", partition="p", running=False, nodes=1, cores=4, walltime_s=3600, submitted_at=START, user="eve"
)
RUNS = replace(WAITS, running=True, started_at=START + timedelta(minutes=2))


def look(minute: float, *jobs: VisibleJob, total: int | None = None) -> SystemSnapshot:
    return SystemSnapshot(taken_at=START + timedelta(minutes=minute), jobs=jobs, jobs_total=total)


def test_a_job_is_told_of_when_it_comes_and_when_it_starts_and_not_in_between():
    (came,) = news(None, look(1, WAITS))
    assert (came.submitted_at, came.started_at, came.seen_at) == (START, None, START + timedelta(minutes=1))
    assert news(look(1, WAITS), look(2, replace(WAITS, priority=9.0, reason="Priority"))) == []
    (began,) = news(look(2, WAITS), look(3, RUNS))
    assert (began.started_at, began.ended_at) == (START + timedelta(minutes=2), None)


def test_who_ran_and_is_gone_ended_between_the_looks_and_not_after_its_walltime():
    (ended,) = news(look(10, RUNS), look(20))
    assert ended.ended_at == START + timedelta(minutes=15)
    (ended,) = news(look(10, RUNS), look(1000))
    assert ended.ended_at == RUNS.started_at + timedelta(hours=1)


def test_of_who_waited_and_is_gone_no_start_is_claimed():
    (gone,) = news(look(10, WAITS), look(20))
    assert (gone.started_at, gone.ended_at) == (None, START + timedelta(minutes=20))


def test_a_look_that_was_cut_short_says_nothing_of_who_is_missing():
    assert news(look(10, RUNS), look(20, total=9)) == []


def test_a_look_after_which_the_clock_went_back_says_nothing_of_who_is_missing():
    assert news(look(20, RUNS), look(10)) == []


def test_a_job_without_an_instant_of_submission_is_passed_over():
    assert news(None, look(1, replace(WAITS, submitted_at=None))) == []


async def test_looks_at_a_system_leave_a_row_for_each_job(world: World):
    async def starts_seen():
        await world.loops.snapshots.tick()
        await world.loops.snapshots.crew.settle()
        async with world.database.reading() as db:
            return [row.started_at for row in await SightingStore(db).recent("dev", "cluster", 9)]

    world.system.others = (WAITS,)
    assert await starts_seen() == [None]
    world.later(300)
    world.system.others = (RUNS,)
    assert await starts_seen() == [RUNS.started_at]
