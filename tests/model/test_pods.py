"""The life of a pod is one table."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from scheduler.model.errors import IllegalMove
from scheduler.model.ids import marker_for
from scheduler.model.pods import (
    AT_REST,
    ON_ITS_WAY,
    POD_MOVES,
    NetProtocol,
    PodDefinition,
    PodEvent,
    PodInstance,
    PodNet,
    PodStatus,
    pod_move,
)
from scheduler.model.runs import RunSpec, Way

P, E = PodStatus, PodEvent
UUID = "0e0b1b5e-3f0a-4d1c-9f0e-2f1f3c4d5e6f-007"


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


# -- the port behind a net, when the pod has changed since its instance was started -----------------------------------


def http(name: str, port: int) -> PodNet:
    return PodNet(name=name, protocol=NetProtocol.HTTP, port=port)


@pytest.mark.parametrize(
    ("nets", "port"),
    [
        pytest.param([http("default", 5000)], 5000, id="nothing has changed"),
        pytest.param([http("default", 8000)], 5000, id="its port is another, and counts with the next start"),
        pytest.param([http("default", 8000), http("new", 5000)], None, id="its port is another net's now"),
        pytest.param([http("default", 7000), http("admin", 5000)], 7000, id="two nets changed places"),
        pytest.param([http("new", 7000)], 7000, id="it is new, on a port that runs"),
        pytest.param([http("new", 8000)], None, id="it is new, on a port that does not"),
    ],
)
@pytest.mark.parametrize("notes_names", [True, False])
def test_a_net_leads_to_a_port_that_the_instance_was_started_with(nets, port, notes_names):
    ways = (Way(5000, "web", "default"), Way(7000, "web-admin", "admin"))
    run = RunSpec(
        job_uuid=UUID, name="web", image="x", ports=(5000, 7000), exec_dir="/", input_dir="/", output_dir="/", ways=ways
    )
    if not notes_names:  # a run of an earlier release: only the port says whose it is
        run = replace(run, ways=tuple(replace(way, net="") for way in ways))
        port = nets[0].port if nets[0].port in run.ports else None
    instance = PodInstance(
        pod_uuid=UUID,
        number=1,
        marker=marker_for(UUID, 1),
        tenant="dev",
        system_id="local",
        owner="ann",
        queue=None,
        run=run,
        intended_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    assert instance.port_of(nets[0], nets) == port
