"""What placement is asked on behalf of users: screening at submit, dry runs, systems that meet constraints.

Everything is decided from stored facts; no system is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from placement.constraints import parse, validate
from placement.engine import place as place_all
from placement.explain import advice, refusal
from placement.filters import Screening, screen
from placement.gist import question
from placement.problem import ANYONE, Ask, PlaceOption, Problem, SystemView
from scheduler.model.errors import NoFeasibleSystem, NotFound, SpecInvalid
from scheduler.model.jobs import JobSpec
from scheduler.model.pages import WHOLE_LIST
from scheduler.model.plan import Decision, Estimate
from scheduler.model.runs import Runtime
from scheduler.model.systems import BackendKind, LogicalQueue, System
from scheduler.model.users import Permission, Principal
from scheduler.ports import Ports
from scheduler.security.authorize import Action, demand, may
from scheduler.store.systems import CredentialStore, SystemStore

NOBODY: frozenset[str] = frozenset()
MATCH_UUID = "match"


@dataclass(slots=True)
class Facts:
    """What one request may know of systems, read once each. ``owner`` is whose jobs these are."""

    db: Any
    owner: Principal
    _known: dict[str, SystemView] = field(default_factory=dict)
    _holders: dict[str, frozenset[str]] = field(default_factory=dict)
    _everywhere: Sequence[SystemView] | None = None
    screenings: dict[Hashable, tuple[PlaceOption | None, str]] = field(default_factory=dict)
    """What came of screening, by ``question``: the jobs of a batch mostly ask the same."""

    def know(self, system: System, has_credential: bool) -> None:
        """Take a system that was just found current; its owner, an admin or everyone may read it without a grant."""
        if may(self.owner, Action.READ, system):
            self._known[system.id] = self._as_seen(system, frozenset(), has_credential)

    async def named(self, system_id: str, where: str) -> SystemView:
        """One system; SpecInvalid naming the field when the owner knows none of that id."""
        if system_id not in self._known:
            try:
                system = await SystemStore(self.db).get(self.owner.tenant, system_id)
                grants = await self._grants(system)
                demand(self.owner, Action.READ, system, "system", system_id, grants)
            except NotFound as unknown:
                raise SpecInvalid.of(where, str(unknown), "see GET /v3/systems?listType=ALL") from None
            self._known[system_id] = await self._view(system, grants)
        return self._known[system_id]

    async def everywhere(self) -> Sequence[SystemView]:
        """Every system that the owner may know of."""
        if self._everywhere is None:
            store = SystemStore(self.db)
            if self.owner.is_admin:
                systems = await store.list(self.owner.tenant, WHOLE_LIST)
            else:
                systems = await store.visible_to(self.owner.tenant, self.owner.username)
            self._everywhere = [await self._view(system, await self._grants(system)) for system in systems]
        return self._everywhere

    async def _grants(self, system: System) -> frozenset[Permission]:
        if system.owner == self.owner.username or self.owner.is_admin or system.is_public:
            return frozenset()
        return await SystemStore(self.db).grants(system.tenant, system.id, self.owner.username)

    async def _view(self, system: System, grants: frozenset[Permission]) -> SystemView:
        return self._as_seen(system, grants, await self._can_log_in(system))

    def _as_seen(self, system: System, grants: frozenset[Permission], can_log_in: bool) -> SystemView:
        me = frozenset({self.owner.username})
        return SystemView(
            system=system,
            may_execute=me if may(self.owner, Action.EXECUTE, system, grants) else NOBODY,
            has_credential=me if can_log_in or system.backend is BackendKind.LOCAL else NOBODY,
        )

    async def _can_log_in(self, system: System) -> bool:
        if system.backend is BackendKind.LOCAL:
            return True
        holder = system.credential_user(self.owner.username)
        if holder not in self._holders:
            self._holders[holder] = await CredentialStore(self.db).holders(system.tenant, holder)
        return system.id in self._holders[holder]


async def screened(facts: Facts, ask: Ask) -> tuple[PlaceOption | None, str]:
    """A provisional place for a job, and a sentence on it; no place when it fits only later.

    Raises NoFeasibleSystem with every reason when the stored facts exclude it everywhere.
    """
    asked = question(ask.spec)
    if asked not in facts.screenings:
        facts.screenings[asked] = await _screened(facts, ask)
    return facts.screenings[asked]


async def _screened(facts: Facts, ask: Ask) -> tuple[PlaceOption | None, str]:
    spec = ask.spec
    if spec.exec_system_id and not spec.dynamic:
        views: Sequence[SystemView] = [await facts.named(spec.exec_system_id, "execSystemId")]
    else:
        views = await facts.everywhere()
        validate(spec.constraints, [view.system for view in views])
    screening = screen(Problem(now=ask.waiting_since, asks=(ask,), systems=tuple(views)))[ask.job_uuid]
    if not screening.possible:
        raise NoFeasibleSystem(screening.rejections, _refusal(screening))
    if screening.candidates:
        return min(screening.candidates, key=lambda option: _roominess(option, spec)), ""
    return _later(screening, views), refusal(screening)


async def plan(ports: Ports, owner: Principal, ask: Ask) -> Decision:
    """Where a job would go now, and why; nothing is stored. NoFeasibleSystem as at submit."""
    async with ports.reading() as db:
        facts = Facts(db, owner)
        if ask.spec.exec_system_id and not ask.spec.dynamic:
            views: Sequence[SystemView] = [await facts.named(ask.spec.exec_system_id, "execSystemId")]
        else:
            views = await facts.everywhere()
            validate(ask.spec.constraints, [view.system for view in views])
    problem = await _problem(ports, owner, views, ask)
    screening = screen(problem)[ask.job_uuid]
    if not screening.possible:
        raise NoFeasibleSystem(screening.rejections, _refusal(screening))
    decisions = await asyncio.to_thread(place_all, problem)
    return replace(decisions.decisions[ask.job_uuid], decided_at=ports.clock())


async def matching(
    ports: Ports, caller: Principal, constraints: Sequence[str]
) -> Sequence[tuple[System, Estimate | None]]:
    """Systems where the caller may run jobs and that meet the constraints, soonest result first."""
    expression = parse(tuple(constraints))
    spec = JobSpec(
        name=MATCH_UUID,
        app_id=MATCH_UUID,
        app_version="",
        image="",
        runtime=Runtime.NONE,
        dynamic=True,
        constraints=tuple(constraints),
    )
    ask = Ask(job_uuid=MATCH_UUID, owner=caller.username, spec=spec, waiting_since=ports.clock())
    async with ports.reading() as db:
        views = [replace(view, has_credential=ANYONE) for view in await Facts(db, caller).everywhere()]
        validate(spec.constraints, [view.system for view in views])
        views = [view for view in views if view.may_execute and view.system.can_exec and view.system.enabled]
        views = [view for view in views if any(expression.unmet(view.system, q) is None for q in _queues(view))]
    problem = await _problem(ports, caller, views, ask)
    decision = (await asyncio.to_thread(place_all, problem)).decisions[ask.job_uuid]
    best: dict[str, Estimate] = {}
    for estimate in (*((decision.winner,) if decision.winner else ()), *decision.losers):
        best.setdefault(estimate.system_id, estimate)
    order = {system_id: position for position, system_id in enumerate(best)}
    views.sort(key=lambda view: (order.get(view.system.id, len(order)), view.system.id))
    return [(view.system, best.get(view.system.id)) for view in views]


async def _problem(ports: Ports, owner: Principal, views: Iterable[SystemView], ask: Ask) -> Problem:
    """The whole problem of one job, in those systems and with those rights that the request has found."""
    asked = await ports.problem(owner.tenant, [ask])
    found = {view.system.id: view for view in views}
    seen = [(view, found[view.system.id]) for view in asked.systems if view.system.id in found]
    systems = [replace(view, may_execute=mine.may_execute, has_credential=mine.has_credential) for view, mine in seen]
    return replace(asked, systems=tuple(systems))


def _refusal(screening: Screening) -> str:
    return ". ".join((refusal(screening), *advice(screening)))


def _later(screening: Screening, views: Iterable[SystemView]) -> PlaceOption | None:
    """The first place that only time keeps closed."""
    by_id = {view.system.id: view for view in views}
    for rejection in screening.later:
        view = by_id[rejection.system_id]
        return PlaceOption(view, view.system.queue(rejection.queue) if view.system.can_run_batch else None)
    return None


def _roominess(option: PlaceOption, spec: JobSpec) -> tuple[bool, int, str, str]:
    """Order of candidates before placement has thought: the queue that is meant by default, then the largest."""
    system, queue = option.view.system, option.queue
    named_default = queue is not None and queue.name == system.default_queue
    return not named_default, -(queue.max_nodes if queue else 0), system.id, queue.name if queue else ""


def _queues(view: SystemView) -> Sequence[LogicalQueue | None]:
    return view.system.queues or (None,)
