"""Whether an image runs on nodes of one class, as placement and the run line need to know it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scheduler.model.actions import Action
from scheduler.model.jobs import JobSpec
from scheduler.model.runs import Runtime


class Fit(StrEnum):
    """From best to worst. FIXABLE: it runs once the actions are taken; UNKNOWN: a fact is missing."""

    YES = "yes"
    FIXABLE = "fixable"
    UNKNOWN = "unknown"
    NO = "no"

    @property
    def badness(self) -> int:
        """Grows from YES to NO."""
        return list(Fit).index(self)


class ImageAsk(NamedTuple):
    """What a verdict is asked for: an image as jobs name it, and what such a job wants of the nodes."""

    image: str
    mpi: bool = False
    several_nodes: bool = False
    gpus: bool = False

    @classmethod
    def of(cls, spec: JobSpec) -> ImageAsk | None:
        """None for a job that runs without a container."""
        if spec.runtime is Runtime.NONE:
            return None
        return cls(spec.image, spec.is_mpi, spec.resources.nodes > 1, spec.resources.gpus_per_node > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageVerdict:
    """What became of matching one image with nodes of one class.

    reason, fix: sentences for people, of the rule that decided; reason may hold a warning where the image runs.
    cost_s: what running there is worth avoiding, in seconds. rules: ids of those that said anything, in their order.
    """

    fit: Fit
    reason: str = ""
    fix: str = ""
    cost_s: float = 0.0
    actions: tuple[Action, ...] = ()
    warnings: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
