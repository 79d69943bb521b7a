"""The names that pods have outside: one per named port, below the domain of their tenant."""

from __future__ import annotations

from scheduler.model.tenants import Tenant


def domain_of(tenant: Tenant, pods_domain: str) -> str:
    """The domain below which a tenant's pods have their names.

    ``pods.`` and the tenant's first host name; ``pods_domain`` for a tenant that answers under any name.
    """
    return f"pods.{tenant.hosts[0].lower()}" if tenant.hosts else pods_domain


def label_of(pod_id: str, net: str) -> str:
    """A named port as one label: ``mypod``, or ``mypod-admin`` for the net ``admin``."""
    return pod_id if net == "default" else f"{pod_id}-{net}"


def host_name(pod_id: str, net: str, domain: str) -> str:
    """The host name of one named port of a pod, without a TCP port."""
    return f"{label_of(pod_id, net)}.{domain}"
