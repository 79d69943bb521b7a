"""How often passwords may be guessed: budgets of refused logins, for a name at an address and for each alone."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, ip_address

from scheduler.model.errors import TooManyLogins

Key = tuple[str, ...]

MOST_KEPT = 10_000
"""Budgets remembered at a time; of more, those go that nobody asked for longest."""

IPV6_SITE_BITS = 64
"""One customer of a network has so many addresses at least that they count as one."""


@dataclass(frozen=True, slots=True)
class Budget:
    """So many refused logins at once, and one more each ``recovery_s`` seconds."""

    attempts: int
    recovery_s: float


BY_BOTH = Budget(attempts=20, recovery_s=10.0)
BY_ADDRESS = Budget(attempts=100, recovery_s=2.0)
"""A class of students may share an address."""
BY_NAME = Budget(attempts=500, recovery_s=1.0)
"""Whoever spends it keeps the name's owner out, which one address alone cannot."""


class LoginThrottle:
    """Counts logins of this process and forgets them as time passes. A login counts from its beginning, so that many at
    once are no way around; one that succeeds is given back."""

    def __init__(self) -> None:
        self._spent: OrderedDict[Key, tuple[float, datetime]] = OrderedDict()

    def begin(self, tenant: str, username: str, address: str, now: datetime) -> None:
        """Count one login; TooManyLogins, and nothing counted, where a budget is spent."""
        waits_s = [self._wait_s(key, budget, now) for key, budget in _budgets(tenant, username, address)]
        if max(waits_s) > 0:
            raise TooManyLogins(math.ceil(max(waits_s)))
        self._add(1, _budgets(tenant, username, address), now)

    def succeeded(self, tenant: str, username: str, address: str, now: datetime) -> None:
        """Take back what ``begin`` counted."""
        self._add(-1, _budgets(tenant, username, address), now)

    def _add(self, count: int, budgets: Sequence[tuple[Key, Budget]], now: datetime) -> None:
        for key, budget in budgets:
            self._spent[key] = (max(0.0, self._spent_at(key, budget, now) + count), now)
            self._spent.move_to_end(key)
        while len(self._spent) > MOST_KEPT:
            self._spent.popitem(last=False)

    def _wait_s(self, key: Key, budget: Budget, now: datetime) -> float:
        return (self._spent_at(key, budget, now) + 1 - budget.attempts) * budget.recovery_s

    def _spent_at(self, key: Key, budget: Budget, now: datetime) -> float:
        spent, at = self._spent.get(key, (0.0, now))
        return max(0.0, spent - (now - at).total_seconds() / budget.recovery_s)


def _budgets(tenant: str, username: str, address: str) -> Sequence[tuple[Key, Budget]]:
    name, site = username[:256], _site_of(address)
    return (
        (("both", tenant, name, site), BY_BOTH),
        (("address", site), BY_ADDRESS),
        (("name", tenant, name), BY_NAME),
    )


def _site_of(address: str) -> str:
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or int(found) >> (found.max_prefixlen - IPV6_SITE_BITS))
