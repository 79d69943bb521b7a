"""Filters that read a look at a system: its nodes, what stands in its queues' way, and what its accounts allow.

What was not seen never rejects. Sizes are also bounded by the definition of the queue.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from placement.problem import Ask, PlaceOption
from placement.rejections import between, of_place
from placement.words import count, duration, gpus, memory
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Reason, Rejection
from scheduler.model.runs import JobType
from scheduler.model.snapshots import Association, NodeKind

# -- its nodes ---------------------------------------------------------------------------------------------------


def partition_up(ask: Ask, place: PlaceOption) -> Rejection | None:
    return of_place(place, Reason.QUEUE_DOWN) if place.partition and not place.partition.up else None


def nodes_fit(ask: Ask, place: PlaceOption) -> Rejection | None:
    asked = ask.spec.resources.nodes
    if place.queue is None:
        return None if asked == 1 else of_place(place, Reason.NODES, count(asked, "node"), "1 node")
    return between(place, Reason.NODES, asked, place.bounds.nodes, _nodes)


def cores_fit(ask: Ask, place: PlaceOption) -> Rejection | None:
    return between(place, Reason.CORES, ask.spec.resources.cores_per_node, place.bounds.cores, _cores)


def memory_fits(ask: Ask, place: PlaceOption) -> Rejection | None:
    return between(place, Reason.MEMORY, ask.spec.resources.memory_mib, place.bounds.memory_mib, written_memory)


def walltime_allowed(ask: Ask, place: PlaceOption) -> Rejection | None:
    return between(place, Reason.WALLTIME, ask.spec.resources.walltime_s, place.bounds.walltime_s, duration)


def gpus_present(ask: Ask, place: PlaceOption) -> Rejection | None:
    asked = ask.spec.resources
    if (
        not asked.gpus_per_node
        or not place.nodes
        or any(_has_gpus(asked.gpus_per_node, asked.gpu_model, kind) for kind in place.nodes)
    ):
        return None
    offered = sorted({gpus(kind.gpus, kind.gpu_model) for kind in place.nodes if kind.gpus})
    return of_place(place, Reason.GPUS, gpus(asked.gpus_per_node, asked.gpu_model), " or ".join(offered))


def features_present(ask: Ask, place: PlaceOption) -> Rejection | None:
    wanted = features_asked(ask.spec) if place.queue else frozenset[str]()
    if not wanted or not place.nodes or any(wanted <= set(kind.features) for kind in place.nodes):
        return None
    shown = {feature for kind in place.nodes for feature in kind.features}
    return of_place(place, Reason.CONSTRAINT, "--constraint " + "&".join(sorted(wanted)), ", ".join(sorted(shown)))


def enough_alike_nodes(ask: Ask, place: PlaceOption) -> Rejection | None:
    """Each need alone may be met, yet by too few nodes all together; where all are alike that is the same."""
    if len(place.nodes) < 2:
        return None
    asked = ask.spec.resources.nodes
    alike = sum(kind.total for kind in place.nodes if node_fits(ask.spec, kind, place.job_type))
    if alike >= asked or any(judge(ask, place) for judge in _ONE_NEED):
        return None
    offered = f"at most {count(alike, 'node')}" if alike else "no node"
    return of_place(place, Reason.NODES, count(asked, "node"), offered + " meeting all needs at once")


def enough_nodes_up(ask: Ask, place: PlaceOption) -> Rejection | None:
    """Nodes come back, so the job may wait for them; a reservation that closes them has an end of its own."""
    if not any(kind.down for kind in place.nodes):
        return None
    fitting = [kind for kind in place.nodes if node_fits(ask.spec, kind, place.job_type)]
    asked, up = ask.spec.resources.nodes, sum(kind.total - kind.down for kind in fitting)
    total = sum(kind.total for kind in fitting)
    if not up < asked <= total or _closed_now(place) or nodes_fit(ask, place):
        return None
    return of_place(place, Reason.NODES_DOWN, count(asked, "node"), f"{up} of {count(total, 'node')}")


# -- licences and accounts ---------------------------------------------------------------------------------------


def licences_held(ask: Ask, place: PlaceOption) -> Rejection | None:
    snapshot = place.view.snapshot
    if snapshot is None or snapshot.licences is None or place.queue is None:
        return None
    asked_for = licences_asked(ask.spec)
    held = {licence.name: licence.total for licence in snapshot.licences} if asked_for else {}
    short = {name: n for name, n in asked_for.items() if n > held.get(name, 0)}
    asked = ", ".join(f"{name}:{n}" for name, n in sorted(short.items()))
    offered = ", ".join(f"{name}:{held[name]}" for name in sorted(short) if name in held)
    return of_place(place, Reason.LICENCE, asked, offered) if short else None


def account_open(ask: Ask, place: PlaceOption) -> Rejection | None:
    known = _associations(ask, place)
    if not known:
        return None
    asked, offered = _named(ask.spec, "--account"), sorted({each.account for each in known})
    return of_place(place, Reason.ACCOUNT, asked, " or ".join(offered)) if asked not in ("", *offered) else None


def allocation_left(ask: Ask, place: PlaceOption) -> Rejection | None:
    """As sites count: the job must fit into what is left of its account if it uses all of its walltime."""
    known = _associations(ask, place)
    if not known:
        return None
    account = _named(ask.spec, "--account")
    left = [each.core_minutes_left for each in known if account in ("", each.account)]
    needed = ask.spec.resources.cores * ask.spec.resources.walltime_s / 60
    if not left or any(each is None or each >= needed for each in left):
        return None
    most = max(each for each in left if each is not None)
    return of_place(place, Reason.ALLOCATION, _core_hours(needed), _core_hours(max(0, most)))


def qos_open(ask: Ask, place: PlaceOption) -> Rejection | None:
    known = _associations(ask, place)
    if not known:
        return None
    asked, account = _named(ask.spec, "--qos"), _named(ask.spec, "--account")
    offered = sorted({qos for each in known if account in ("", each.account) for qos in each.qos})
    return of_place(place, Reason.QOS, asked, " or ".join(offered)) if offered and asked not in ("", *offered) else None


def qos_allows(ask: Ask, place: PlaceOption) -> Rejection | None:
    """What the quality of service that the job asks for allows one job or one user."""
    snapshot, name, asked = place.view.snapshot, _named(ask.spec, "--qos"), ask.spec.resources
    if not name:
        return None
    limits = [each for each in (snapshot.qos if snapshot else None) or () if each.name == name]
    for limit in limits if place.queue else ():
        if limit.max_walltime_s is not None and asked.walltime_s > limit.max_walltime_s:
            return of_place(
                place, Reason.WALLTIME, duration(asked.walltime_s), _most(name, duration(limit.max_walltime_s))
            )
        if limit.max_cores_per_user is not None and asked.cores > limit.max_cores_per_user:
            return of_place(
                place, Reason.CORES, count(asked.cores, "core"), _most(name, count(limit.max_cores_per_user, "core"))
            )
    return None


# -- what a job asks of nodes, and words they share ----------------------------------------------------------------


_ONE_NEED = (nodes_fit, cores_fit, memory_fits, gpus_present, features_present)

_FEATURES = re.compile(r"[\w.-]+(?:&[\w.-]+)*")


def features_asked(spec: JobSpec) -> frozenset[str]:
    """Node features that every node must have (``--constraint=a&b``); choices and counts are left to the site."""
    if not spec.scheduler_options:
        return frozenset()
    written = [option.value or "" for option in spec.scheduler_options if option.name == "--constraint"]
    return frozenset(name for text in written if _FEATURES.fullmatch(text) for name in text.split("&"))


def licences_asked(spec: JobSpec) -> Mapping[str, int]:
    """``--licenses=matlab:2,ansys`` as {"matlab": 2, "ansys": 1}; choices (``|``) are left to the site."""
    asked: dict[str, int] = {}
    for option in spec.scheduler_options or ():
        if option.name != "--licenses" or "|" in (option.value or ""):
            continue
        for item in filter(None, (option.value or "").split(",")):
            name, _, number = item.partition(":")
            asked[name] = asked.get(name, 0) + (int(number) if re.fullmatch(r"[0-9]{1,6}", number) else 1)
    return asked


def node_fits(spec: JobSpec, kind: NodeKind, job_type: JobType) -> bool:
    """Whether one node of this kind can hold the job's share of a node; options of a scheduler are for BATCH jobs."""
    asked = spec.resources
    return (
        kind.cores >= asked.cores_per_node
        and kind.memory_mib >= asked.memory_mib
        and _has_gpus(asked.gpus_per_node, asked.gpu_model, kind)
        and (job_type is JobType.FORK or not spec.scheduler_options or features_asked(spec) <= set(kind.features))
    )


def _named(spec: JobSpec, option: str) -> str:
    """The account or QOS that the job names, in the lower case in which Slurm keeps them; the last word counts."""
    said = (each.value or "" for each in reversed(spec.scheduler_options or ()) if each.name == option)
    return next(said, "").lower()


def _associations(ask: Ask, place: PlaceOption) -> Sequence[Association]:
    """The accounts that the job may be charged to there; none where the look was another's and says nothing of it."""
    snapshot, system = place.view.snapshot, place.view.system
    if snapshot is None or place.queue is None or (system.is_dynamic_user and snapshot.seen_by != ask.owner):
        return ()
    return [each for each in snapshot.associations or () if each.partition in (None, place.queue.partition)]


def _closed_now(place: PlaceOption) -> bool:
    snapshot = place.view.snapshot
    return snapshot is not None and any(
        each.starts_at <= snapshot.taken_at < each.ends_at and place.queue and each.partition == place.queue.partition
        for each in snapshot.closures
    )


def _nodes(number: int) -> str:
    return count(number, "node")


def _cores(number: int) -> str:
    return count(number, "core") + " per node"


def written_memory(mib: int) -> str:
    """As what a job asks of each node."""
    return memory(mib) + " per node"


def _core_hours(core_minutes: float) -> str:
    return f"{core_minutes / 60:.1f} core-hours"


def _most(qos: str, limit: str) -> str:
    return f"at most {limit} under the QOS {qos}"


def _has_gpus(count: int, model: str | None, kind: NodeKind) -> bool:
    same_model = not model or not kind.gpu_model or model.casefold() == kind.gpu_model.casefold()
    return count == 0 or (kind.gpus >= count and same_model)
