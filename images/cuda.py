"""CUDA as images bring it and nodes run it: versions, GPUs, and which code runs on which."""

from __future__ import annotations

import re
from collections.abc import Sequence

from images import tables
from images.findings import MatchPolicy
from images.host import Gpu, HostFacts
from images.needs import Needs
from images.versions import Version, at_least, compare, version_of

_TARGET = re.compile(r"(?:sm|compute)_(\d{1,3})(\d)([af]?)")


def nvidia_gpus(host: HostFacts) -> tuple[Gpu, ...]:
    """GPUs of the nodes that run CUDA; AMD's have a target of their own."""
    return tuple(gpu for gpu in host.gpus or () if gpu.target is None)


def cuda_versions(needs: Needs) -> tuple[Sequence[Version], bool]:
    """Versions of CUDA that the image runs on, and whether they are proven or a hint."""
    declared = (needs.declared.cuda,) if needs.declared.cuda else ()
    if needs.cuda.runtimes or declared:
        return (*(needs.cuda.runtimes or ()), *declared), True
    hint = env_version(needs) if needs.cuda.runtimes is None else None
    return ((hint,) if hint else ()), False


def env_version(needs: Needs) -> Version | None:
    """``CUDA_VERSION``, which anybody may have set to anything."""
    try:
        return version_of(needs.cuda.env_version or "")
    except ValueError:
        return None


def own_cuda(driver: Version | None, said: Version | None) -> Version | None:
    """The CUDA that a driver brings: as the driver said, else by its branch."""
    return said or (tables.driver_cuda(driver) if driver else None)


def uses_cuda(needs: Needs, host: HostFacts, policy: MatchPolicy) -> bool:
    """Whether CUDA matters: the image brings it, nodes may have such GPUs, and the job does not do without."""
    if policy.wants_gpus is False or (host.gpus is not None and not nvidia_gpus(host)):
        return False
    return bool(cuda_versions(needs)[0] or needs.cuda.cubins or needs.cuda.ptx)


def code_runs(target: str, gpu: Gpu) -> bool | None:
    """Whether code for a target runs on a GPU; ``a`` binds it to one capability, ``f`` to one family."""
    found = _TARGET.fullmatch(target)
    if found is None or gpu.compute_capability is None:
        return None
    wanted = (int(found[1]), int(found[2]))
    same_family = gpu.compute_capability[0] == wanted[0] and at_least(gpu.compute_capability, wanted)
    if found[3] == "a":
        return compare(gpu.compute_capability, wanted) == 0
    if found[3] == "f" or target.startswith("sm_"):
        return same_family
    return at_least(gpu.compute_capability, wanted)
