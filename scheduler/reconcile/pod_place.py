"""Where an instance of a pod goes: the engine that places jobs, asked about the systems that keep pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from placement.filters import NOT_NOW
from placement.problem import Ask, Plan, Problem, SolveLimits, SystemView
from scheduler.model.errors import NotFound
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Decision, Reason
from scheduler.model.pods import Pod
from scheduler.model.runs import Runtime
from scheduler.ports import Ports
from scheduler.reconcile.pod_homes import STORES, Home, holds_files, home_of, mounted_by
from scheduler.reconcile.pod_runs import LONG_S, image_of, pod_resources, runtime_on
from scheduler.reconcile.pod_words import placed_words

Planner = Callable[[Problem, SolveLimits], Plan]

WALLTIMES_S = (LONG_S, 7 * 86_400, 2 * 86_400, 86_400, 12 * 3600, 4 * 3600, 3600, 1800, 600, 180)
"""How long an instance shall live, longest first: the first that fits somewhere is asked for."""

NO_FILES = (
    "no system here that keeps pods keeps their files; on Kubernetes notes.berth.k8s.volume names a claim for them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPlace:
    """Where an instance goes, and for how long at most. ``wait_p90_s``: how long its turn may be in coming."""

    system_id: str
    queue: str | None
    walltime_s: int
    wait_p90_s: float
    sentence: str


@dataclass(frozen=True, slots=True)
class NoPlace:
    """Why there is none; ``later``: time may mend it."""

    words: str
    later: bool


class PodPlacing:
    """Chooses places for pods; several of a tenant together."""

    def __init__(self, ports: Ports, planner: Planner, limits: SolveLimits) -> None:
        self._ports, self._planner, self._limits = ports, planner, limits

    async def choose(self, pods: Sequence[Pod]) -> Mapping[str, PodPlace | NoPlace]:
        """A place for each pod of one tenant, by uuid."""
        problem = await self._ports.problem(pods[0].tenant, [ask_of(pod, WALLTIMES_S[0], ()) for pod in pods])
        keepers = tuple(view for view in problem.systems if keeps_pods(view))
        homes, found = await self._homes(pods, problem.systems, keepers)
        left = [pod for pod in pods if pod.uuid not in found]
        lasting = tuple(view for view in keepers if holds_files(view.system))
        with_files = [pod for pod in left if any(mount.kind in STORES for mount in pod.definition.mounts)]
        others = [pod for pod in left if pod not in with_files]
        for group, able in ((with_files, lasting), (others, keepers)):
            if group and keepers and not able:
                found |= {pod.uuid: NoPlace(NO_FILES, later=False) for pod in group}
            elif group:
                found |= await self._among(able, group, homes, problem)
        return found

    async def _among(
        self, keepers: tuple[SystemView, ...], pods: Sequence[Pod], homes: Mapping[str, Home], problem: Problem
    ) -> Mapping[str, PodPlace | NoPlace]:
        """Places on these systems alone."""
        found: dict[str, PodPlace | NoPlace] = {}
        left = list(pods)
        for walltime_s in WALLTIMES_S:
            if not left:
                break
            asks = tuple(ask_of(pod, min(walltime_s, _wanted_s(pod)), keepers, homes.get(pod.uuid)) for pod in left)
            plan = await asyncio.to_thread(self._planner, replace(problem, asks=asks, systems=keepers), self._limits)
            for pod, ask in zip(list(left), asks, strict=True):
                decision = plan.decisions[pod.uuid]
                if decision.winner is not None or not _too_long(decision) or walltime_s == WALLTIMES_S[-1]:
                    found[pod.uuid] = _answer(pod, ask, decision, keepers, homes.get(pod.uuid))
                    left.remove(pod)
        return found

    async def _homes(
        self, pods: Sequence[Pod], systems: Sequence[SystemView], keepers: Sequence[SystemView]
    ) -> tuple[dict[str, Home], dict[str, PodPlace | NoPlace]]:
        """Of each pod whose files lie somewhere already, where; and answers for those that can go nowhere for it."""
        homes: dict[str, Home] = {}
        answers: dict[str, PodPlace | NoPlace] = {}
        async with self._ports.reading() as db:
            for pod in pods:
                try:
                    home = home_of(await mounted_by(db, pod))
                except NotFound as gone:
                    answers[pod.uuid] = NoPlace(f"{gone}; mount another, or none", later=False)
                    continue
                if home is not None:
                    homes[pod.uuid] = home
                    if (refusal := _away_from(home, pod, systems, keepers)) is not None:
                        answers[pod.uuid] = refusal
        return homes, answers


def keeps_pods(view: SystemView) -> bool:
    """Whether pods may be started on a system: its owner says so, or it is the machine of Berth itself."""
    return view.system.enabled and view.system.keeps_pods


def ask_of(pod: Pod, walltime_s: int, keepers: Sequence[SystemView], home: Home | None = None) -> Ask:
    """An instance of a pod as the engine reads jobs. ``home``: where its files lie."""
    system_id, queue = named_place(pod.definition.compute_queue, [view.system.id for view in keepers])
    system_id = system_id or (home.system_id if home is not None else None)
    runtimes = {runtime_on(view.system) for view in keepers if system_id in (None, view.system.id)}
    spec = JobSpec(
        name=pod.id,
        app_id="berth.pod",
        app_version="1",
        image=image_of(pod.definition.image),
        runtime=runtimes.pop() if len(runtimes) == 1 else Runtime.SINGULARITY,
        exec_system_id=system_id,
        queue=queue,
        resources=pod_resources(pod, walltime_s),
    )
    return Ask(job_uuid=pod.uuid, owner=pod.owner, spec=spec, waiting_since=pod.wanted_at or pod.created_at)


def named_place(compute_queue: str, systems: Sequence[str]) -> tuple[str | None, str | None]:
    """The system and queue that ``compute_queue`` names: ``default``, ``<system>`` or ``<system>.<queue>``."""
    if compute_queue in ("", "default"):
        return None, None
    if compute_queue in systems or "." not in compute_queue:
        return compute_queue, None
    system_id, _, queue = compute_queue.rpartition(".")
    return system_id, queue


def _wanted_s(pod: Pod) -> int:
    """How long it shall run: until it is stopped anyway, where that is known."""
    limit_s = pod.definition.time_to_stop_s
    return LONG_S if limit_s < 0 else max(WALLTIMES_S[-1], limit_s)


def _too_long(decision: Decision) -> bool:
    return any(rejection.reason is Reason.WALLTIME for rejection in decision.rejections)


def _away_from(home: Home, pod: Pod, systems: Sequence[SystemView], keepers: Sequence[SystemView]) -> NoPlace | None:
    """Why a pod cannot run where its files lie."""
    if not home.system_id:
        return NoPlace(home.words, later=False)
    named, _ = named_place(pod.definition.compute_queue, [view.system.id for view in keepers])
    if named not in (None, home.system_id):
        words = f"compute_queue: '{pod.definition.compute_queue}' is elsewhere, and {home.words}; use {home.system_id}"
        return NoPlace(words, later=False)
    if home.system_id not in {view.system.id for view in keepers}:
        known = home.system_id in {view.system.id for view in systems}
        words = "is disabled, or keeps no pods now" if known else "is gone"
        return NoPlace(
            f"system '{home.system_id}' {words}, and {home.words}; have it back, or mount another", later=True
        )
    return None


def _answer(
    pod: Pod, ask: Ask, decision: Decision, keepers: Sequence[SystemView], home: Home | None
) -> PodPlace | NoPlace:
    winner = decision.winner
    if winner is not None:
        bound = f" No other place was asked: {home.words}." if home is not None and len(keepers) > 1 else ""
        return PodPlace(
            system_id=winner.system_id,
            queue=winner.queue,
            walltime_s=ask.spec.resources.walltime_s,
            wait_p90_s=max(winner.wait.p90_s, winner.staging.p90_s),
            sentence=placed_words(winner, decision.losers, ask.spec.resources.walltime_s) + bound,
        )
    if not keepers:
        words = "no system here keeps pods; the owner of one allows it by notes.berth.pods"
        return NoPlace(words, later=False)
    wanted = ask.spec.exec_system_id
    if wanted is not None and wanted not in {view.system.id for view in keepers}:
        names = ", ".join(sorted(view.system.id for view in keepers))
        return NoPlace(
            f"compute_queue: '{pod.definition.compute_queue}' names no system that keeps pods; "
            f"use default or one of {names}",
            later=False,
        )
    sentence = f"{decision.sentence} ({home.words})" if home is not None else decision.sentence
    return NoPlace(sentence, later=any(each.reason in NOT_NOW for each in decision.rejections))
