"""Does this image run on these nodes? All rules are asked, and the worst answer is the verdict.

A choice between several ways, such as whose MPI runs, counts as its best way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from images import driver_rules, gpu_code_rules, mpi_rules, rules
from images.findings import Choice, Finding, MatchPolicy, Rule, best_way
from images.host import HostFacts
from images.needs import Needs
from scheduler.model.actions import Action, LibraryPathFirst
from scheduler.model.verdicts import Fit, ImageVerdict

RULES: tuple[Rule, ...] = (
    rules.same_platform,
    rules.cpu_runs_proven_code,
    rules.cpu_runs_declared_target,
    rules.pages_aligned,
    gpu_code_rules.gpu_present,
    gpu_code_rules.gpu_code_fits,
    gpu_code_rules.declared_gpu_fits,
    gpu_code_rules.rocm_code_fits,
    driver_rules.requirements_hold,
    rules.kernel_new_enough,
    rules.memory_suffices,
    rules.network_open,
    rules.runtime_starts,
    rules.runtime_mounts,
    rules.form_accepted,
    rules.compressor_mounts,
    rules.root_writable,
    rules.hooks_present,
    rules.store_has_room,
    rules.conversion_has_room,
)
CHOICES: tuple[Choice, ...] = (driver_rules.cuda_ways, mpi_rules.mpi_ways)

COST_S: Mapping[Fit, float] = MappingProxyType({Fit.YES: 0.0, Fit.FIXABLE: 30.0, Fit.UNKNOWN: 300.0, Fit.NO: 0.0})
"""What a place is worth avoiding for the kind of verdict alone."""


@dataclass(frozen=True, slots=True)
class Match:
    """The verdict, and the findings it was made of, in the order of the rules."""

    verdict: ImageVerdict
    findings: tuple[Finding, ...]


DEFAULT_POLICY = MatchPolicy()


def match(needs: Needs, host: HostFacts, policy: MatchPolicy = DEFAULT_POLICY) -> Match:
    """Judge one image on nodes of one class. With ``strict``, what is not known is a no."""
    asked = [finding for rule in RULES if (finding := rule(needs, host, policy)) is not None]
    chosen = [finding for choice in CHOICES for finding in best_way(choice(needs, host, policy))]
    findings = tuple(finding for finding in (*asked, *chosen) if _says_something(finding))
    verdict = _verdict(findings, policy)
    then = (needs.command.env if needs.command else {}).get("LD_LIBRARY_PATH", "")
    return Match(replace(verdict, actions=tuple(_with_its_own(each, then) for each in verdict.actions)), findings)


def evidence_of(finding: Finding, needs: Needs, host: HostFacts) -> tuple[str, ...]:
    """What showed the facts that a finding rests on, for people."""
    shown = []
    for fact in finding.facts:
        side, _, name = fact.partition(".")
        if side == "image":
            known = (each for each in needs.evidence if each.fact == name or each.fact.startswith(name + "."))
            shown += [f"image: {each.source}: {each.detail}" for each in known]
        elif name in host.evidence:
            why = host.evidence[name]
            shown.append(f"nodes: {why.source} on {why.seen_at:%Y-%m-%d}: {why.detail}")
    return tuple(shown)


def _with_its_own(action: Action, then: str) -> Action:
    """What is searched first hides what the image says, unless it says it again."""
    return replace(action, then=then) if isinstance(action, LibraryPathFirst) else action


def _says_something(finding: Finding) -> bool:
    return finding.fit is not Fit.YES or bool(finding.reason or finding.actions)


def _verdict(findings: tuple[Finding, ...], policy: MatchPolicy) -> ImageVerdict:
    decisive = max(findings, key=lambda each: each.fit.badness, default=None)
    fit = decisive.fit if decisive else Fit.YES
    refused = policy.strict and fit is Fit.UNKNOWN
    said = decisive if decisive is not None and fit is not Fit.YES else None
    runs = fit is not Fit.NO and not refused
    return ImageVerdict(
        fit=Fit.NO if refused else fit,
        reason=said.reason if said else "",
        fix=said.fix if said else "",
        cost_s=COST_S[fit] + sum(each.cost_s for each in findings) if runs else 0.0,
        actions=tuple(dict.fromkeys(action for each in findings for action in each.actions)) if runs else (),
        warnings=tuple(each.reason for each in findings if each is not said and each.reason),
        rules=tuple(dict.fromkeys(each.rule for each in findings)),
    )
