"""Routes: which name leads where is decided from what the store says, and from nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from gateway.routes import HOLD_S, MAY_COME_BACK, WHY_CLOSED, RouteState, routes
from scheduler.model.pod_names import domain_of, host_name
from scheduler.model.pods import NetProtocol, PodStatus
from scheduler.model.tenants import Tenant
from tests.gateway.nets import DOMAINS, NOW, instance, net, open_net

P, S = PodStatus, RouteState
NAME = "web.pods.localhost"


def test_the_default_net_leaves_no_trace_in_the_name():
    assert host_name("web", "default", "pods.example.org") == "web.pods.example.org"
    assert host_name("web", "admin", "pods.example.org") == "web-admin.pods.example.org"


def test_a_tenant_with_a_host_has_its_pods_below_it():
    assert (
        domain_of(Tenant(id="a", site_id="s", hosts=("Lab.example.org",)), "pods.localhost") == "pods.lab.example.org"
    )
    assert domain_of(Tenant(id="a", site_id="s"), "pods.localhost") == "pods.localhost"


def test_an_available_pod_is_open_at_its_newest_instance():
    nets = [open_net(behind=instance(2, "r2")), open_net(behind=instance(1, "r1"))]
    found = routes(nets, DOMAINS, {}, NOW)[NAME]
    assert found.state is S.OPEN
    assert found.target.remote_id == "r2"
    assert found.target.port == 5000


@pytest.mark.parametrize("status", [status for status in PodStatus if status is not P.AVAILABLE])
def test_a_pod_that_is_not_available_is_closed_with_a_reason(status):
    found = routes([open_net(status=status)], DOMAINS, {}, NOW)[NAME]
    assert (found.state, found.target) == (S.CLOSED, None)
    assert WHY_CLOSED[status] in found.reason


def test_a_port_that_is_local_only_has_no_name():
    assert routes([open_net(of_net=net(protocol=NetProtocol.LOCAL_ONLY))], DOMAINS, {}, NOW) == {}


def test_a_pod_of_an_unknown_tenant_has_no_name():
    assert routes([open_net(tenant="gone")], DOMAINS, {}, NOW) == {}


@pytest.mark.parametrize("status", sorted(MAY_COME_BACK - {P.AVAILABLE}))
def test_connections_wait_for_a_pod_that_answered_until_just_now_but_not_for_long(status):
    known = routes([open_net()], DOMAINS, {}, NOW)
    for passed_s in (0, HOLD_S / 2, HOLD_S - 1):
        known = routes([open_net(status=status)], DOMAINS, known, NOW + timedelta(seconds=passed_s))
        assert known[NAME].state is S.HELD
        assert known[NAME].held_until == NOW + timedelta(seconds=HOLD_S)
    known = routes([open_net(status=status)], DOMAINS, known, NOW + timedelta(seconds=HOLD_S))
    assert known[NAME].state is S.CLOSED
    again = routes([open_net(status=status)], DOMAINS, known, NOW + timedelta(seconds=HOLD_S + 1))
    assert again[NAME].state is S.CLOSED


@pytest.mark.parametrize("status", [P.STOPPED, P.DELETING, P.ERROR, P.COMPLETE])
def test_nobody_waits_for_a_pod_that_does_not_come_back(status):
    known = routes([open_net()], DOMAINS, {}, NOW)
    assert routes([open_net(status=status)], DOMAINS, known, NOW)[NAME].state is S.CLOSED


def test_connections_wait_as_long_as_the_next_instance_is_said_to_be_on_its_way():
    later = NOW + timedelta(seconds=60)
    coming = open_net(status=P.REQUESTED, held_until=later)
    for now, state in ((NOW, S.HELD), (later - timedelta(seconds=1), S.HELD), (later, S.CLOSED)):
        assert routes([coming], DOMAINS, {}, now)[NAME].state is state


def test_an_older_instance_that_answers_serves_until_the_newer_one_does():
    newer = open_net(status=P.AVAILABLE, behind=instance(2, None))
    found = routes([newer, open_net(behind=instance(1, "r1"))], DOMAINS, {}, NOW)[NAME]
    assert found.target.remote_id == "r1"


@pytest.mark.parametrize(
    ("allowed", "address", "admitted"),
    [
        ((), "203.0.113.9", True),
        (("203.0.113.0/24",), "203.0.113.9", True),
        (("203.0.113.9",), "203.0.113.9", True),
        (("203.0.113.9/24",), "203.0.113.77", True),
        (("203.0.113.0/24",), "198.51.100.1", False),
        (("203.0.113.0/24",), "::ffff:203.0.113.9", True),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "203.0.113.9", False),
        (("nonsense",), "203.0.113.9", False),
        (("0.0.0.0/0",), "nonsense", False),
    ],
)
def test_only_listed_networks_are_admitted(allowed, address, admitted):
    route = routes([open_net(of_net=net(ip_allow=allowed))], DOMAINS, {}, NOW)[NAME]
    assert route.admits(address) is admitted


def test_a_port_that_the_instance_was_not_started_with_is_closed_at_once_and_says_why():
    known = routes([open_net()], DOMAINS, {}, NOW)
    found = routes([open_net(of_net=net(port=8000), port=None)], DOMAINS, known, NOW)[NAME]
    assert (found.state, found.target) == (S.CLOSED, None), "nobody waits: the next start may be days away"
    assert found.reason == "the pod web was started without port 8000: that changes with its next start"


def test_rules_of_now_stand_before_the_port_that_runs():
    found = routes([open_net(of_net=net(port=8000, needs_login=True), port=5000)], DOMAINS, {}, NOW)[NAME]
    assert (found.state, found.target.port, found.net.needs_login) == (S.OPEN, 5000, True)


def test_the_order_of_rows_changes_nothing():
    nets = [open_net(behind=instance(n, f"r{n}")) for n in (1, 2, 3)] + [open_net(pod_id="db", status=P.STOPPED)]
    assert routes(nets, DOMAINS, {}, NOW) == routes(list(reversed(nets)), DOMAINS, {}, NOW)


def test_a_route_names_its_net_so_that_its_rules_go_with_it():
    guarded = net(needs_login=True)
    route = routes([open_net(of_net=guarded)], DOMAINS, {}, NOW)[NAME]
    assert route.net is guarded
