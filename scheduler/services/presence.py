"""Whether the user whom a token speaks for is still there: a token outlives its user by seconds, not by hours."""

from __future__ import annotations

from datetime import datetime, timedelta

from scheduler.model.errors import NotFound, Unauthenticated
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.store.users import UserStore

BELIEVED = timedelta(seconds=5)
"""How long a user who was there is taken to be there still."""

MOST_REMEMBERED = 10_000


class Presence:
    """Users who were there a moment ago, so that a burst of requests asks the store once."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._believed_until: dict[Principal, datetime] = {}

    async def demand(self, caller: Principal) -> None:
        """Unauthenticated when the user was deleted or locked."""
        now = self._ports.clock()
        believed_until = self._believed_until.get(caller)
        if believed_until is not None and now < believed_until:
            return
        if not await self._is_there(caller):
            self._believed_until.pop(caller, None)
            raise Unauthenticated("the user of this token was deleted or locked; log in as another")
        if len(self._believed_until) >= MOST_REMEMBERED:
            self._believed_until.clear()
        self._believed_until[caller] = now + BELIEVED

    async def _is_there(self, caller: Principal) -> bool:
        async with self._ports.reading() as db:
            try:
                user = await UserStore(db).get(caller.tenant, caller.username)
            except NotFound:
                return False
        return user.enabled and user.account == caller.account  # and not somebody who has the name since
