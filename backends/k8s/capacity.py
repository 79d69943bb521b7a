"""What a cluster offers and what is taken: from its nodes and pods to a snapshot. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any, NamedTuple

from backends.k8s.objects import MARKER, MULTI_NODE_SINCE
from backends.k8s.site import Site
from backends.k8s.states import instant, pod_is_over, pod_waits_for
from scheduler.model.errors import UnexpectedReply
from scheduler.model.snapshots import NodeKind, PartitionState, SystemSnapshot, VisibleJob

Object = dict[str, Any]

PARTITION = "kubernetes"
"""A cluster shows itself as one partition of this name; it is the ``hpcQueueName`` of its logical queues."""

DAY_S = 86_400
"""How long a pod counts that sets itself no limit."""

MIB = 2**20
_UNITS: Mapping[str, Decimal] = MappingProxyType(
    {
        **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
        **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
        "m": Decimal(1) / 1000,
    }
)


class Asked(NamedTuple):
    """What pods ask of nodes, or nodes offer them."""

    cores: Decimal = Decimal(0)
    memory_bytes: Decimal = Decimal(0)
    gpus: int = 0

    def plus(self, other: Asked) -> Asked:
        return Asked(self.cores + other.cores, self.memory_bytes + other.memory_bytes, self.gpus + other.gpus)


def snapshot_of(
    at: datetime,
    version: str,
    number: tuple[int, int],
    nodes: Sequence[Object],
    pods: Sequence[Object],
    site: Site,
) -> SystemSnapshot:
    """The nodes that the site's selector names, by kind, and the pods of everyone that may be seen.

    version, number: of the server, which may be too old for what some jobs ask.
    """
    usable = [node for node in nodes if _is_selected(node, site)]
    live = [pod for pod in pods if not pod_is_over(pod)]
    taken: dict[str, Asked] = defaultdict(Asked)
    busy: set[str] = set()
    for pod in live:
        if name := pod["spec"].get("nodeName"):
            taken[name] = taken[name].plus(asked_by(pod, site))
            busy |= set() if _is_everywhere(pod) else {name}
    most_nodes = None if number >= MULTI_NODE_SINCE else 1
    up = any(map(takes_pods, usable))
    return SystemSnapshot(
        taken_at=at,
        partitions=(PartitionState(name=PARTITION, up=up, is_default=True, max_nodes=most_nodes),),
        nodes=_kinds(usable, taken, busy, site),
        jobs=tuple(_job(pod, site) for pod in live if not _is_everywhere(pod)),
        scheduler_version=f"kubernetes {version}",
    )


def asked_by(pod: Object, site: Site) -> Asked:
    """What a pod asks for; what it may take beyond that is not kept for it."""
    total = Asked()
    for container in pod["spec"].get("containers", []):
        total = total.plus(_amounts(container.get("resources", {}).get("requests", {}), site))
    return total


def takes_pods(node: Object) -> bool:
    """Whether a node is ready, and open to pods that tolerate nothing."""
    conditions = node.get("status", {}).get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    taints = node.get("spec", {}).get("taints", [])
    closed = any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in taints)
    return ready and not closed and not node.get("spec", {}).get("unschedulable")


def quantity(text: str) -> Decimal:
    """``2``, ``500m``, ``16Gi``, ``1e3`` as a number."""
    unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if text.endswith(unit)), "")
    try:
        return Decimal(text.removesuffix(unit)) * _UNITS.get(unit, Decimal(1))
    except InvalidOperation:
        raise UnexpectedReply("an amount was not understood", text) from None


# -- pieces ------------------------------------------------------------------------------------------------------------


def _kinds(nodes: Sequence[Object], taken: Mapping[str, Asked], busy: set[str], site: Site) -> tuple[NodeKind, ...]:
    alike: dict[tuple[int, int, int, str | None], list[Object]] = defaultdict(list)
    for node in nodes:
        offer = _amounts(node.get("status", {}).get("allocatable", {}), site)
        model = node["metadata"].get("labels", {}).get(site.gpu_model_label)
        alike[int(offer.cores), int(offer.memory_bytes / MIB), offer.gpus, model].append(node)
    kinds = []
    for (cores, memory_mib, gpus, model), members in alike.items():
        if cores < 1 or memory_mib < 1:
            continue  # registered, but its kubelet has not said what it has
        up = [node["metadata"]["name"] for node in members if takes_pods(node)]
        kinds.append(
            NodeKind(
                partition=PARTITION,
                cores=cores,
                memory_mib=memory_mib,
                total=len(members),
                free=sum(name not in busy for name in up),
                down=len(members) - len(up),
                free_cores=sum(max(0, int(cores - taken.get(name, Asked()).cores)) for name in up),
                gpus=gpus,
                gpu_model=model,
            )
        )
    return tuple(kinds)


def _job(pod: Object, site: Site) -> VisibleJob:
    about, spec = pod["metadata"], pod["spec"]
    status = pod.get("status", {})
    return VisibleJob(
        remote_id=about["uid"],
        partition=PARTITION,
        running=bool(spec.get("nodeName")),
        nodes=1,
        cores=max(1, int(asked_by(pod, site).cores)),
        walltime_s=int(spec.get("activeDeadlineSeconds") or DAY_S),
        submitted_at=instant(about.get("creationTimestamp")),
        started_at=instant(status.get("startTime")),
        user=about.get("labels", {}).get(MARKER, about.get("namespace", "")),
        reason=pod_waits_for(pod)[0],
    )


def _amounts(said: Mapping[str, Any], site: Site) -> Asked:
    try:
        return Asked(
            quantity(str(said.get("cpu", "0"))),
            quantity(str(said.get("memory", "0"))),
            int(quantity(str(said.get(site.gpu_resource, "0")))),
        )
    except (ValueError, OverflowError):
        raise UnexpectedReply("amounts were not understood", json.dumps(said)) from None


def _is_selected(node: Object, site: Site) -> bool:
    labels = node["metadata"].get("labels", {})
    return all(labels.get(key) == value for key, value in site.node_selector.items())


def _is_everywhere(pod: Object) -> bool:
    """Whether it is one of those that run on every node."""
    return any(owner.get("kind") in ("DaemonSet", "Node") for owner in pod["metadata"].get("ownerReferences", []))
