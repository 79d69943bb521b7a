"""Images where no batch system brings them: pulled ahead by Kubernetes' node pools, kept in a region for its machines.

Plans by digest, made before anything is asked of a cluster or a cloud; their backends carry them out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

REGISTRY_PULLS = 3
"""How many nodes may pull one image from its registry at once; 200 that do are met with 429."""
RELAYED_MACHINES = 8
"""Up to so many machines one fetches the image and relays it; beyond, a disk made from a snapshot brings it."""


class PrePull(StrEnum):
    """How an image comes to the nodes of a pool before its pods do."""

    PODS = "pods"
    """A pod on each node, a few at a time."""
    NEIGHBOURS = "neighbours"
    """A first pod, then all: nodes serve each other (Spegel)."""
    PREHEAT = "preheat"
    """One request to a distribution service that is there (Dragonfly)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePool:
    """Nodes of one kind in a Kubernetes cluster. architecture: Go's name; selector: the labels that choose them."""

    name: str
    architecture: str
    nodes: int
    selector: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    way: PrePull = PrePull.PODS
    has_digests: frozenset[str] = frozenset()
    """Manifests that every node has already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """What to do for one pool. reference names the digest; waves: nodes that pull at once, one wave after another.

    No waves: nothing is to be done. refusal: why the pool cannot run the image; empty when it can.
    """

    pool: str
    reference: str = ""
    way: PrePull = PrePull.PODS
    waves: tuple[int, ...] = ()
    refusal: str = ""


def pool_plans(repository: str, digests: Mapping[str, str], pools: Sequence[NodePool]) -> tuple[PoolPlan, ...]:
    """A plan per pool. digests: manifest by architecture, of one index, so that a tag that moves changes nothing."""
    return tuple(_pool_plan(repository, digests, pool) for pool in pools)


def _pool_plan(repository: str, digests: Mapping[str, str], pool: NodePool) -> PoolPlan:
    digest = digests.get(pool.architecture)
    if digest is None:
        there = ", ".join(sorted(digests)) or "nothing"
        return PoolPlan(pool=pool.name, refusal=f"the image is for {there}, the pool is {pool.architecture}")
    reference = f"{repository}@{digest}"
    if digest in pool.has_digests or pool.nodes == 0:
        return PoolPlan(pool=pool.name, reference=reference, way=pool.way)
    return PoolPlan(pool=pool.name, reference=reference, way=pool.way, waves=_waves(pool))


def _waves(pool: NodePool) -> tuple[int, ...]:
    if pool.way is PrePull.PREHEAT:
        return (pool.nodes,)
    if pool.way is PrePull.NEIGHBOURS:
        return (1, pool.nodes - 1) if pool.nodes > 1 else (1,)
    full, rest = divmod(pool.nodes, REGISTRY_PULLS)
    return (REGISTRY_PULLS,) * full + ((rest,) if rest else ())


class ToMachines(StrEnum):
    """How an image comes from its region's store to the disks of virtual machines."""

    FETCH = "fetch"
    """Each by itself; it is one."""
    RELAY = "relay"
    """One fetches, and all pass it on."""
    SNAPSHOT = "snapshot"
    """It is on a disk that they start with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionPlan:
    """An image for virtual machines of one region. copy_bytes: what must cross into the region first; 0 if it is there.

    key: its name in the region's object store, by digest.
    """

    region: str
    key: str
    copy_bytes: int
    delivery: ToMachines


def region_plan(digest: str, size_bytes: int, region: str, nodes: int, has_it: bool) -> RegionPlan:
    """Keep one file per image in each region that uses it: between regions every machine's pull would be paid for."""
    delivery = ToMachines.SNAPSHOT if nodes > RELAYED_MACHINES else ToMachines.RELAY
    return RegionPlan(
        region=region,
        key=f"blobs/{digest.replace(':', '/')}",
        copy_bytes=0 if has_it else size_bytes,
        delivery=ToMachines.FETCH if nodes <= 1 else delivery,
    )
