"""What a gateway needs to know of pods."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from scheduler.model.pod_names import domain_of
from scheduler.model.pods import OpenNet
from scheduler.ports import Ports
from scheduler.store.pods import PodStore
from scheduler.store.tenants import TenantStore


async def domains(ports: Ports, pods_domain: str) -> Mapping[str, str]:
    """Tenant -> the domain of its pods. pods_domain: of a tenant that answers under any name."""
    async with ports.reading() as db:
        tenants = await TenantStore(db).tenants()
    return {tenant.id: domain_of(tenant, pods_domain) for tenant in tenants}


async def open_nets(ports: Ports) -> Sequence[OpenNet]:
    """Every net of every tenant that has a name outside, and what stands behind it now."""
    async with ports.reading() as db:
        return await PodStore(db).open_nets(ports.clock())


async def tell(ports: Ports, tenants: Collection[str], words: str) -> None:
    """Add a line to what was done with each pod of these tenants that has a name outside."""
    async with ports.transaction() as db:
        await PodStore(db).tell_named(tenants, words, ports.clock())
