"""What screening can tell of a job, given the systems: jobs of which it can tell the same are judged once.

Memory and walltime are told apart only by the limits that lie between them. What a judgement quotes of them is put
right for each job.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterable
from dataclasses import replace
from functools import cached_property

from placement.policy import allowed_images, is_pushed
from placement.problem import PlaceOption, SystemView, holds
from placement.seen import written_memory
from placement.words import duration
from scheduler.model.jobs import JobSpec
from scheduler.model.plan import Reason, Rejection
from scheduler.model.runs import Resources
from scheduler.model.systems import UNLIMITED


def question(spec: JobSpec) -> Hashable:
    """All that the filters read of a spec: jobs of one owner for whom this is equal are judged alike."""
    return (*_asked(spec), spec.resources, spec.image)


def _asked(spec: JobSpec) -> tuple[Hashable, ...]:
    return (
        spec.exec_system_id,
        spec.dynamic,
        spec.queue,
        spec.job_type,
        spec.runtime,
        spec.is_mpi,
        None if spec.array is None else len(spec.array.indices),
        spec.constraints,
        spec.scheduler_options,
        spec.max_price_usd,
        spec.needs_network,
        spec.storage_mib,
    )


class Gist:
    """How these systems tell jobs apart."""

    def __init__(self, views: Collection[SystemView]) -> None:
        self._views, self._owners = views, dict[str, str]()

    def of(self, spec: JobSpec) -> Hashable:
        """As ``question``, but equal, too, for jobs that no limit lies between."""
        asked = spec.resources
        if spec.scheduler_options or spec.max_price_usd is not None or self._counts_core_hours:
            return question(spec)
        image = spec.image if self._tells_images_apart or is_pushed(spec.image) else None
        above_mib, above_s = (
            bisect_left(self._memory_mib, asked.memory_mib),
            bisect_left(self._walltimes_s, asked.walltime_s),
        )
        shape = asked.nodes, asked.cores_per_node, asked.gpus_per_node, asked.gpu_model
        return (*_asked(spec), *shape, above_mib, above_s, image)

    def who(self, owner: str) -> str:
        """The owner; nobody in particular where no system can tell them from others."""
        if owner not in self._owners:
            known = self._counts_by_owner or not all(
                holds(view.may_execute, owner) and holds(view.has_credential, owner) for view in self._views
            )
            self._owners[owner] = owner if known else ""
        return self._owners[owner]

    @cached_property
    def _counts_by_owner(self) -> bool:
        """Whether there is a limit for each user, or accounts are known of those whose look it was."""
        systems = [view.system for view in self._views]
        limits = [each.max_jobs_per_user for each in systems]
        limits += [queue.max_jobs_per_user for each in systems for queue in each.queues]
        looks = [view.snapshot for view in self._views if view.snapshot and view.system.is_dynamic_user]
        return any(0 <= most < UNLIMITED for most in limits) or any(each.associations for each in looks)

    @cached_property
    def _places(self) -> Collection[PlaceOption]:
        return [place for view in self._views for place in (view.host_place, *view.queue_places)]

    @cached_property
    def _memory_mib(self) -> list[int]:
        """What is at most one of these is told apart from what is more."""
        nodes = {kind.memory_mib for place in self._places for kind in place.nodes}
        return sorted(nodes.union(*(_steps(*place.bounds.memory_mib) for place in self._places)))

    @cached_property
    def _walltimes_s(self) -> list[int]:
        return sorted({step for place in self._places for step in _steps(*place.bounds.walltime_s)})

    @cached_property
    def _tells_images_apart(self) -> bool:
        return any(allowed_images(view.system) or view.image_verdicts for view in self._views)

    @cached_property
    def _counts_core_hours(self) -> bool:
        looks = [view.snapshot for view in self._views if view.snapshot is not None]
        return any(each.core_minutes_left is not None for look in looks for each in look.associations or ())


def _steps(least: int, most: int | None) -> Iterable[int]:
    return (least - 1,) if most is None else (least - 1, most)


QUOTED = frozenset({Reason.MEMORY, Reason.WALLTIME})
"""Rejections that quote what a job asks for, and are made of jobs that ask for different amounts of it alike."""


def restated(rejections: Iterable[Rejection], asked: Resources) -> tuple[Rejection, ...]:
    """Rejections of a job in the words of another one of which no filter can tell it."""
    said = {Reason.MEMORY: written_memory(asked.memory_mib), Reason.WALLTIME: duration(asked.walltime_s)}
    return tuple(replace(each, asked=said[each.reason]) if each.reason in said else each for each in rejections)
