"""Whether a login may do in its namespace what Berth does there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from backends.k8s.api import REVIEWS, Api, Refused
from backends.k8s.site import Site, access_of, site_of
from scheduler.model.errors import CredentialRefused, NotAuthorised
from scheduler.model.systems import Credential, System


class Right(NamedTuple):
    """One thing that Berth does, as a role allows it."""

    group: str
    resource: str
    verb: str

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{f'.{self.group}' if self.group else ''}"


NEEDED = (
    *(Right("batch", "jobs", verb) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(Right("", "pods", verb) for verb in ("get", "list", "watch", "patch", "delete")),
    Right("", "pods/log", "get"),
    *(Right("", "secrets", verb) for verb in ("create", "get", "delete")),
)
"""Without these no job runs. Pods with ports also need ``create`` of pods/exec and pods/portforward."""

NEEDED_FOR_FILES = (Right("", "pods", "create"), Right("", "pods/exec", "create"))
"""Without these nothing comes to a volume nor from it."""

NEEDED_FOR_WAYS = tuple(Right("", "services", verb) for verb in ("create", "get", "delete"))
NEEDED_FOR_INGRESS = tuple(Right("networking.k8s.io", "ingresses", verb) for verb in ("create", "get", "delete"))
NEEDED_FOR_GATEWAY = tuple(
    Right("gateway.networking.k8s.io", "httproutes", verb) for verb in ("create", "get", "delete")
)
"""What ``nodePorts``, ``ingress`` and ``gateway`` stand on."""


async def verify(system: System, credential: Credential) -> tuple[str, ...]:
    """Ask the API server, as this login, what it may do; what it may not, but can do without, in words.

    CredentialRefused names what is missing.
    """
    site = site_of(system)
    try:
        api = Api(access_of(system, credential), site.namespace)
    except NotAuthorised as error:
        raise CredentialRefused(str(error)) from None
    try:
        rights = [right for rights, are_needed in _by_need(site) if are_needed for right in rights]
        wished = {right: words for rights, words, are_wished in _wishes(site, system) if are_wished for right in rights}
        allowed = await asyncio.gather(*(_allows(api, right) for right in (*rights, *wished)))
    except (NotAuthorised, Refused) as error:
        raise CredentialRefused(str(error)) from None
    finally:
        await api.aclose()
    refused = [right for right, may in zip((*rights, *wished), allowed, strict=True) if not may]
    if missing := [str(right) for right in refused if right in rights]:
        raise CredentialRefused(f"in namespace {site.namespace} this login may not: {', '.join(missing)}")
    return tuple(f"it may not {right}: {wished[right]}" for right in refused)


def _by_need(site: Site) -> Iterable[tuple[Iterable[Right], bool]]:
    return (
        (NEEDED, True),
        (NEEDED_FOR_FILES, site.volume is not None),
        (NEEDED_FOR_WAYS, site.has_ways),
        (NEEDED_FOR_INGRESS, site.ingress is not None),
        (NEEDED_FOR_GATEWAY, site.gateway is not None),
    )


def _wishes(site: Site, system: System) -> Iterable[tuple[Iterable[Right], str, bool]]:
    """What one can do without, and what is missed then."""
    policies = (Right("networking.k8s.io", "networkpolicies", verb) for verb in ("create", "patch"))
    return (
        (policies, "others in the cluster reach the pods of runs, and these reach everything", site.guards),
        ((Right("", "events", "list"),), "why the cluster makes no pod is not told", True),
        ((Right("", "pods/portforward", "create"),), "ports of pods are not reached", system.keeps_pods),
        ((Right("", "pods/exec", "create"),), "no command runs in a pod", system.keeps_pods and site.volume is None),
    )


async def _allows(api: Api, right: Right) -> bool:
    resource, _, part = right.resource.partition("/")
    asked = {"namespace": api.namespace, "verb": right.verb, "group": right.group, "resource": resource}
    if part:
        asked["subresource"] = part
    answer = await api.create(REVIEWS, {"metadata": {}, "spec": {"resourceAttributes": asked}})
    return bool(answer.get("status", {}).get("allowed"))
