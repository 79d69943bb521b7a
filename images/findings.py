"""What a rule answers, and what it is told beside the two records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from images.host import HostFacts
from images.needs import MpiMode, Needs
from scheduler.model.actions import Action
from scheduler.model.verdicts import Fit


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of one rule. rule: its id; reason: with a YES, a warning or a remark; cost_s: to be avoided so much.

    facts: those it rests on, ``image.libc`` or ``host.kernel``, by which the evidence is found again.
    """

    rule: str
    fit: Fit
    reason: str = ""
    fix: str = ""
    facts: tuple[str, ...] = ()
    actions: tuple[Action, ...] = ()
    cost_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchPolicy:
    """What the job wants and what the site does.

    strict: what is not known counts as no. wants_gpus: None where the job does not say. form, compressor: what images
    are converted to. enforces_require: whether a hook checks ``NVIDIA_REQUIRE_*``; None: as the runtime's facts say.
    converts_here: nodes of this class convert images. runtime: which of several is used; None: the first.
    """

    strict: bool = False
    wants_gpus: bool | None = None
    wants_mpi: bool = False
    nodes: int = 1
    mpi_mode: MpiMode | None = None
    form: str = "squashfs"
    compressor: str = "zstd"
    enforces_require: bool | None = None
    may_disable_require: bool = True
    converts_here: bool = False
    runtime: str | None = None


Rule = Callable[[Needs, HostFacts, MatchPolicy], Finding | None]
"""None: it has nothing to say about this image here."""

Way = tuple[Finding, ...]
"""Findings that hold together when it is done so."""

Choice = Callable[[Needs, HostFacts, MatchPolicy], Iterable[Way]]
"""Several ways to do one thing, in order of preference; the best one counts. No way: it has nothing to say."""


def worst(findings: Iterable[Finding]) -> Fit:
    """The worst fit of all; YES when there is none."""
    return max((each.fit for each in findings), key=lambda fit: fit.badness, default=Fit.YES)


def best_way(ways: Iterable[Way]) -> Way:
    """The way that fits best; among those that work the cheapest, then the first."""
    return min(ways, key=_dearness, default=())


def _dearness(way: Way) -> tuple[int, float]:
    fit = worst(way)
    return fit.badness, 0.0 if fit is Fit.NO else sum(each.cost_s for each in way)
