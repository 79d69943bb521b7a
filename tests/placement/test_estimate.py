"""Estimates: the most trusted answer wins, its source is in words, and what is not known is said to be so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from placement.estimate import outlook, score_s
from placement.evidence import Evidence, likeness
from placement.problem import Committed, PlaceOption
from placement.queue_wait import NO_HISTORY, queue_wait
from scheduler.model.apps import FileInput
from scheduler.model.jobs import ArchiveMode
from scheduler.model.runs import ArraySpec, JobType, Resources, Runtime
from scheduler.model.snapshots import StartProbe
from tests.placement.worlds import (
    NOW,
    ask,
    cluster,
    finished,
    host,
    nodes,
    problem,
    queue,
    running,
    snapshot,
    spec,
    view,
    waiting,
)

CPU = queue("cpu")
FULL = tuple(running(remote_id=str(n)) for n in range(4))


def full(*jobs, **changes):
    return snapshot(nodes(free=0, free_cores=0), jobs=(*FULL, *jobs), **changes)


def place(look=None, **changes):
    return PlaceOption(view(cluster("alder", CPU), look, **changes), CPU)


def wait(a_place, history=(), **asked):
    return queue_wait(spec(**asked), a_place, Evidence.of(problem((), a_place.view, history=tuple(history))))


def whole(a_place, history=(), **asked):
    return outlook(ask(**asked), a_place, Evidence.of(problem((), a_place.view, history=tuple(history)))).estimate


# -- wait --


def test_a_free_node_means_seconds():
    term = wait(place(snapshot()))
    assert (term.p50_s, term.p90_s) == (5, 70)
    assert term.source == "4 nodes free now"


def test_free_nodes_are_not_free_while_others_wait_for_them():
    assert wait(place(snapshot(jobs=(waiting(cores=16),)))).source == "a replay of 1 visible job"


def test_nodes_taken_by_our_unseen_jobs_are_not_free():
    ours = Committed(queue="cpu", resources=Resources(nodes=4, cores_per_node=4, walltime_s=900), placed_at=NOW)
    assert wait(place(snapshot(), committed=(ours,))).p90_s > 300


def test_only_nodes_that_can_hold_the_job_count_as_free():
    look = snapshot(nodes(memory_mib=1000), nodes(memory_mib=9000, free=0, free_cores=0), jobs=FULL)
    assert "free now" not in wait(place(look), memory_mib=8000).source


def test_the_sites_own_scheduler_is_believed_with_a_wide_margin():
    probe = StartProbe("cpu", Resources())
    term = wait(place(full(starts=((probe, NOW + timedelta(minutes=20)),))))
    assert (term.p50_s, term.p90_s) == (1200, 2 * 1200 + 300 + 10)
    assert term.source == "the site's scheduler"


def test_an_answer_for_a_larger_job_is_a_bound_and_one_for_a_smaller_job_is_nothing():
    at = NOW + timedelta(minutes=20)
    larger = wait(place(full(starts=((StartProbe("cpu", Resources(nodes=2)), at),))))
    smaller = wait(place(full(starts=((StartProbe("cpu", Resources(walltime_s=60)), at),))))
    assert larger.source == "the site's scheduler, asked for a larger job"
    assert smaller.source == "a replay of 4 visible jobs"


def test_a_visible_queue_is_replayed():
    ends_s = 3000 + 1000
    behind, beside = full(waiting(cores=16, walltime_s=1000)), full()
    term = wait(place(behind), cores_per_node=4, walltime_s=9000)
    assert 0 < wait(place(beside), cores_per_node=4, walltime_s=9000).p50_s < term.p50_s < term.p90_s <= ends_s + 10


def test_where_nothing_is_visible_our_own_waits_speak():
    hidden = snapshot(nodes(free=0, free_cores=0))
    term = wait(place(hidden), [finished(wait_s=n * 60) for n in range(1, 6)])
    assert (term.p50_s, term.p90_s) == (180, 300)
    assert term.source == "the last 5 waits of ours there"


def test_too_few_waits_and_waits_elsewhere_are_no_history():
    assert wait(place(), [finished(), finished()]) == NO_HISTORY
    assert wait(place(), [finished(queue="long")] * 9) == NO_HISTORY
    assert "0 to 6 h" in NO_HISTORY.source


def test_an_old_look_widens_the_answer_and_a_stale_one_is_dropped():
    fresh, old = wait(place(snapshot(age_s=10))), wait(place(snapshot(age_s=1200)))
    assert old.p90_s - fresh.p90_s == 1190
    assert old.source == "4 nodes free now, seen 20 min ago"
    assert wait(place(snapshot(age_s=3601))) == NO_HISTORY


def test_a_look_from_the_future_counts_as_new():
    assert wait(place(snapshot(age_s=-500))).p90_s == 60


IDLE_HOST = snapshot(nodes("fork", total=1, free=1, free_cores=4))
BUSY_HOST = snapshot(nodes("fork", total=1, free=0, free_cores=0), jobs=(running(partition="fork"),))
THIS_MACHINE = host("elm", notes={"berth": {"backend": "local"}})


def test_a_job_on_a_host_starts_at_once_however_busy_it_is():
    assert wait(view(host("elm"), IDLE_HOST).host_place).source == "it starts at once on the host"
    assert wait(view(host("elm"), BUSY_HOST).host_place).source.endswith("beside what keeps it busy")
    assert wait(view(cluster("alder"), full()).host_place, job_type=JobType.FORK).p90_s == 5


def test_this_machine_queues_jobs_when_its_slots_are_taken_and_says_itself_how_long():
    assert wait(view(THIS_MACHINE, IDLE_HOST).host_place).p90_s == 5
    assert wait(view(THIS_MACHINE, BUSY_HOST).host_place).source == "a replay of 1 visible job"
    answered = replace(BUSY_HOST, starts=((StartProbe("fork", Resources()), NOW + timedelta(minutes=3)),))
    term = wait(view(THIS_MACHINE, answered).host_place)
    assert (term.p50_s, term.source) == (180, "the site's scheduler")


def test_a_partition_without_nodes_is_no_error():
    empty = snapshot(nodes(total=0, free=0, free_cores=0, cores=0, memory_mib=0))
    assert wait(place(empty)) == NO_HISTORY


# -- run --


def test_run_times_come_from_the_users_runs_of_the_image_first():
    mine = [finished(run_s=s) for s in (100, 200, 300)]
    others = [finished(run_s=9, owner="bob")] * 9
    term = whole(place(), mine + others, walltime_s=3600).run
    assert (term.p50_s, term.p90_s) == (200, 300)
    assert term.source == "the last 3 runs of this image by alice"
    assert whole(place(), others, walltime_s=3600).run.source == "the last 9 runs of this image"


def test_users_who_over_ask_are_known_by_it():
    runs = [finished(image="other", run_s=60, resources=Resources(walltime_s=600))] * 4
    term = whole(place(), runs, walltime_s=3600).run
    assert term.p50_s == pytest.approx(360)
    assert term.p90_s < 3600
    assert term.source == "what alice used of the walltime in 4 runs"


def test_without_runs_the_asked_walltime_is_the_bound():
    term = whole(place(), walltime_s=1000).run
    assert (term.p50_s, term.p90_s) == (400, 1000)


def test_no_run_lasts_longer_than_was_asked():
    assert whole(place(), [finished(run_s=9999)] * 3, walltime_s=1000).run.p90_s == 1000


def test_only_the_most_recent_runs_speak():
    old = [finished(run_s=9, ended_at=NOW - timedelta(days=9))] * 99
    assert whole(place(), [finished(run_s=100)] * 20 + old, walltime_s=3600).run.p90_s == 100


def test_failed_runs_teach_no_run_time():
    assert "no runs known" in whole(place(), [finished(completed=False)] * 9).run.source


@pytest.mark.parametrize(("factor", "p50_s"), [(2, 150), (0.5, 600), ("fast", 300), (-1, 300), (float("nan"), 300)])
def test_a_speed_factor_changes_the_run_time_and_nonsense_does_not(factor, p50_s):
    notes = {"berth": {"speedFactor": factor}}
    fast = PlaceOption(view(cluster("birch", CPU, notes=notes)), CPU)
    runs = [finished(run_s=300, system_id="alder")] * 3
    assert whole(fast, runs, walltime_s=3600).run.p50_s == p50_s


def test_an_array_takes_as_many_waves_as_the_place_needs():
    tasks = ArraySpec(tuple(range(40)))
    term = whole(place(snapshot()), walltime_s=1000, array=tasks).run  # 16 cores: 16, 16 and 8 tasks
    assert (term.p50_s, term.p90_s) == (3 * 400, 3 * 1000)
    limited = whole(place(snapshot()), walltime_s=1000, array=replace(tasks, limit=10)).run
    assert limited.p50_s == 4 * 400


# -- before the next in line --


def hole(*starts_h: float | None, planned: int = 1, walltime_s: int = 3600, needed: int = 1):
    """One node is kept for jobs that the site starts in so many hours."""
    line = [
        waiting(16, remote_id=str(n), expected_start_at=None if hours is None else NOW + timedelta(hours=hours))
        for n, hours in enumerate(starts_h)
    ]
    look = snapshot(nodes(free=0, planned_nodes=planned, free_cores=4 * planned), jobs=tuple(line))
    return wait(place(look), walltime_s=walltime_s, nodes=needed)


def test_a_job_that_ends_before_the_next_in_line_has_the_nodes_that_are_kept_for_it():
    found = hole(2, 5)
    assert (found.p50_s, found.source) == (5, "1 node free until 2 jobs in line may start")


@pytest.mark.parametrize(
    "other",
    [hole(1), hole(None, 9), hole(9, needed=2), hole(), hole(9, walltime_s=2**40)],
    ids=["starts-too-soon", "start-unknown", "too-few-nodes", "line-not-shown", "for-ever"],
)
def test_what_may_meet_the_next_in_line_waits(other):
    assert "free" not in other.source


# -- staging, archive, notes --


def test_staging_and_archive_say_that_they_are_guesses():
    inputs = tuple(FileInput(source_url=url) for url in ("tapis://alder/x", "https://example.org/y", "tapis://birch/z"))
    result = whole(place(), file_inputs=inputs, archive_system_id="store")
    assert (result.staging.p50_s, result.archive.p50_s) == (30, 10)
    assert "guess" in result.staging.source
    assert "guess" in result.archive.source
    assert whole(place(), runtime=Runtime.NONE).staging.p90_s == 0
    assert whole(place(), archive_mode=ArchiveMode.NEVER).archive.p90_s == 0


def test_a_price_is_noted():
    paid = PlaceOption(view(cluster("birch", CPU, notes={"berth": {"pricePerCoreHour": 0.5}})), CPU)
    assert whole(paid, walltime_s=7200, nodes=2, cores_per_node=4).notes == ("at most 8.00 USD",)


def test_staging_hides_behind_the_wait_and_spread_has_a_price():
    result = whole(place(snapshot()), walltime_s=1000)
    assert result.total_p50_s == max(5, 20) + 400 + 2
    assert result.total_p50_s < score_s(result) < result.total_p90_s


def test_who_will_stand_behind_a_job_is_counted_against_it():
    """Ten of our jobs came in a day, and none before: where there is a queue each will be later by the job's work over
    all cores.
    """
    hours = (timedelta(hours=n) for n in range(1, 11))
    came = [finished(ended_at=NOW - each, owner="bob", image="other", system_id="birch") for each in hours]
    alone, followed = whole(place()), whole(place(), came)
    assert followed.expected_s > alone.expected_s + 30
    long_ago = [replace(each, submitted_at=NOW - timedelta(days=2)) for each in came]
    assert whole(place(), long_ago).expected_s == alone.expected_s
    empty = place(snapshot())
    assert whole(empty, came).expected_s == pytest.approx(whole(empty).expected_s, abs=1)


class Recording:
    """A spec that keeps what was read of it."""

    def __init__(self, spec):
        self._spec, self.read = spec, set()

    def __getattr__(self, name):
        self.read.add(name)
        return getattr(self._spec, name)


def test_estimators_read_nothing_of_a_spec_that_is_not_in_its_likeness():
    asked = ask(deadline_at=NOW + timedelta(hours=1), usd_per_hour=1.0, usd_per_kwh=1.0, gpus_per_node=1)
    priced = view(cluster(notes={"berth": {"pricePerCoreHour": 1, "wattsPerCore": 1}}), snapshot(nodes(gpus=1)))
    whole, judged = Recording(asked.spec), Recording(asked.spec)
    likeness(replace(asked, spec=whole))
    told = problem(replace(asked, spec=judged), priced, view(host()))
    for its_view in told.systems:
        for option in (its_view.host_place, *its_view.queue_places):
            outlook(told.asks[0], option, Evidence.of(told))
    assert judged.read <= whole.read
