"""Ways to a pod's ports that do not lead through the API server: node ports, and names at the cluster's own proxy.

They are made where the system's notes ask for them, by whoever first wants to reach the pod, and belong to its Job.
Nothing depends on them: what is not reached by a node port is reached through the API server.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from backends.k8s.api import SERVICES, Api, Object, Refused, ensured
from backends.k8s.fronts import Outside, about, fronts
from backends.k8s.objects import MARKER, WAYS
from backends.k8s.site import Site
from backends.streams import SocketChannel
from scheduler.model.errors import NothingLearnt
from scheduler.model.ids import Marker, RemoteId

DIAL_S = 2.0
"""How long a node may take to accept a connection."""

AVOID_S = 60.0
"""For so long a node is not tried again that did not answer, nor the cluster asked again that refused."""

KNOWN = 10_000
"""Pods of which the node ports are remembered; they are asked for again after that."""

NODE_PORTS = range(30_000, 32_768)
"""Where clusters put node ports unless they are told otherwise; Berth connects to no other port of a node."""

Networks = Sequence[IPv4Network | IPv6Network]
Dial = Callable[[str, int], Awaitable[SocketChannel]]

log = logging.getLogger(__name__)


async def dial(address: str, port: int) -> SocketChannel:
    return SocketChannel(*await asyncio.open_connection(address, port))


class Ways:
    """Of one namespace whose notes ask for them."""

    def __init__(
        self,
        api: Api,
        site: Site,
        allowed: Networks = (),
        *,
        dial: Dial = dial,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """allowed: where nodes may be that Berth connects to."""
        self._api, self._site, self._allowed, self._dial, self._monotonic = api, site, allowed, dial, monotonic
        self._ports: dict[RemoteId, Mapping[int, int]] = {}
        self._named: set[RemoteId] = set()
        """Pods of which the cluster's own proxy knows the names."""
        self._avoided: dict[str, float] = {}

    async def connect(self, remote_id: RemoteId, marker: Marker, port: int, pod: Object) -> SocketChannel | None:
        """To a port of a pod that runs, by its own node; None where no way leads there, or nobody listens."""
        if port not in (outside := ways_of(pod)):
            return None
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": marker, "uid": remote_id}
        if (ports := self._ports.get(remote_id)) is None:
            ports = await self._made(remote_id, service(marker, owner, outside, self._site))
        if remote_id in self._ports and remote_id not in self._named:
            await self._name(remote_id, fronts(marker, owner, outside, self._site))
        node = str(pod["status"].get("hostIP", ""))
        if port not in ports or self._is_avoided(node) or not self._may_reach(node):
            return None
        try:
            async with asyncio.timeout(DIAL_S):
                return await self._dial(node, ports[port])
        except TimeoutError:
            self._avoid(node)
        except OSError:
            self._ports.pop(remote_id, None)  # nobody listens, or its Service is gone
        return None

    async def forget(self, marker: Marker, job: Object) -> None:
        """Give back the node ports of a run that has ended; its Job may stay for a day."""
        if not (outside := ways_of(job["spec"]["template"])):
            return
        made = [(SERVICES, marker)]
        made += [(kind, one["metadata"]["name"]) for kind, one in fronts(marker, {}, outside, self._site)]
        try:
            await asyncio.gather(*(self._api.delete(kind, name) for kind, name in made))
        except NothingLearnt as error:
            log.info("the Service of %s stays as long as its Job: %s", marker, error)

    async def _made(self, remote_id: RemoteId, wanted: Object) -> Mapping[int, int]:
        """Port -> node port, once the Service is there; empty where the cluster refuses."""
        there = await self._ensure(SERVICES, wanted)
        if there is None:
            return {}
        if len(self._ports) >= KNOWN:
            self._ports.clear()
            self._named.clear()
        self._ports[remote_id] = node_ports_of(there) if self._site.node_ports else {}
        return self._ports[remote_id]

    async def _name(self, remote_id: RemoteId, wanted: Iterator[tuple[Any, Object]]) -> None:
        """Names at the cluster's proxy. One that does not come takes neither the others nor node ports away."""
        if None not in [await self._ensure(kind, one) for kind, one in wanted]:
            self._named.add(remote_id)

    async def _ensure(self, kind: Any, wanted: Object) -> Object | None:
        """What is there, made where it was not; None where the cluster refuses, which is then asked later."""
        if self._is_avoided(what := wanted["kind"]):
            return None
        try:
            there = await ensured(self._api, kind, wanted)
            if there["metadata"].get("ownerReferences") != wanted["metadata"]["ownerReferences"]:
                raise Refused(409, "AlreadyExists", f"{wanted['metadata']['name']} is there that is not this pod's")
        except NothingLearnt as error:
            log.warning("%s goes without its %s: %s", wanted["metadata"]["name"], what, error)
            self._avoid(what)
            return None
        return there

    def _may_reach(self, node: str) -> bool:
        try:
            address = ip_address(node)
        except ValueError:
            return False
        return any(address in network for network in self._allowed if network.version == address.version)

    def _avoid(self, what: str) -> None:
        """A node, or a kind of objects."""
        self._avoided[what] = self._monotonic() + AVOID_S

    def _is_avoided(self, what: str) -> bool:
        return self._monotonic() < self._avoided.get(what, 0.0)


def ways_of(pod: Object) -> Outside:
    """As they were noted when the pod was made; none where that cannot be read."""
    try:
        told = json.loads(pod["metadata"].get("annotations", {}).get(WAYS, "{}"))
        return {int(port): [str(name) for name in names] for port, names in told.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def node_ports_of(service: Object) -> Mapping[int, int]:
    """Port -> node port. One that was made before the notes asked for node ports has none."""
    found = {one.get("port"): one.get("nodePort") for one in service["spec"].get("ports", ())}
    return {port: number for port, number in found.items() if number in NODE_PORTS}


def service(marker: Marker, owner: Object, outside: Outside, site: Site) -> Object:
    """Local traffic alone: Berth asks a pod's own node, and policies see where a connection comes from."""
    spec: Object = {
        "type": "NodePort" if site.node_ports else "ClusterIP",
        "selector": {MARKER: marker},
        "ports": [{"name": f"port-{port}", "port": port, "targetPort": port} for port in outside],
    }
    if site.node_ports:
        spec["externalTrafficPolicy"] = "Local"
    return {"apiVersion": "v1", "kind": "Service", "metadata": about(marker, marker, owner), "spec": spec}
