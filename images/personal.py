"""One view of registries for each user: with their own logins first, and nothing of it shared with anyone else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from images.credentials import Login, Logins, first_of
from images.manifests import Descriptor
from images.platforms import Platform
from images.reference import PushedReference, Reference
from images.sources import Resolved, Sink, Source

MOST_KEPT = 64
"""Users whose views are kept for their next question; a view holds tokens and the newest manifests."""

OwnLogins = Callable[[str, str], Awaitable[Mapping[str, Login]]]
"""The logins of a user of a tenant, by registry."""


class Personal:
    """Sources by user. Who has no login of their own shares ``shared``, which shows the operator's.

    pushed: the files that a user of a tenant pushed; None where nobody may.
    """

    def __init__(
        self,
        shared: Source[Any],
        own: OwnLogins,
        operators: Logins,
        open_as: Callable[[Logins], Source[Any]],
        pushed: Callable[[str, str], Source[Any]] | None = None,
    ) -> None:
        self._shared, self._own, self._operators, self._open_as = shared, own, operators, open_as
        self._pushed = pushed
        self._kept: OrderedDict[tuple[str, str], tuple[Mapping[str, Login], Source[Any]]] = OrderedDict()

    def of(self, tenant: str, user: str) -> Source[Any]:
        """Images as this user may read them at the moment of each question."""
        return _View(self, tenant, user)

    async def reads_alone(self, reference: Reference, tenant: str, user: str) -> bool:
        """Whether what this user reads there may be hidden from others: a file of the user's, or read by own logins."""
        return isinstance(reference, PushedReference) or bool(await self._own(tenant, user))

    async def now(self, reference: Reference, tenant: str, user: str) -> Source[Any]:
        """Where the user reads it now, with the logins of this moment; what a user pushed is read without any."""
        if self._pushed is not None and isinstance(reference, PushedReference):
            return self._pushed(tenant, user)
        own = await self._own(tenant, user)
        if not own:
            self._kept.pop((tenant, user), None)
            return self._shared
        kept = self._kept.get((tenant, user))
        if kept is None or kept[0] != own:
            kept = own, self._open_as(first_of(_those(own), self._operators))
        self._kept[tenant, user] = kept
        self._kept.move_to_end((tenant, user))
        while len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return kept[1]


@dataclass(frozen=True, slots=True)
class _View:
    """A source as one user; it asks anew each time who that user is to registries."""

    personal: Personal
    tenant: str
    user: str

    async def resolve(self, reference: Reference, target: Platform) -> Resolved[Reference]:
        source = await self.personal.now(reference, self.tenant, self.user)
        resolved: Resolved[Reference] = await source.resolve(reference, target)
        return resolved

    async def fetch(self, reference: Reference, blob: Descriptor, sink: Sink) -> None:
        source = await self.personal.now(reference, self.tenant, self.user)
        await source.fetch(reference, blob, sink)


def _those(own: Mapping[str, Login]) -> Logins:
    async def find(host: str, repository: str) -> Login | None:
        return own.get(host)

    return find
