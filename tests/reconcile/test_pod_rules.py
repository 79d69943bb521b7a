"""What is decided about pods, as tables: the same rows, the same step."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest

from scheduler.model.pods import (
    ON_ITS_WAY,
    Desired,
    InstanceState,
    NetProtocol,
    PodDefinition,
    PodEvent,
    PodNet,
    PodStatus,
    pod_move,
)
from scheduler.model.runs import Ending
from scheduler.reconcile.pod_rules import Do, conclusion, next_step, place_again_at, replaced_at, standing, way
from tests.store.test_pods import a_pod, an_instance
from tests.store.things import NOW

P, E, I = PodStatus, PodEvent, InstanceState  # noqa: E741

NETS = (PodNet(name="default", protocol=NetProtocol.HTTP, port=5000),)
STATEFUL = PodDefinition(image="x", nets=NETS)
STATELESS = PodDefinition(image="x", nets=NETS, is_stateful=False)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("state", "seen", "age_s", "do"),
    [
        (I.QUEUED, {"put_off": True}, 31, Do.END),
        (I.QUEUED, {"put_off": True}, 5, Do.WAIT),
        (I.QUEUED, {}, 9999, Do.WAIT),
        (I.RUNNING, {"put_off": True}, 31, Do.WAIT),
    ],
)
def test_an_instance_that_is_put_off_is_ended_soon_and_one_that_waits_for_room_is_not(state, seen, age_s, do):
    one = an_instance(a_pod(), state=state, seen=seen, intended_at=NOW - timedelta(seconds=age_s), message="it waits")
    pod = a_pod(status=standing([one], NOW), message="it waits")
    step = next_step(pod, [one], NOW)
    assert step.do is do
    assert step.until == (NOW + timedelta(seconds=25) if (age_s, state) == (5, I.QUEUED) else None)
    assert next_step(replace(pod, status=P.AVAILABLE), [one], NOW).do is Do.FOLLOW, "first people are told"


@pytest.mark.parametrize(("status", "target"), list(itertools.product(sorted(ON_ITS_WAY), sorted(ON_ITS_WAY))))
def test_every_status_on_the_way_is_reached_from_every_other_by_the_table(status, target):
    here = status
    for event in way(status, target):
        here = pod_move(here, event)
    assert here is target


@pytest.mark.parametrize(
    ("states", "answers", "status"),
    [
        ([], [], P.REQUESTED),
        ([I.INTENDED], [None], P.SPAWNER_SETUP),
        ([I.QUEUED], [None], P.SUBMITTED),
        ([I.RUNNING], [None], P.CREATING),
        ([I.RUNNING], [0], P.AVAILABLE),
        ([I.RUNNING], [11], P.CREATING),
        ([I.QUEUED], [0], P.SUBMITTED),
        ([I.RUNNING, I.QUEUED], [0, None], P.AVAILABLE),
        ([I.ENDED, I.QUEUED], [0, None], P.SUBMITTED),
    ],
)
def test_a_pod_stands_where_its_instances_are(states, answers, status):
    instances = [
        an_instance(a_pod(), n, state=state, answered_at=None if age is None else NOW - timedelta(seconds=age))
        for n, (state, age) in enumerate(zip(states, answers, strict=True), 1)
    ]
    assert standing(instances, NOW) is status


@pytest.mark.parametrize("state", [I.INTENDED, I.QUEUED, I.RUNNING])
@pytest.mark.parametrize("status", sorted(P))
def test_nothing_is_at_rest_or_gone_while_anything_may_run(status, state):
    pod = a_pod(status=status, desired=Desired.OFF, delete_requested_at=NOW, instance_number=1)
    step = next_step(pod, [an_instance(pod, state=state)], NOW)
    assert step.do is (Do.STOP if status in ON_ITS_WAY else Do.END)


@pytest.mark.parametrize("definition", [STATEFUL, STATELESS], ids=["stateful", "stateless"])
def test_only_a_pod_that_may_overlap_gets_its_next_instance_before_the_last_has_ended(definition):
    pod = a_pod(status=P.CREATING, definition=definition, instance_number=1)
    leaving = an_instance(pod, state=I.RUNNING, unwanted_at=NOW + timedelta(seconds=5))
    assert next_step(pod, [leaving], NOW).do is (Do.WAIT if definition.is_stateful else Do.PLACE)


def ended(pod, number=1, **changes):
    asked = {"state": I.ENDED, "remote_id": "7", "started_at": NOW, "ended_at": NOW, "ending": Ending.FAILED}
    return an_instance(pod, number, **{**asked, "exit_code": 1, **changes})


@pytest.mark.parametrize(
    ("changes", "event"),
    [
        ({"ending": Ending.COMPLETED, "exit_code": 0}, E.COMPLETED),
        ({"ending": Ending.FAILED}, E.UNPLACED),
        ({"ending": Ending.OUT_OF_MEMORY, "exit_code": 137}, E.UNPLACED),
        ({"ending": Ending.NODE_FAILURE, "exit_code": None}, E.UNPLACED),
        ({"ending": Ending.TIMEOUT, "exit_code": None}, E.UNPLACED),
        ({"ending": None, "remote_id": None, "exit_code": None}, E.UNPLACED),
        ({"ending": Ending.LAUNCH_FAILURE, "remote_id": None, "exit_code": None}, E.FAILED),
        ({"ending": Ending.COMPLETED, "exit_code": 0, "unwanted_at": NOW}, E.UNPLACED),
    ],
)
def test_what_follows_from_an_end_depends_on_how_it_came(changes, event):
    pod = a_pod(status=P.CREATING, instance_number=1)
    assert conclusion(pod, [ended(pod, **changes)], NOW).event is event


def test_quick_ends_are_counted_in_a_row_and_since_somebody_last_wanted_the_pod():
    pod = a_pod(status=P.CREATING, instance_number=5)
    rows = [ended(pod, n) for n in range(1, 6)]
    assert conclusion(pod, rows, NOW).event is E.FAILED
    long_life = [*rows[:2], ended(pod, 3, started_at=NOW - HOUR), *rows[3:]]
    assert conclusion(pod, long_life, NOW).event is E.UNPLACED
    forgiven = a_pod(status=P.CREATING, instance_number=5, wanted_at=NOW + timedelta(seconds=1))
    assert conclusion(forgiven, rows, NOW).event is E.UNPLACED


def test_the_next_start_waits_longer_after_each_quick_end_and_not_after_a_long_life():
    pod = a_pod(status=P.REQUESTED)
    waits = [
        (place_again_at(pod, [ended(pod, n) for n in range(1, count + 1)]) - NOW).total_seconds()
        for count in range(1, 8)
    ]
    assert waits == [10, 20, 40, 80, 160, 300, 300]
    assert place_again_at(pod, [ended(pod, started_at=NOW - HOUR)]) == NOW


@pytest.mark.parametrize(
    ("definition", "wait_p90_s", "before_s"),
    [(STATEFUL, 900.0, 60), (STATELESS, 0.0, 60), (STATELESS, 900.0, 960), (STATELESS, 9e9, 1800)],
)
def test_a_successor_is_asked_for_in_time_but_not_in_the_first_half_of_a_life(definition, wait_p90_s, before_s):
    pod = a_pod(status=P.AVAILABLE, definition=definition)
    instance = an_instance(pod, state=I.RUNNING, started_at=NOW, go_on_until=NOW + HOUR, wait_p90_s=wait_p90_s)
    assert replaced_at(pod, instance) == NOW + HOUR - timedelta(seconds=before_s)
