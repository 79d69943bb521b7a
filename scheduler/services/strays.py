"""What owners of systems are told of runs there that no row waits for."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.model.strays import Stray
from scheduler.model.users import Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action
from scheduler.services.systems import readable
from scheduler.store.strays import StrayStore


async def of_system(ports: Ports, caller: Principal, system_id: str) -> Sequence[Stray]:
    """Strays of all logins of a system, deleted ones too, the oldest first; for who may change the system."""
    async with ports.reading() as db:
        await readable(db, caller, system_id, Action.MODIFY, deleted=True)
        return await StrayStore(db).of_system(caller.tenant, system_id)
