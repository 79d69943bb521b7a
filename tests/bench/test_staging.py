"""The model of staging on cases that can be reckoned by hand: a link of 1 byte per second, sizes in bytes."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from bench.staging import at_start, by_class, by_model, hidden_share, idle_node_hours, table, uses_of
from bench.staging_bound import crowded, foreseen
from bench.staging_model import Rules, Use, simulate
from bench.waits_traces import generated
from images.staging import SiteFacts

ONE = Rules(link_bytes_per_s=1.0)


def use(digest, placed, starts, size=10, ends=1000, nodes=1):
    return Use(
        digest=digest,
        size_bytes=float(size),
        nodes=nodes,
        placed_at_s=float(placed),
        starts_at_s=None if starts is None else float(starts),
        ends_at_s=float(ends),
    )


def images_for(jobs):
    trace = generated(jobs=jobs)
    return uses_of(trace, 0.8, 1, by_class(trace))


CASES = {
    "hidden behind the wait": ([use("a", 0, 10)], [0]),
    "no wait": ([use("a", 0, 0)], [10]),
    "part of it hidden": ([use("a", 0, 4)], [6]),
    "one transfer for all who want it": ([use("a", 0, 4), use("a", 2, 2), use("a", 50, 50)], [6, 8, 0]),
    "the second begins later, too": ([use("a", 0, 0), use("b", 0, 12)], [10, 8]),
    "what was staged for a job elsewhere": ([use("a", 0, None, ends=1), use("a", 20, 20)], [0]),
    "and takes its part of the link": ([use("a", 0, None), use("b", 0, 10)], [10]),
    "links rest in between": ([use("a", 0, 10), use("b", 100, 105)], [0, 5]),
}


@pytest.mark.parametrize(("uses", "delays"), CASES.values(), ids=CASES)
def test_a_job_waits_for_what_of_its_image_is_not_there_when_it_begins(uses, delays):
    assert simulate(uses, ONE).delays_s == delays


def test_what_is_needed_later_pauses_and_goes_on():
    """The second comes at 2 s and takes 5 s; the first has 28 bytes left then, and is there at 35 s."""
    uses = [use("late", 0, 34, size=30), use("soon", 2, 8, size=5)]
    assert simulate(uses, ONE).delays_s == [1, 0]


def test_an_image_goes_first_once_its_job_has_begun():
    """Both are foreseen alike; the first would be through at 20 s, but the job of the second begins at 5 s."""
    uses = [use("a", 0, 100, size=20), use("b", 0, 5, size=21)]
    assert simulate(uses, ONE).delays_s == [0, 21]


SMALL = replace(ONE, store_bytes=25.0, high_share=1.0, low_share=1.0)


def test_what_was_used_least_lately_goes_and_must_be_sent_again():
    uses = [
        *(use("a", 0, 10, ends=15), use("b", 20, 30, ends=35), use("a", 40, 40, ends=45)),
        *(use("c", 50, 60, ends=65), use("a", 70, 70, ends=75), use("b", 80, 80, ends=95)),
    ]
    told = simulate(uses, SMALL)
    assert told.delays_s == [0, 0, 0, 0, 0, 10]
    assert told.sent == 4


def test_what_a_job_needs_stays_and_one_without_room_fetches_for_itself():
    uses = [use("a", 0, 10, ends=500), use("b", 0, 20, ends=500), use("c", 30, 60, ends=500), use("a", 70, 70, ends=80)]
    told = simulate(uses, SMALL)
    assert told.delays_s == [0, 0, 10, 0]
    assert (told.sent, told.without_room) == (3, 1)


def test_where_nodes_have_copies_a_job_holds_the_store_only_until_they_do():
    """A store of 25 bytes: the second image makes it short, so that its job lets go of it after 1.5 s and 10 bytes."""
    uses = [use("a", 0, 10, ends=500), use("b", 0, 20, ends=500), use("c", 35, 60, ends=500)]
    copied = replace(SMALL, copied_by=SiteFacts(link_bytes_per_s=1.0, local_free_bytes=100))
    assert simulate(uses, SMALL).delays_s == [0, 0, 10]
    assert simulate(uses, copied).delays_s == [0, 0, 0]
    slow = replace(copied, copied_by=SiteFacts(link_bytes_per_s=0.1, local_free_bytes=100))
    assert simulate(uses, slow).delays_s == [0, 0, 10], "its nodes have no copies yet"


def test_one_without_room_is_sent_as_soon_as_there_is():
    uses = [use("a", 0, 10, ends=40), use("b", 0, 20, ends=500), use("c", 30, 60, ends=500)]
    told = simulate(uses, SMALL)
    assert told.delays_s == [0, 0, 0]
    assert told.without_room == 0


def test_a_job_that_begins_elsewhere_at_once_needs_no_room_any_more():
    uses = [use("a", 0, None, ends=0), use("b", 20, 30, ends=40), use("c", 20, 40, ends=50)]
    told = simulate(uses, SMALL)
    assert (told.delays_s, told.without_room) == ([0, 0], 0)


def test_who_knows_all_starts_lets_go_of_what_is_begun_last_and_brings_it_again():
    uses = [use("a", 0, 400, ends=500), use("b", 0, 20, ends=300), use("c", 30, 60, ends=70)]
    assert simulate(uses, SMALL).delays_s == [0, 0, 10]
    told = foreseen(uses, SMALL)
    assert told.delays_s == [0, 0, 0]
    assert (told.sent, told.without_room) == (4, 0)


def test_what_runs_together_and_does_not_fit_helps_no_knowledge():
    uses = [use("a", 0, 10, ends=500), use("b", 0, 20, ends=500), use("c", 30, 60, ends=500), use("d", 0, None)]
    told = foreseen(uses, SMALL)
    assert (told.delays_s, told.without_room) == ([0, 0, 10], 1)
    assert crowded(uses, SMALL.store_bytes) == [False, False, True]
    assert crowded([use("a", 0, 1), use("a", 0, 2), use("b", 0, 3)], SMALL.store_bytes) == [False] * 3


def test_knowing_all_starts_is_worth_something_in_a_small_store_and_nothing_in_one_that_holds_all():
    uses, all_bytes = images_for(300)
    small = Rules(link_bytes_per_s=125e6, store_bytes=0.05 * all_bytes)
    assert hidden_share(uses, foreseen(uses, small)) >= hidden_share(uses, simulate(uses, small))
    whole = replace(small, store_bytes=inf)
    assert hidden_share(uses, foreseen(uses, whole)) >= hidden_share(uses, simulate(uses, whole)) >= 0.95


def test_above_the_high_share_unused_images_go_until_the_low_share():
    rules = replace(ONE, store_bytes=100.0, high_share=0.5, low_share=0.3)
    used = [use(name, 100 * n, 100 * n + 50, ends=100 * n + 60) for n, name in enumerate("abcde")]
    again = [use(name, 1000 + 100 * n, 1000 + 100 * n, ends=1001 + 100 * n) for n, name in enumerate("edcf")]
    assert simulate([*used, use("f", 600, 650, ends=660), *again], rules).delays_s == [0] * 5 + [0, 0, 0, 10, 0]


def test_lost_node_hours_are_nodes_times_delay():
    uses = [use("a", 0, 0, nodes=720), use("b", 1000, 1010, nodes=99, ends=2000), use("c", 0, None)]
    assert idle_node_hours(uses, simulate(uses, ONE)) == 2.0


def test_a_recorded_queue_loses_less_than_where_images_come_when_jobs_begin():
    uses, all_bytes = images_for(300)
    late = [each for each in map(at_start, uses) if each is not None]
    rules = Rules(link_bytes_per_s=125e6, store_bytes=inf)
    ours, theirs = simulate(uses, rules), simulate(late, rules)
    assert len(ours.delays_s) == len(theirs.delays_s) == 300
    assert all_bytes > 500e9
    assert sum(ours.delays_s) < sum(theirs.delays_s)
    assert hidden_share(uses, ours) >= 0.95


def test_the_same_seed_gives_the_same_table():
    trace = generated(jobs=100)
    told = by_class(trace)
    assert table(trace, 1, told) == table(trace, 1, told) != table(trace, 2, told)


def test_waits_are_foreseen_by_what_was_seen_before_or_not_at_all():
    trace = generated(jobs=300)
    for told in (by_class(trace), by_model(trace)):
        assert len(told) == 300
        assert all(0 <= each.p50_s <= each.p90_s for each in told)
    later = replace(trace, jobs=[*trace.jobs[:200], *(replace(job, end_at_s=9e9) for job in trace.jobs[200:])])
    assert by_class(later)[:200] == by_class(trace)[:200]
