"""Which name leads where, now: a pure function of what the store says of pods and of what was before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from scheduler.model.ids import LoginKey, Marker, RemoteId
from scheduler.model.pod_names import host_name
from scheduler.model.pods import NetProtocol, OpenNet, PodNet, PodStatus

HOLD_S = 10
"""How long connections wait for a pod that answered until just now."""


class RouteState(StrEnum):
    """What becomes of a new connection."""

    OPEN = "OPEN"
    HELD = "HELD"
    """It waits: the pod answered until just now, and is to answer again."""
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class Target:
    """One port of one instance of a pod."""

    login: LoginKey
    remote_id: RemoteId
    marker: Marker
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where one name leads. target: set while OPEN. held_until: set while HELD. reason: while not OPEN, for people."""

    host_name: str
    tenant: str
    pod_id: str
    net: PodNet
    state: RouteState
    target: Target | None = None
    held_until: datetime | None = None
    reason: str = ""

    @property
    def protocol(self) -> NetProtocol:
        return self.net.protocol

    def admits(self, address: str) -> bool:
        """Whether a client of this address may come; a list of which nothing can be read admits nobody."""
        return not self.net.ip_allow or any(_within(address, each) for each in self.net.ip_allow)


Routes = Mapping[str, Route]
"""By host name, in lower case."""

WHY_CLOSED: Mapping[PodStatus, str] = {
    PodStatus.REQUESTED: "waits for a place",
    PodStatus.SPAWNER_SETUP: "is being prepared",
    PodStatus.SUBMITTED: "waits for its turn",
    PodStatus.CREATING: "is starting, or does not answer",
    PodStatus.AVAILABLE: "is being found",
    PodStatus.COMPLETE: "has ended",
    PodStatus.DELETING: "is being stopped",
    PodStatus.STOPPED: "is stopped",
    PodStatus.ERROR: "has failed",
}

MAY_COME_BACK = frozenset(
    {PodStatus.REQUESTED, PodStatus.SPAWNER_SETUP, PodStatus.SUBMITTED, PodStatus.CREATING, PodStatus.AVAILABLE}
)


def routes(nets: Iterable[OpenNet], domains: Mapping[str, str], before: Routes, now: datetime) -> dict[str, Route]:
    """The routes of now. domains: tenant -> domain. Of several instances of a net, the newest that answers counts."""
    found: dict[str, Route] = {}
    for each in sorted(nets, key=_preference):
        if each.net.is_outside and each.tenant in domains:
            name = host_name(each.pod_id, each.net.name, domains[each.tenant]).lower()
            found[name] = _route(name, each, before.get(name), now)
    return found


def _route(name: str, each: OpenNet, before: Route | None, now: datetime) -> Route:
    target = _target(each)
    route = Route(
        host_name=name, tenant=each.tenant, pod_id=each.pod_id, net=each.net, state=RouteState.OPEN, target=target
    )
    if target is not None:
        return route
    if each.status is PodStatus.AVAILABLE and each.instance is not None and each.port is None:
        reason = f"the pod {each.pod_id} was started without port {each.net.port}: that changes with its next start"
        return replace(route, state=RouteState.CLOSED, reason=reason)
    reason = f"the pod {each.pod_id} {WHY_CLOSED[each.status]}"
    held_until = _held_until(each, before, now) if each.status in MAY_COME_BACK else None
    state = RouteState.CLOSED if held_until is None else RouteState.HELD
    return replace(route, state=state, held_until=held_until, reason=reason)


def _held_until(each: OpenNet, before: Route | None, now: datetime) -> datetime | None:
    """Until when connections wait: for an instance that is on its way, or for what was OPEN until just now; None:
    they do not."""
    if each.held_until is not None and now < each.held_until:
        return each.held_until
    if before is None or before.state is RouteState.CLOSED:
        return None
    until = before.held_until or now + timedelta(seconds=HOLD_S)
    return until if now < until else None


def _target(each: OpenNet) -> Target | None:
    """Where the port is reached; None unless the pod is AVAILABLE, and was started with one for this net."""
    instance, port = each.instance, each.port
    if each.status is not PodStatus.AVAILABLE or instance is None or instance.remote_id is None or port is None:
        return None
    return Target(instance.login, instance.remote_id, instance.marker, port)


def _preference(each: OpenNet) -> tuple[bool, int]:
    """Later ones replace earlier ones of the same name."""
    return _target(each) is not None, each.instance.number if each.instance else 0


def _within(address: str, allowed: str) -> bool:
    try:
        client, network = _plain(address), ip_network(allowed.strip(), strict=False)
    except ValueError:
        return False
    return client in network


def _plain(address: str) -> IPv4Address | IPv6Address:
    """An address as its own kind: a listener of both kinds shows IPv4 clients inside IPv6."""
    parsed = ip_address(address.partition("%")[0])
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
