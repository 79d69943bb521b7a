"""Whom pods of runs may reach and who may reach them: one NetworkPolicy of Berth's in its namespace.

Berth itself comes in through the API server, which no policy hinders. A cluster whose network does not know
NetworkPolicies keeps the object and heeds nothing of it.
"""

from __future__ import annotations

import logging
from ipaddress import ip_network
from typing import Any

from backends.k8s.api import POLICIES, Api, Object, Refused
from backends.k8s.objects import MANAGED
from backends.k8s.site import Site
from scheduler.model.errors import NotAuthorised

log = logging.getLogger(__name__)

NAME = "berth-runs"
METADATA = ("169.254.169.254/32", "fd00:ec2::254/128")
"""Where clouds tell machines their credentials: nothing for the code of users."""

EVERYWHERE = ("0.0.0.0/0", "::/0")

NAME_OF_NAMESPACE = "kubernetes.io/metadata.name"
"""A label that every namespace has from Kubernetes 1.21 on."""


class Guard:
    """Puts the policy there before the first run of this process. That a login may not do so is told once."""

    def __init__(self, api: Api, site: Site) -> None:
        self._api, self._site = api, site
        self._is_done = not site.guards

    async def stand(self) -> None:
        """BackendUnavailable, and its like, where nothing was learnt; runs without it where the cluster says no."""
        if self._is_done:
            return
        wanted = policy(self._site)
        try:
            await self._ensure(wanted)
        except (NotAuthorised, Refused) as error:
            log.warning("pods in namespace %s are reached by others: no NetworkPolicy: %s", self._api.namespace, error)
        self._is_done = True

    async def _ensure(self, wanted: Object) -> None:
        try:
            await self._api.create(POLICIES, wanted)
        except Refused as refused:
            if not refused.exists:
                raise
            await self._api.merge(POLICIES, NAME, {"spec": wanted["spec"]})  # the notes may say something else by now


def _admitted(site: Site) -> list[Object]:
    """Who else comes to the ports of pods: Berth itself by node ports, and the proxies of the site."""
    networks = [{"ipBlock": {"cidr": each}} for each in site.admitted]
    named = [{"namespaceSelector": {"matchLabels": {NAME_OF_NAMESPACE: each}}} for each in site.admitted_namespaces]
    return [*networks, *named]


def policy(site: Site) -> Object:
    """Pods of this namespace, and whom the notes admit, come in; out goes everything but to what is denied."""
    denied = [ip_network(text) for text in (*METADATA, *site.denied)]
    ways: list[Any] = []
    for text in EVERYWHERE:
        whole = ip_network(text)
        some = [str(one) for one in denied if one.version == whole.version]
        if text not in some:
            ways.append({"ipBlock": {"cidr": text, "except": some}})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": NAME, "labels": dict(MANAGED)},
        "spec": {
            "podSelector": {"matchLabels": dict(MANAGED)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}, *_admitted(site)]}],
            # Some networks count no pod to a block of addresses.
            "egress": [{"to": [{"namespaceSelector": {}}]}, *([{"to": ways}] if ways else [])],
        },
    }
