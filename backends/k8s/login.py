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
"""What ``nodePorts`` and ``ingress`` stand on."""


async def verify(system: System, credential: Credential) -> None:
    """Ask the API server, as this login, what it may do. CredentialRefused names what is missing."""
    site = site_of(system)
    try:
        api = Api(access_of(system, credential), site.namespace)
    except NotAuthorised as error:
        raise CredentialRefused(str(error)) from None
    try:
        rights = [right for rights, are_needed in _by_need(site) if are_needed for right in rights]
        allowed = await asyncio.gather(*(_allows(api, right) for right in rights))
    except (NotAuthorised, Refused) as error:
        raise CredentialRefused(str(error)) from None
    finally:
        await api.aclose()
    missing = [str(right) for right, may in zip(rights, allowed, strict=True) if not may]
    if missing:
        raise CredentialRefused(f"in namespace {site.namespace} this login may not: {', '.join(missing)}")


def _by_need(site: Site) -> Iterable[tuple[Iterable[Right], bool]]:
    return (
        (NEEDED, True),
        (NEEDED_FOR_FILES, site.volume is not None),
        (NEEDED_FOR_WAYS, site.has_ways),
        (NEEDED_FOR_INGRESS, site.ingress is not None),
    )


async def _allows(api: Api, right: Right) -> bool:
    resource, _, part = right.resource.partition("/")
    asked = {"namespace": api.namespace, "verb": right.verb, "group": right.group, "resource": resource}
    if part:
        asked["subresource"] = part
    answer = await api.create(REVIEWS, {"metadata": {}, "spec": {"resourceAttributes": asked}})
    return bool(answer.get("status", {}).get("allowed"))
