"""Which places can take a job at all: small functions in tables, each saying why not as data.

Hard facts only, and only facts that are known: what a system or its snapshot does not say never rejects. Here are the
filters that read definitions; those that read a look at a system are in ``placement.seen``.
``screen`` runs on the submit path, so this module stays free of numpy and the solver.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from placement.constraints import parse
from placement.gist import QUOTED, Gist, restated
from placement.policy import (
    allowed_images,
    image_allowed,
    is_pushed,
    keeps_images,
    outbound_network,
    price_usd,
    storage_mib,
)
from placement.problem import Ask, Breaker, PlaceOption, Problem, SystemView, holds
from placement.rejections import of_place, of_system, reached
from placement.seen import (
    account_open,
    allocation_left,
    cores_fit,
    enough_alike_nodes,
    enough_nodes_up,
    features_present,
    gpus_present,
    licences_held,
    memory_fits,
    nodes_fit,
    partition_up,
    qos_allows,
    qos_open,
    walltime_allowed,
)
from placement.words import count, memory
from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Reason, Rejection
from scheduler.model.runs import JobType, Resources, Runtime
from scheduler.model.verdicts import Fit

NOT_NOW = frozenset({Reason.QUEUE_DOWN, Reason.JOB_LIMIT, Reason.NODES_DOWN, Reason.FAILING, Reason.GANG})
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
    gist, is_lone = Gist(views), len(problem.asks) == 1
    judged: dict[Hashable, _Judged] = {}
    found: dict[str, Screening] = {}
    for ask in problem.asks:
        alike = () if is_lone else (gist.who(ask.owner), gist.of(ask.spec))
        known = judged.get(alike)
        if known is None:
            known = judged[alike] = _Judged(_screened(ask, views), ask.spec.resources)
        found[ask.job_uuid] = known.of(ask.spec.resources)
    return found


class _Judged:
    """What was said of one job, and of others of which no filter can tell it."""

    def __init__(self, screening: Screening, asked: Resources) -> None:
        self._first = screening
        self._quotes_asked = any(each.reason in QUOTED for each in (*screening.later, *screening.rejections))
        self._said = {(asked.memory_mib, asked.walltime_s): screening}

    def of(self, asked: Resources) -> Screening:
        """In the words of a job that asks for this."""
        if not self._quotes_asked:
            return self._first
        quoted = asked.memory_mib, asked.walltime_s
        if quoted not in self._said:
            self._said[quoted] = _restated(self._first, asked)
        return self._said[quoted]


def _screened(ask: Ask, views: Iterable[SystemView]) -> Screening:
    candidates: list[PlaceOption] = []
    found: list[Rejection] = []
    for view in views:
        about_system = next(filter(None, (judge(ask, view) for judge in SYSTEM_FILTERS)), None)
        if about_system is not None:
            found.append(about_system)
            continue
        for place in places(ask.spec, view):
            judges = ALL_FILTERS if view.snapshot else PLACE_FILTERS
            about_place = [rejection for judge in judges if (rejection := judge(ask, place)) is not None]
            found.extend(about_place)
            if not about_place:
                candidates.append(place)
    never = {(each.system_id, each.queue) for each in found if each.reason not in NOT_NOW}
    later = tuple(each for each in found if (each.system_id, each.queue) not in never)
    hard = tuple(each for each in found if (each.system_id, each.queue) in never and each.reason not in NOT_NOW)
    return Screening(tuple(candidates), later, hard)


def _restated(screening: Screening, asked: Resources) -> Screening:
    later, never = restated(screening.later, asked), restated(screening.rejections, asked)
    return Screening(screening.candidates, later, never)


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
    return None if wanted in (None, view.system.id) else of_system(view, Reason.NOT_NAMED, wanted or "")


def enabled(ask: Ask, view: SystemView) -> Rejection | None:
    return None if view.system.enabled and not view.system.deleted else of_system(view, Reason.DISABLED)


def can_execute(ask: Ask, view: SystemView) -> Rejection | None:
    return None if view.system.can_exec else of_system(view, Reason.CANNOT_EXECUTE)


def permitted(ask: Ask, view: SystemView) -> Rejection | None:
    return None if holds(view.may_execute, ask.owner) else of_system(view, Reason.NOT_PERMITTED, ask.owner)


def credential_known(ask: Ask, view: SystemView) -> Rejection | None:
    return None if holds(view.has_credential, ask.owner) else of_system(view, Reason.NO_CREDENTIAL, ask.owner)


def runs_this_job_type(ask: Ask, view: SystemView) -> Rejection | None:
    offered = view.system.job_types()
    wanted = job_type_on(ask.spec, view)
    if wanted in offered:
        return None
    return of_system(view, Reason.JOB_TYPE, wanted.value, " and ".join(sorted(offered)))


def runtime_present(ask: Ask, view: SystemView) -> Rejection | None:
    offered = sorted({each.runtime.value for each in view.system.runtimes})
    if ask.spec.runtime is Runtime.NONE or not offered or ask.spec.runtime in offered:
        return None
    return of_system(view, Reason.RUNTIME, ask.spec.runtime.value, " and ".join(offered))


def network_open(ask: Ask, view: SystemView) -> Rejection | None:
    closed = ask.spec.needs_network and outbound_network(view.system) is False
    return of_system(view, Reason.NETWORK) if closed else None


def image_permitted(ask: Ask, view: SystemView) -> Rejection | None:
    if ask.spec.runtime is Runtime.NONE or image_allowed(ask.spec.image, view.system):
        return None
    return of_system(view, Reason.POLICY, ask.spec.image, ", ".join(allowed_images(view.system)))


def image_comes(ask: Ask, view: SystemView) -> Rejection | None:
    if ask.spec.runtime is Runtime.NONE or not is_pushed(ask.spec.image) or keeps_images(view.system):
        return None
    return of_system(view, Reason.IMAGE, ask.spec.image, "it is a pushed file, and no store for images is there")


def storage_suffices(ask: Ask, view: SystemView) -> Rejection | None:
    asked = ask.spec.storage_mib
    room = storage_mib(view.system) if asked else None
    if room is None or asked <= room:
        return None
    return of_system(view, Reason.STORAGE, memory(asked), f"at most {memory(room)}")


def queue_exists(ask: Ask, view: SystemView) -> Rejection | None:
    if places(ask.spec, view):
        return None
    offered = ", ".join(sorted(queue.name for queue in view.system.queues))
    return of_system(view, Reason.QUEUE_UNKNOWN, queue_asked(ask.spec, view) or "", offered)


def below_job_limits(ask: Ask, view: SystemView) -> Rejection | None:
    system = view.system
    if reached(view.active_jobs(), system.max_jobs):
        return of_system(view, Reason.JOB_LIMIT, "", f"{system.max_jobs} jobs")
    if reached(view.active_jobs(owner=ask.owner), system.max_jobs_per_user):
        return of_system(view, Reason.JOB_LIMIT, "", f"{system.max_jobs_per_user} jobs per user")
    return None


# -- one queue of it ---------------------------------------------------------------------------------------------


def constraints_hold(ask: Ask, place: PlaceOption) -> Rejection | None:
    try:
        unmet = parse(ask.spec.constraints).unmet(place.view.system, place.queue)
    except SpecInvalid as unreadable:  # submit has parsed them; a job stored under other rules must not stop the rest
        return of_place(place, Reason.CONSTRAINT, " ".join(ask.spec.constraints)[:200], str(unreadable))
    return None if unmet is None else of_place(place, Reason.CONSTRAINT, unmet.clause, unmet.actual)


def arrays_supported(ask: Ask, place: PlaceOption) -> Rejection | None:
    if ask.spec.array is None:
        return None
    return of_place(place, Reason.ARRAY) if place.queue is None else None


def within_price(ask: Ask, place: PlaceOption) -> Rejection | None:
    most = ask.spec.max_price_usd
    price = None if most is None else price_usd(ask.spec, place.view.tariff)
    if most is None or price is None or price <= most:
        return None
    return of_place(place, Reason.BUDGET, f"{most:.2f} USD", f"{price:.2f} USD")


def image_runs(ask: Ask, place: PlaceOption) -> Rejection | None:
    verdict = place.image_verdict(ask.spec)
    if verdict is None or verdict.fit is not Fit.NO:
        return None
    return of_place(place, Reason.IMAGE, ask.spec.image, "; ".join(filter(None, (verdict.reason, verdict.fix))))


def below_queue_limits(ask: Ask, place: PlaceOption) -> Rejection | None:
    queue, view = place.queue, place.view
    if queue is None:
        return None
    if reached(view.active_jobs(queue.name), queue.max_jobs):
        return of_place(place, Reason.JOB_LIMIT, "", f"{queue.max_jobs} jobs")
    if reached(view.active_jobs(queue.name, ask.owner), queue.max_jobs_per_user):
        return of_place(place, Reason.JOB_LIMIT, "", f"{queue.max_jobs_per_user} jobs per user")
    return None


def not_failing(ask: Ask, place: PlaceOption) -> Rejection | None:
    shut = [breaker for breaker in place.breakers if breaker.trials_left < 1]
    return failing(place, max(shut, key=lambda breaker: breaker.next_trial_at)) if shut else None


def failing(place: PlaceOption, breaker: Breaker) -> Rejection:
    """What keeps a job from a place while another one tries it, or until the next may."""
    tried = breaker.on_trial_count or breaker.trials_left
    when = "once the one on trial survives" if tried else f"at {breaker.next_trial_at:%H:%M} UTC"
    return of_place(place, Reason.FAILING, count(breaker.broken_count, "job"), when)


SYSTEM_FILTERS: tuple[SystemFilter, ...] = (
    named,
    enabled,
    can_execute,
    permitted,
    credential_known,
    runs_this_job_type,
    runtime_present,
    image_permitted,
    image_comes,
    network_open,
    storage_suffices,
    queue_exists,
    below_job_limits,
)
"""Asked in this order; the first that rejects speaks for the system."""

PLACE_FILTERS: tuple[PlaceFilter, ...] = (
    constraints_hold,
    arrays_supported,
    nodes_fit,
    cores_fit,
    memory_fits,
    walltime_allowed,
    within_price,
    image_runs,
    below_queue_limits,
    not_failing,
)
SEEN_FILTERS: tuple[PlaceFilter, ...] = (
    partition_up,
    gpus_present,
    features_present,
    enough_alike_nodes,
    enough_nodes_up,
    licences_held,
    account_open,
    allocation_left,
    qos_open,
    qos_allows,
)
ALL_FILTERS = (*PLACE_FILTERS, *SEEN_FILTERS)
"""All are asked, so that a user learns everything that stands in the way of a queue; the latter need a look at it."""
