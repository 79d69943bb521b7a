"""Who predicted the waits of our jobs better is believed, queue by queue, and only after enough of them."""

from dataclasses import replace
from datetime import timedelta

import pytest

from placement.estimate import outlook
from placement.evidence import Evidence
from placement.problem import PlaceKey, PlaceOption
from placement.queue_wait import queue_wait
from placement.scores import FEWEST, LAST, Scores
from scheduler.model.runs import Resources
from scheduler.model.snapshots import StartProbe
from tests.placement.worlds import NOW, ask, cluster, finished, nodes, problem, queue, running, snapshot, spec, view

HERE = PlaceKey("alder", "cpu")
RIGHT, WRONG = (600.0, 1200.0), (20_000.0, 50_000.0)
CPU = queue("cpu")


def runs(count, **told):
    run = replace(finished(wait_s=600), told_waits_s=told)
    return tuple(replace(run, ended_at=run.ended_at + timedelta(seconds=n)) for n in range(count))


def test_the_most_trusted_is_believed_until_both_were_seen_often_enough():
    few, enough = (Scores(runs(count, site=WRONG, replay=RIGHT)) for count in (FEWEST - 1, FEWEST))
    assert few.best(HERE, ("site", "replay")) == "site"
    assert enough.best(HERE, ("site", "replay")) == "replay"
    assert enough.best(PlaceKey("alder", "gpu"), ("site", "replay")) == "site"


def test_who_is_hardly_better_takes_nobodys_place():
    scores = Scores(runs(FEWEST, site=RIGHT, replay=(600.0, 1190.0)))
    assert scores.best(HERE, ("site", "replay")) == "site"


def test_a_score_is_of_the_last_starts_only():
    old = tuple(replace(run, ended_at=run.ended_at - timedelta(days=9)) for run in runs(LAST, site=WRONG))
    score = Scores((*old, *runs(LAST, site=RIGHT))).of(HERE, "site")
    assert (score.start_count, score.coverage_share) == (LAST, 1.0)
    assert score.loss_s == pytest.approx(0.1 * 600)


def test_runs_that_the_system_broke_score_nobody():
    broken = tuple(replace(run, broken=True) for run in runs(FEWEST, site=WRONG))
    assert Scores(broken).of(HERE, "site") is None


# -- as it decides --

FULL = tuple(running(remote_id=str(n)) for n in range(4))
PROBE = (StartProbe("cpu", Resources()), NOW + timedelta(hours=9))


def evidence(*history):
    look = snapshot(nodes(free=0, free_cores=0), jobs=FULL, starts=(PROBE,))
    place = PlaceOption(view(cluster("alder", CPU), look), CPU)
    return place, Evidence.of(problem((), place.view, history=history))


def test_the_site_is_believed_first_and_the_replay_where_it_did_better():
    assert queue_wait(spec(), *evidence()).source == "the site's scheduler"
    better = queue_wait(spec(), *evidence(*runs(20, site=WRONG, replay=RIGHT)))
    assert better.source == "a replay of 4 visible jobs; 100% of its last 20 p90 held for jobs of ours"


def test_what_everyone_said_is_kept_to_score_them_by():
    told = outlook(ask(), *evidence(*runs(3))).estimate.told_waits_s
    assert list(told) == ["site", "replay", "history"]
    assert told["site"][0] == pytest.approx(9 * 3600)
