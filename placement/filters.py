"""Which places can take a job at all: small functions in two tables, each saying why not as data.

Hard facts only, and only facts that are known: what a system or its snapshot does not say never rejects.
``screen`` runs on the submit path, so this module stays free of numpy and the solver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from placement.constraints import parse
from placement.policy import allowed_images, image_allowed, outbound_network, price_usd, storage_mib
from placement.problem import Ask, PlaceOption, Problem, SystemView, holds
from placement.words import count, duration, gpus, memory
from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Reason, Rejection
from scheduler.model.runs import JobType, Runtime
from scheduler.model.snapshots import Association, NodeKind
from scheduler.model.systems import UNLIMITED

NOT_NOW = frozenset({Reason.QUEUE_DOWN, Reason.JOB_LIMIT, Reason.NODES_DOWN})
"""Reasons that time alone may heal: the job waits. All others are an error of the request."""

SystemFilter = Callable[[Ask, SystemView], Rejection | None]
PlaceFilter = Callable[[Ask, PlaceOption], Rejection | None]


@dataclass(frozen=True, slots=True)
class Screening:
    """What the stored facts say of one job: places that can take it now, that could later, and that never can."""

    candidates: tuple[PlaceOption, ...] = ()
    later: tuple[Rejection, ...] = ()
    rejections: tuple[Rejection, ...] = field(default=())

    @property
    def possible(self) -> bool:
        """Whether the job fits somewhere, now or later. If not, it is refused at submit."""
        return bool(self.candidates or self.later)


def screen(problem: Problem) -> Mapping[str, Screening]:
    """Judge every ask of the problem against every system; by job uuid, places in a stable order."""
    views = sorted(problem.systems, key=lambda view: view.system.id)
    return {ask.job_uuid: _screened(ask, views) for ask in problem.asks}


def _screened(ask: Ask, views: Iterable[SystemView]) -> Screening:
    candidates: list[PlaceOption] = []
    found: list[Rejection] = []
    for view in views:
        about_system = next(filter(None, (judge(ask, view) for judge in SYSTEM_FILTERS)), None)
        if about_system is not None:
            found.append(about_system)
            continue
        for place in places(ask.spec, view):
            about_place = [rejection for judge in PLACE_FILTERS if (rejection := judge(ask, place)) is not None]
            found.extend(about_place)
            if not about_place:
                candidates.append(place)
    never = {(each.system_id, each.queue) for each in found if each.reason not in NOT_NOW}
    later = tuple(each for each in found if (each.system_id, each.queue) not in never)
    hard = tuple(each for each in found if (each.system_id, each.queue) in never and each.reason not in NOT_NOW)
    return Screening(tuple(candidates), later, hard)


def question(spec: JobSpec) -> Hashable:
    """All that the filters read of a spec: jobs of one owner for whom this is equal are judged alike."""
    return (
        spec.exec_system_id,
        spec.dynamic,
        spec.queue,
        spec.job_type,
        spec.runtime,
        None if spec.array is None else len(spec.array.indices),
        spec.resources,
        spec.constraints,
        spec.scheduler_options,
        spec.image,
        spec.max_price_usd,
        spec.needs_network,
        spec.storage_mib,
    )


def job_type_on(spec: JobSpec, view: SystemView) -> JobType:
    """How the job runs there: as asked, else through the queue where there is one."""
    return spec.job_type or (JobType.BATCH if view.system.can_run_batch else JobType.FORK)


def queue_asked(spec: JobSpec, view: SystemView) -> str | None:
    """The one queue that is meant; None when Berth may choose. A named system means its default queue, as in Tapis."""
    if spec.queue is None and spec.exec_system_id and not spec.dynamic:
        return view.system.default_queue
    return spec.queue


def places(spec: JobSpec, view: SystemView) -> tuple[PlaceOption, ...]:
    """The places of a system that the job may mean."""
    if job_type_on(spec, view) is JobType.FORK:
        return (view.host_place,)
    asked = queue_asked(spec, view)
    return tuple(place for place in view.queue_places if asked in (None, place.key.queue))


# -- the system as a whole ---------------------------------------------------------------------------------------


def named(ask: Ask, view: SystemView) -> Rejection | None:
    wanted = None if ask.spec.dynamic else ask.spec.exec_system_id
    return None if wanted in (None, view.system.id) else _of_system(view, Reason.NOT_NAMED, wanted or "")


def enabled(ask: Ask, view: SystemView) -> Rejection | None:
    return None if view.system.enabled and not view.system.deleted else _of_system(view, Reason.DISABLED)


def can_execute(ask: Ask, view: SystemView) -> Rejection | None:
    return None if view.system.can_exec else _of_system(view, Reason.CANNOT_EXECUTE)


def permitted(ask: Ask, view: SystemView) -> Rejection | None:
    return None if holds(view.may_execute, ask.owner) else _of_system(view, Reason.NOT_PERMITTED, ask.owner)


def credential_known(ask: Ask, view: SystemView) -> Rejection | None:
    return None if holds(view.has_credential, ask.owner) else _of_system(view, Reason.NO_CREDENTIAL, ask.owner)


def runs_this_job_type(ask: Ask, view: SystemView) -> Rejection | None:
    offered = view.system.job_types()
    wanted = job_type_on(ask.spec, view)
    if wanted in offered:
        return None
    return _of_system(view, Reason.JOB_TYPE, wanted.value, " and ".join(sorted(offered)))


def runtime_present(ask: Ask, view: SystemView) -> Rejection | None:
    offered = sorted({each.runtime.value for each in view.system.runtimes})
    if ask.spec.runtime is Runtime.NONE or not offered or ask.spec.runtime in offered:
        return None
    return _of_system(view, Reason.RUNTIME, ask.spec.runtime.value, " and ".join(offered))


def network_open(ask: Ask, view: SystemView) -> Rejection | None:
    closed = ask.spec.needs_network and outbound_network(view.system) is False
    return _of_system(view, Reason.NETWORK) if closed else None


def image_permitted(ask: Ask, view: SystemView) -> Rejection | None:
    if ask.spec.runtime is Runtime.NONE or image_allowed(ask.spec.image, view.system):
        return None
    return _of_system(view, Reason.POLICY, ask.spec.image, ", ".join(allowed_images(view.system)))


def storage_suffices(ask: Ask, view: SystemView) -> Rejection | None:
    asked, room = ask.spec.storage_mib, storage_mib(view.system)
    if room is None or asked <= room:
        return None
    return _of_system(view, Reason.STORAGE, memory(asked), f"at most {memory(room)}")


def queue_exists(ask: Ask, view: SystemView) -> Rejection | None:
    if places(ask.spec, view):
        return None
    offered = ", ".join(sorted(queue.name for queue in view.system.queues))
    return _of_system(view, Reason.QUEUE_UNKNOWN, queue_asked(ask.spec, view) or "", offered)


def below_job_limits(ask: Ask, view: SystemView) -> Rejection | None:
    system = view.system
    if _reached(view.active_jobs(), system.max_jobs):
        return _of_system(view, Reason.JOB_LIMIT, "", f"{system.max_jobs} jobs")
    if _reached(view.active_jobs(owner=ask.owner), system.max_jobs_per_user):
        return _of_system(view, Reason.JOB_LIMIT, "", f"{system.max_jobs_per_user} jobs per user")
    return None


# -- one queue of it ---------------------------------------------------------------------------------------------


def constraints_hold(ask: Ask, place: PlaceOption) -> Rejection | None:
    try:
        unmet = parse(ask.spec.constraints).unmet(place.view.system, place.queue)
    except SpecInvalid as unreadable:  # submit has parsed them; a job stored under other rules must not stop the rest
        return _of_place(place, Reason.CONSTRAINT, " ".join(ask.spec.constraints)[:200], str(unreadable))
    return None if unmet is None else _of_place(place, Reason.CONSTRAINT, unmet.clause, unmet.actual)


def arrays_supported(ask: Ask, place: PlaceOption) -> Rejection | None:
    return _of_place(place, Reason.ARRAY) if ask.spec.array and place.queue is None else None


def partition_up(ask: Ask, place: PlaceOption) -> Rejection | None:
    return _of_place(place, Reason.QUEUE_DOWN) if place.partition and not place.partition.up else None


def nodes_fit(ask: Ask, place: PlaceOption) -> Rejection | None:
    asked = ask.spec.resources.nodes
    if place.queue is None:
        return None if asked == 1 else _of_place(place, Reason.NODES, count(asked, "node"), "1 node")
    most = _least(
        place.queue.max_nodes,
        place.partition.max_nodes if place.partition else None,
        sum(kind.total for kind in place.nodes) if place.nodes else None,
    )
    return _between(place, Reason.NODES, asked, place.queue.min_nodes, most, lambda n: count(n, "node"))


def cores_fit(ask: Ask, place: PlaceOption) -> Rejection | None:
    least, most = (place.queue.min_cores_per_node, place.queue.max_cores_per_node) if place.queue else (0, None)
    most = _least(most, max((kind.cores for kind in place.nodes), default=None))
    asked = ask.spec.resources.cores_per_node
    return _between(place, Reason.CORES, asked, least, most, lambda n: count(n, "core") + " per node")


def memory_fits(ask: Ask, place: PlaceOption) -> Rejection | None:
    least, most = (place.queue.min_memory_mib, place.queue.max_memory_mib) if place.queue else (0, None)
    most = _least(most, max((kind.memory_mib for kind in place.nodes), default=None))
    asked = ask.spec.resources.memory_mib
    return _between(place, Reason.MEMORY, asked, least, most, lambda mib: memory(mib) + " per node")


def walltime_allowed(ask: Ask, place: PlaceOption) -> Rejection | None:
    least, most = (place.queue.min_walltime_s, place.queue.max_walltime_s) if place.queue else (0, None)
    most = _least(most, place.partition.max_walltime_s if place.partition else None)
    return _between(place, Reason.WALLTIME, ask.spec.resources.walltime_s, least, most, duration)


def gpus_present(ask: Ask, place: PlaceOption) -> Rejection | None:
    asked = ask.spec.resources
    if (
        not asked.gpus_per_node
        or not place.nodes
        or any(_has_gpus(asked.gpus_per_node, asked.gpu_model, kind) for kind in place.nodes)
    ):
        return None
    offered = sorted({gpus(kind.gpus, kind.gpu_model) for kind in place.nodes if kind.gpus})
    return _of_place(place, Reason.GPUS, gpus(asked.gpus_per_node, asked.gpu_model), " or ".join(offered))


def features_present(ask: Ask, place: PlaceOption) -> Rejection | None:
    wanted = features_asked(ask.spec) if place.queue else frozenset[str]()
    if not wanted or not place.nodes or any(wanted <= set(kind.features) for kind in place.nodes):
        return None
    shown = {feature for kind in place.nodes for feature in kind.features}
    return _of_place(place, Reason.CONSTRAINT, "--constraint " + "&".join(sorted(wanted)), ", ".join(sorted(shown)))


def enough_alike_nodes(ask: Ask, place: PlaceOption) -> Rejection | None:
    """Each need alone may be met, yet by too few nodes all together."""
    if not place.nodes or any(judge(ask, place) for judge in _ONE_NEED):
        return None
    asked = ask.spec.resources.nodes
    alike = sum(kind.total for kind in place.nodes if node_fits(ask.spec, kind, place.job_type))
    if alike >= asked:
        return None
    offered = f"at most {count(alike, 'node')}" if alike else "no node"
    return _of_place(place, Reason.NODES, count(asked, "node"), offered + " meeting all needs at once")


def enough_nodes_up(ask: Ask, place: PlaceOption) -> Rejection | None:
    """Nodes come back, so the job may wait for them; a reservation that closes them has an end of its own."""
    if not place.nodes or _closed_now(place) or any(judge(ask, place) for judge in (*_ONE_NEED, enough_alike_nodes)):
        return None
    fitting = [kind for kind in place.nodes if node_fits(ask.spec, kind, place.job_type)]
    asked, up = ask.spec.resources.nodes, sum(kind.total - kind.down for kind in fitting)
    if up >= asked:
        return None
    total = sum(kind.total for kind in fitting)
    return _of_place(place, Reason.NODES_DOWN, count(asked, "node"), f"{up} of {count(total, 'node')}")


def licences_held(ask: Ask, place: PlaceOption) -> Rejection | None:
    snapshot = place.view.snapshot
    if snapshot is None or snapshot.licences is None or place.queue is None:
        return None
    held = {licence.name: licence.total for licence in snapshot.licences}
    short = {name: n for name, n in licences_asked(ask.spec).items() if n > held.get(name, 0)}
    asked = ", ".join(f"{name}:{n}" for name, n in sorted(short.items()))
    offered = ", ".join(f"{name}:{held[name]}" for name in sorted(short) if name in held)
    return _of_place(place, Reason.LICENCE, asked, offered) if short else None


def account_open(ask: Ask, place: PlaceOption) -> Rejection | None:
    known, asked = _associations(ask, place), _option(ask.spec, "--account")
    offered = sorted({each.account for each in known})
    return (
        _of_place(place, Reason.ACCOUNT, asked, " or ".join(offered)) if known and asked not in ("", *offered) else None
    )


def allocation_left(ask: Ask, place: PlaceOption) -> Rejection | None:
    """As sites count: the job must fit into what is left of its account if it uses all of its walltime."""
    account = _option(ask.spec, "--account")
    left = [each.core_minutes_left for each in _associations(ask, place) if account in ("", each.account)]
    needed = ask.spec.resources.cores * ask.spec.resources.walltime_s / 60
    if not left or any(each is None or each >= needed for each in left):
        return None
    most = max(each for each in left if each is not None)
    return _of_place(place, Reason.ALLOCATION, _core_hours(needed), _core_hours(max(0, most)))


def qos_open(ask: Ask, place: PlaceOption) -> Rejection | None:
    known, asked = _associations(ask, place), _option(ask.spec, "--qos")
    account = _option(ask.spec, "--account")
    offered = sorted({qos for each in known if account in ("", each.account) for qos in each.qos})
    return (
        _of_place(place, Reason.QOS, asked, " or ".join(offered)) if offered and asked not in ("", *offered) else None
    )


def qos_allows(ask: Ask, place: PlaceOption) -> Rejection | None:
    """What the quality of service that the job asks for allows one job or one user."""
    snapshot, name, asked = place.view.snapshot, _option(ask.spec, "--qos"), ask.spec.resources
    limits = [each for each in (snapshot.qos if snapshot else None) or () if each.name == name]
    for limit in limits if place.queue else ():
        if limit.max_walltime_s is not None and asked.walltime_s > limit.max_walltime_s:
            return _of_place(
                place, Reason.WALLTIME, duration(asked.walltime_s), _most(name, duration(limit.max_walltime_s))
            )
        if limit.max_cores_per_user is not None and asked.cores > limit.max_cores_per_user:
            return _of_place(
                place, Reason.CORES, count(asked.cores, "core"), _most(name, count(limit.max_cores_per_user, "core"))
            )
    return None


def within_price(ask: Ask, place: PlaceOption) -> Rejection | None:
    most, price = ask.spec.max_price_usd, price_usd(ask.spec, place.view.system)
    if most is None or price is None or price <= most:
        return None
    return _of_place(place, Reason.BUDGET, f"{most:.2f} USD", f"{price:.2f} USD")


_ONE_NEED: tuple[PlaceFilter, ...] = (nodes_fit, cores_fit, memory_fits, gpus_present, features_present)


def below_queue_limits(ask: Ask, place: PlaceOption) -> Rejection | None:
    queue, view = place.queue, place.view
    if queue is None:
        return None
    if _reached(view.active_jobs(queue.name), queue.max_jobs):
        return _of_place(place, Reason.JOB_LIMIT, "", f"{queue.max_jobs} jobs")
    if _reached(view.active_jobs(queue.name, ask.owner), queue.max_jobs_per_user):
        return _of_place(place, Reason.JOB_LIMIT, "", f"{queue.max_jobs_per_user} jobs per user")
    return None


SYSTEM_FILTERS: tuple[SystemFilter, ...] = (
    named,
    enabled,
    can_execute,
    permitted,
    credential_known,
    runs_this_job_type,
    runtime_present,
    image_permitted,
    network_open,
    storage_suffices,
    queue_exists,
    below_job_limits,
)
"""Asked in this order; the first that rejects speaks for the system."""

PLACE_FILTERS: tuple[PlaceFilter, ...] = (
    constraints_hold,
    arrays_supported,
    partition_up,
    nodes_fit,
    cores_fit,
    memory_fits,
    walltime_allowed,
    gpus_present,
    features_present,
    enough_alike_nodes,
    licences_held,
    account_open,
    allocation_left,
    qos_open,
    qos_allows,
    within_price,
    enough_nodes_up,
    below_queue_limits,
)
"""All are asked, so that a user learns everything that stands in the way of a queue."""


# -- words they share --------------------------------------------------------------------------------------------


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
        and (job_type is JobType.FORK or features_asked(spec) <= set(kind.features))
    )


def _option(spec: JobSpec, name: str) -> str:
    """What the job says under one of the scheduler's options; the last word counts, as for sbatch."""
    return next((option.value or "" for option in reversed(spec.scheduler_options or ()) if option.name == name), "")


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


def _core_hours(core_minutes: float) -> str:
    return f"{core_minutes / 60:.1f} core-hours"


def _most(qos: str, limit: str) -> str:
    return f"at most {limit} under the QOS {qos}"


def _has_gpus(count: int, model: str | None, kind: NodeKind) -> bool:
    same_model = not model or not kind.gpu_model or model.casefold() == kind.gpu_model.casefold()
    return count == 0 or (kind.gpus >= count and same_model)


def _between(
    place: PlaceOption, reason: Reason, asked: int, least: int, most: int | None, written: Callable[[int], str]
) -> Rejection | None:
    if asked < least:
        return _of_place(place, reason, written(asked), f"at least {written(least)}")
    if most is not None and asked > most:
        return _of_place(place, reason, written(asked), f"at most {written(most)}")
    return None


def _least(*limits: int | None) -> int | None:
    """The tightest of the limits that are set; the wire's ways to write "none" do not count."""
    return min((limit for limit in limits if limit is not None and 0 <= limit < UNLIMITED), default=None)


def _reached(count: int, limit: int) -> bool:
    return 0 <= limit <= count and limit < UNLIMITED


def _of_system(view: SystemView, reason: Reason, asked: str = "", limit: str = "") -> Rejection:
    return Rejection(system_id=view.system.id, queue=None, reason=reason, asked=asked, limit=limit)


def _of_place(place: PlaceOption, reason: Reason, asked: str = "", limit: str = "") -> Rejection:
    return Rejection(system_id=place.key.system_id, queue=place.key.queue, reason=reason, asked=asked, limit=limit)
