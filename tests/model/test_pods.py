"""The life of a pod is one table."""

import itertools

import pytest

from scheduler.model.errors import IllegalMove
from scheduler.model.pods import (
    AT_REST,
    ON_ITS_WAY,
    POD_MOVES,
    NetProtocol,
    PodDefinition,
    PodEvent,
    PodNet,
    PodStatus,
    pod_move,
)

P, E = PodStatus, PodEvent


@pytest.mark.parametrize(("status", "event"), list(itertools.product(PodStatus, PodEvent)))
def test_a_pair_without_a_row_raises_and_never_guesses(status, event):
    if (status, event) in POD_MOVES:
        assert pod_move(status, event) is POD_MOVES[status, event]
    else:
        with pytest.raises(IllegalMove):
            pod_move(status, event)


def test_only_somebody_who_wants_it_moves_a_pod_that_is_at_rest():
    assert {event for status, event in POD_MOVES if status in AT_REST} == {E.WANTED}


def test_every_pod_on_its_way_can_be_stopped_and_can_fail():
    for status in ON_ITS_WAY:
        assert pod_move(status, E.STOPPING) is P.DELETING
        assert pod_move(status, E.FAILED) is P.ERROR


def test_a_pod_is_stopped_only_when_it_is_proven_gone():
    assert {pair for pair, after in POD_MOVES.items() if after is P.STOPPED} == {(P.DELETING, E.GONE)}


def test_a_pod_is_available_only_when_it_answered():
    assert {pair for pair, after in POD_MOVES.items() if after is P.AVAILABLE} == {(P.CREATING, E.ANSWERED)}


def test_ports_with_several_names_are_listened_to_once():
    nets = tuple(PodNet(name=name, protocol=NetProtocol.HTTP, port=80) for name in ("default", "other"))
    assert PodDefinition(image="x", nets=nets).ports == (80,)
