"""Microarchitectures as a partial order, by archspec: what code for one target needs of a CPU."""

from __future__ import annotations

from collections.abc import Collection

from archspec.cpu import TARGETS

from scheduler.model.verdicts import Fit

ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
    "riscv64": "riscv64",
    "i686": "386",
    "armv7l": "arm",
}
"""The kernel's names of machines, in Go's words, which images use."""

_ARM_IMPLEMENTERS = {
    "0x41": "ARM",
    "0x43": "Cavium",
    "0x46": "Fujitsu",
    "0x4e": "Nvidia",
    "0x61": "Apple",
    "0xc0": "Ampere",
}

_ALIASES = {"x86-64-v2": "x86_64_v2", "x86-64-v3": "x86_64_v3", "x86-64-v4": "x86_64_v4", "x86-64": "x86_64"}


def is_known(target: str) -> bool:
    """Whether archspec knows the target."""
    return _name(target) in TARGETS


def best_target(machine: str, vendor: str | None, flags: Collection[str], part: str | None = None) -> str | None:
    """The most special target that a CPU with these flags is; None where archspec does not know the machine.

    machine: as the kernel names it (``x86_64``). vendor: its maker, ``GenuineIntel`` or an Arm implementer's number;
    part: the Arm part number. Levels without flags of their own (``armv9.0a``) are only learnt from a known part.
    """
    vendor, have = _ARM_IMPLEMENTERS.get(vendor or "", vendor), _named(flags)
    fitting = [
        target
        for target in TARGETS.values()
        if str(target.family) == machine
        and target.vendor in ("generic", vendor)
        and target.features <= have
        and (target.features or not target.parents)
        and (not target.cpu_part or target.cpu_part == part)
    ]
    if not fitting:
        return None
    return str(max(fitting, key=lambda target: (len(target.features), target.vendor != "generic", target.name)).name)


def runs_code_for(need: str, host: str | None, flags: Collection[str] | None) -> tuple[Fit, str]:
    """Whether a CPU runs code built for the target ``need``, and why.

    host: archspec's name of the CPU; flags: as the kernel lists them. Either may be unknown. Names are compared only
    along one line of descent. Across vendors, and where a virtual machine masks its CPUID, flags may say yes; they say
    no when even the general level of the target is missing, since kernels do not list every flag.
    """
    wanted = TARGETS.get(_name(need))
    if wanted is None:
        return Fit.UNKNOWN, f"nobody knows the CPU target {need[:40]!r}"
    mine = TARGETS.get(_name(host)) if host else None
    lacks = f"it needs a CPU like {need}"
    if mine is not None and mine >= wanted:
        return Fit.YES, f"{host} runs code for {need}"
    if mine is not None and (mine.family != wanted.family or (mine.vendor != "generic" and mine < wanted)):
        return Fit.NO, f"{lacks}, the nodes are {host}"
    have = flags if flags is not None else mine.features if mine is not None else None
    if have is None:
        return Fit.UNKNOWN, f"{lacks}, and the CPU of the nodes is not known"
    missing, missing_level = (sorted(target.features - _named(have)) for target in (wanted, wanted.generic))
    if missing_level:
        return Fit.NO, f"{lacks}; the nodes lack {', '.join(missing_level[:6])}"
    if missing or not wanted.features:
        return Fit.UNKNOWN, f"{lacks}; whether the nodes are, is not certain"
    return Fit.YES, f"the CPU has every feature of {need}"


def _named(flags: Collection[str]) -> frozenset[str]:
    """The kernel's words for features, and archspec's where they differ."""
    return frozenset(flags) | ({"sse3"} if "pni" in flags else set())


def _name(target: str) -> str:
    return _ALIASES.get(target, target)
