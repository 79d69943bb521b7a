"""R8: whether there is a GPU, and the image's code runs on it."""

from __future__ import annotations

import re

from images.cuda import code_runs, cuda_versions, nvidia_gpus, uses_cuda
from images.findings import Finding, MatchPolicy
from images.host import Gpu, HostFacts
from images.needs import Needs
from scheduler.model.verdicts import Fit


def gpu_present(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """An image with CUDA runs without a GPU what needs none; only a job or a builder who insists closes the place."""
    brings_cuda = bool(cuda_versions(needs)[0])
    insists = policy.wants_gpus or needs.declared.cuda is not None
    if not brings_cuda or policy.wants_gpus is False or host.gpus is None or nvidia_gpus(host):
        return None
    return Finding(
        rule="gpu",
        fit=Fit.NO if insists else Fit.YES,
        reason="the image uses CUDA, and the nodes have no NVIDIA GPU",
        fix="ask for nodes with GPUs",
        facts=("image.cuda.runtimes", "host.gpus"),
    )


def gpu_code_fits(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R8: machine code of the same major version and no newer minor one, or PTX that is no newer than the GPU."""
    cubins, ptx, gpus = needs.cuda.cubins, needs.cuda.ptx, nvidia_gpus(host)
    if not uses_cuda(needs, host, policy) or not gpus or not (cubins or ptx):
        return None
    answers = [code_runs(target, gpu) for gpu in gpus for target in (*(cubins or ()), *(ptx or ()))]
    if True in answers:
        return None
    certain = cubins is not None and ptx is not None and None not in answers
    names = ", ".join(sorted({gpu.name for gpu in gpus}))
    reason = f"the image has GPU code for {', '.join((*(cubins or ()), *(ptx or ())))[:120]}, and none runs on {names}"
    if not certain:
        reason = f"whether the GPU code of the image runs on {names} is not known"
    return Finding(
        rule="R8",
        fit=Fit.NO if certain else Fit.UNKNOWN,
        reason=reason,
        fix="use an image built for these GPUs",
        facts=("image.cuda.cubins", "image.cuda.ptx", "host.gpus"),
    )


def declared_gpu_fits(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """The GPUs that the builder names: one of them, or a newer one."""
    targets = needs.declared.gpu_targets
    if not targets or policy.wants_gpus is False or not host.gpus:
        return None
    answers = [_meets(target, gpu) for target in targets for gpu in host.gpus]
    if True in answers:
        return None
    reason = f"the image is meant for GPUs of {', '.join(targets)[:80]}"
    facts = ("image.declared.gpu_targets", "host.gpus")
    return Finding(rule="R8", fit=Fit.UNKNOWN if None in answers else Fit.NO, reason=reason, facts=facts)


def _meets(target: str, gpu: Gpu) -> bool | None:
    if target.startswith("gfx"):
        return gpu.target == target if gpu.target or gpu.compute_capability else None
    if gpu.target is not None:
        return False
    return code_runs("compute_" + re.sub(r"^(sm_|compute_)|\.", "", target), gpu)


def rocm_code_fits(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """AMD's GPU code runs on the very target that it was built for, unless it is of a generic kind.

    Never a no: targets are read from the names of AMD's own libraries, and an application may bring kernels for others.
    """
    targets = [gpu.target for gpu in host.gpus or () if gpu.target is not None]
    built = needs.rocm.targets
    if not built or not targets or policy.wants_gpus is False:
        return None
    plain = {target.split(":")[0] for target in built}
    if plain & {target.split(":")[0] for target in targets}:
        return None
    libraries = f"the image's ROCm libraries are for {', '.join(sorted(plain))[:120]}"
    return Finding(
        rule="R8",
        fit=Fit.UNKNOWN,
        reason=f"{libraries}, the nodes have {', '.join(sorted(targets))}; its own GPU code may be for others",
        fix="use an image built for these GPUs",
        facts=("image.rocm.targets", "host.gpus"),
    )
