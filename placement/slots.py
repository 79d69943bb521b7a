"""How much of a place a job takes and how much a place has for us: the free-slots model, in cores.

A job's footprint is its cores, or more where memory or GPUs keep other jobs off the rest of a node. What a place has
for our jobs at once is what is free there now, and in a busy place a share of the whole, since it frees up job by job.
"""

from __future__ import annotations

import math

from placement.problem import PlaceOption
from placement.seen import node_fits
from scheduler.model.jobs import JobSpec
from scheduler.model.runs import Resources
from scheduler.model.snapshots import NodeKind

BUSY_SHARE = 0.25
"""Of a place's cores, what our jobs may count on at once when less is free: a guess, to be learnt."""

UNSEEN_CORES = 64
"""What a place is taken to have for us while nothing has been seen of it: a guess."""


def footprint_cores(resources: Resources, kinds: tuple[NodeKind, ...]) -> int:
    """Cores that one run takes from others, on nodes like the first kind; its own cores where no nodes are known."""
    per_node = max(1, resources.cores_per_node)
    if kinds:
        kind = kinds[0]
        if kind.memory_mib > 0:
            per_node = max(per_node, round(resources.memory_mib / kind.memory_mib * kind.cores))
        if kind.gpus > 0 and resources.gpus_per_node:
            per_node = max(per_node, round(resources.gpus_per_node / kind.gpus * kind.cores))
        per_node = min(per_node, max(1, kind.cores))
    return max(1, resources.nodes) * per_node


def fitting_nodes(spec: JobSpec, place: PlaceOption) -> tuple[NodeKind, ...]:
    """The kinds of nodes there that can hold the job's share of a node."""
    job_type = place.job_type
    return tuple([kind for kind in place.nodes if node_fits(spec, kind, job_type)])


def nodes_free_for(spec: JobSpec, place: PlaceOption) -> int:
    """Nodes there that can take the job's share of a node now, as far as is sure.

    How free cores lie on nodes that are partly used is not shown: of all ways the worst is taken.
    """
    cores, sure = max(1, spec.resources.cores_per_node), 0
    for kind in fitting_nodes(spec, place):
        empty = kind.free + kind.planned_nodes
        partly, spare = kind.total - kind.down - empty, kind.free_cores - empty * kind.cores
        too_small = max(0, partly) * (cores - 1)
        sure += empty + (math.ceil((spare - too_small) / (kind.cores - cores)) if spare > too_small else 0)
    return sure


def total_cores(kinds: tuple[NodeKind, ...]) -> int:
    """Cores of all nodes that are not down."""
    return sum(max(0, kind.total - kind.down) * kind.cores for kind in kinds)


def free_cores(kinds: tuple[NodeKind, ...]) -> int:
    """Cores that nobody uses now."""
    return sum(max(kind.free_cores, kind.free * kind.cores) for kind in kinds)


def slots_for_us(place: PlaceOption) -> int:
    """Cores on which our jobs can run at once in this place; at least 1."""
    if not place.nodes:
        return UNSEEN_CORES
    return max(1, free_cores(place.nodes) - committed_cores(place), int(total_cores(place.nodes) * BUSY_SHARE))


def committed_cores(place: PlaceOption) -> int:
    """Cores of our jobs that were sent there and that the snapshot does not show yet."""
    return sum(footprint_cores(shape, place.nodes) * runs for shape, runs in place.unseen_runs.items())
