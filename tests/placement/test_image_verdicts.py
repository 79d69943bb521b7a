"""Verdicts on images in placement: a no closes the place, anything less than a yes costs and is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement.engine import place
from placement.estimate import image_notes
from placement.explain import rejection_sentence
from placement.filters import screen
from scheduler.model.plan import Reason
from scheduler.model.runs import Runtime
from scheduler.model.verdicts import Fit, ImageAsk, ImageVerdict
from tests.placement.worlds import ask, cluster, nodes, problem, queue, snapshot, view

HELLO = "docker://registry.example.org/hello:1"
NO = ImageVerdict(fit=Fit.NO, reason="CUDA 12.4 needs driver 525 or newer", fix="use an image with an older CUDA")
FIXABLE = ImageVerdict(fit=Fit.FIXABLE, reason="the driver is old", fix="cuda/compat comes first", cost_s=30.0)
UNKNOWN = ImageVerdict(fit=Fit.UNKNOWN, reason="the GPU driver is not known", cost_s=300.0)
WARNED = ImageVerdict(fit=Fit.YES, warnings=("it runs over TCP, slowly",), cost_s=600.0)


def judged(verdict, queue_name=None, name="alder", **asked):
    return view(cluster(name), snapshot(), image_verdicts={(ImageAsk(HELLO, **asked), queue_name): verdict})


def placed(an_ask, *views):
    return place(problem(an_ask, *views)).decisions[an_ask.job_uuid]


@pytest.mark.parametrize("queue_name", ["cpu", None], ids=["its queue", "the whole system"])
def test_a_no_closes_the_place_and_says_why_and_what_to_do(queue_name):
    screening = screen(problem(ask(), judged(NO, queue_name)))["job-1"]
    assert not screening.possible
    (rejection,) = screening.rejections
    assert (rejection.reason, rejection.asked) == (Reason.IMAGE, HELLO)
    assert "needs driver 525 or newer; use an image with an older CUDA" in rejection_sentence(rejection)


def test_the_verdict_on_one_queue_says_nothing_of_another():
    system = cluster("alder", queue("cpu"), queue("gpu"))
    verdicts = {(ImageAsk(HELLO), "cpu"): NO, (ImageAsk(HELLO), None): FIXABLE}
    looked = view(system, snapshot(nodes("cpu"), nodes("gpu")), image_verdicts=verdicts)
    decision = placed(ask(), looked)
    assert decision.winner.queue == "gpu"
    assert [each.queue for each in decision.rejections] == ["cpu"]


@pytest.mark.parametrize(
    ("changes", "closed"),
    [
        ({}, True),
        ({"image": "docker://registry.example.org/other:1"}, False),
        ({"is_mpi": True}, False),
        ({"nodes": 2}, False),
        ({"runtime": Runtime.NONE}, False),
    ],
)
def test_a_verdict_holds_for_what_was_asked(changes, closed):
    assert screen(problem(ask(**changes), judged(NO)))["job-1"].possible is not closed


@pytest.mark.parametrize(
    ("verdict", "note"),
    [
        (FIXABLE, "image: the driver is old; cuda/compat comes first"),
        (UNKNOWN, "the image may not run: the GPU driver is not known"),
        (WARNED, "image: it runs over TCP, slowly"),
    ],
)
def test_less_than_a_yes_is_said_and_costs(verdict, note):
    winner = placed(ask(), judged(verdict)).winner
    assert note in winner.notes
    assert winner.costs_s["image"] == verdict.cost_s


def test_a_yes_and_no_verdict_at_all_are_silent():
    assert image_notes(ImageVerdict(fit=Fit.YES)) == image_notes(None) == ()
    assert "image" not in placed(ask(), judged(ImageVerdict(fit=Fit.YES))).winner.costs_s


def test_the_place_that_surely_runs_the_image_wins_among_equals():
    decision = placed(ask(), judged(UNKNOWN, name="alder"), judged(ImageVerdict(fit=Fit.YES), name="birch"))
    assert decision.winner.system_id == "birch"
    assert "less sure to run the image" in decision.sentence


@pytest.mark.parametrize("count", [2, 240])
def test_jobs_that_differ_in_their_image_only_are_judged_apart(count):
    """Also in a crowd, where jobs that are nearly alike share their estimates."""
    asks = tuple(ask(f"job-{n}", image=HELLO if n % 2 else f"{HELLO}{n}") for n in range(count))
    decisions = place(problem(asks, judged(FIXABLE))).decisions
    costly = {uuid for uuid, decision in decisions.items() if decision.winner and "image" in decision.winner.costs_s}
    assert costly == {each.job_uuid for each in asks if each.spec.image == HELLO and decisions[each.job_uuid].winner}
    assert costly
    closed = screen(problem(asks, judged(NO)))
    assert {uuid for uuid, screening in closed.items() if screening.rejections} == {
        each.job_uuid for each in asks if each.spec.image == HELLO
    }


def test_an_empty_set_of_verdicts_changes_no_plan():
    bare = judged(FIXABLE)
    assert placed(ask(), replace(bare, image_verdicts={})) == placed(ask(), view(cluster(), snapshot()))
