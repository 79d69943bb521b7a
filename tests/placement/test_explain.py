"""What people read: rejections, refusals and advice in words, in a stable order."""

from __future__ import annotations

import pytest

from placement.explain import advice, refusal, rejection_sentence
from placement.filters import screen
from placement.words import about, duration
from scheduler.model.plan import Reason, Rejection
from tests.placement.worlds import ask, cluster, host, problem, queue, view


def screened(an_ask, *views):
    return screen(problem(an_ask, *views))[an_ask.job_uuid]


@pytest.mark.parametrize("reason", list(Reason))
@pytest.mark.parametrize("queue_name", [None, "debug"])
@pytest.mark.parametrize("words", [("", ""), ("24 h", "at most 10 min")])
def test_every_rejection_has_a_sentence_that_names_the_place(reason, queue_name, words):
    rejection = Rejection(system_id="alder", queue=queue_name, reason=reason, asked=words[0], limit=words[1])
    sentence = rejection_sentence(rejection)
    assert "'alder'" in sentence
    assert queue_name is None or "'debug'" in sentence
    assert "None" not in sentence


def test_a_walltime_that_is_too_long_is_said_in_words_with_advice():
    system = cluster("alder", queue("debug", max_walltime_s=600))
    screening = screened(ask(walltime_s=86_400), view(system), view(host("elm", runtimes=()), may_execute=frozenset()))
    assert refusal(screening) == (
        "No system can run it: queue 'debug' of 'alder' allows at most 10 min of walltime (24 h asked); "
        "alice may not run jobs on 'elm'"
    )
    assert advice(screening) == (
        "ask for at most 10 min of walltime to use queue 'debug' of 'alder'",
        "ask the owner of 'elm' for the permission EXECUTE",
    )


def test_no_advice_where_two_things_stand_in_the_way():
    system = cluster("alder", queue("debug", max_walltime_s=600, max_nodes=1))
    assert advice(screened(ask(walltime_s=86_400, nodes=2), view(system))) == ()


def test_what_fits_later_is_said_to_wait_and_not_to_fail():
    screening = screened(ask(), view(cluster("alder", queue(max_jobs=0))), view(cluster("birch", enabled=False)))
    assert refusal(screening) == "It fits, but not now: queue 'cpu' of 'alder' is at its limit of 0 jobs"


def test_systems_that_were_not_meant_stay_unsaid():
    named = ask(dynamic=False, exec_system_id="alder", nodes=9)
    screening = screened(named, view(cluster("alder", queue(max_nodes=1))), view(cluster("birch")))
    assert refusal(screening) == "No system can run it: queue 'cpu' of 'alder' allows at most 1 node (9 nodes asked)"
    assert refusal(screened(named, view(cluster("birch")))).endswith("'birch' is not the system asked for, 'alder'")
    assert refusal(screened(named)) == "There is no system to run it on"


@pytest.mark.parametrize(
    ("seconds", "exact", "rough"),
    [
        (0, "0 s", "no time"),
        (59, "59 s", "59 s"),
        (360, "6 min", "6 min"),
        (5400, "1 h 30 min", "1.5 h"),
        (86_400, "24 h", "24 h"),
        (90_061, "25 h 1 min 1 s", "25 h"),
        (259_200, "3 d", "3 days"),
    ],
)
def test_durations_are_written_for_people(seconds, exact, rough):
    assert duration(seconds) == exact
    assert about(seconds) == rough
