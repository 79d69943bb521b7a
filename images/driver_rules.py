"""R5 to R7, R8b and R8c: the GPU driver, compatibility libraries, and what ``NVIDIA_REQUIRE_*`` asks of it.

``CUDA_VERSION`` in an image's environment is a hint, so that it alone never makes a no; nor does a table that ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from images import requirements, tables
from images.cuda import code_runs, cuda_versions, env_version, nvidia_gpus, own_cuda, uses_cuda
from images.findings import Finding, MatchPolicy, Way, worst
from images.host import Gpu, HostFacts
from images.needs import CompatLibrary, Needs
from images.rules import runtime_of
from images.versions import Version, at_least, version_text
from scheduler.model.actions import Bind, LibraryPathFirst, RuntimeEnv
from scheduler.model.errors import SpecInvalid
from scheduler.model.verdicts import Fit

JUST_IN_TIME_COST_S = 60.0
"""What compiling all GPU code at the first start is worth avoiding."""

SITE_COMPAT = "/.berth/cuda-compat"
"""Where a compatibility library of the site appears in the container."""


def cuda_ways(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Iterable[Way]:
    """R5 with R6, or R7: the driver of the nodes as it is, or behind a compatibility library of the image."""
    if not uses_cuda(needs, host, policy) or not cuda_versions(needs)[0]:
        return
    plain: Way = (driver_runs_cuda(needs, host),)
    if worst(plain) is Fit.YES:
        plain = (*plain, *just_in_time(needs, host))
    if worst(plain) is Fit.YES:
        yield plain
        return
    behind = min(_behind_libraries(needs, host), key=lambda finding: finding.fit.badness)
    yield (*plain, behind) if worst(plain) is behind.fit is Fit.NO else plain
    yield (behind,)


def driver_runs_cuda(needs: Needs, host: HostFacts) -> Finding:
    """R5: a newer driver runs older CUDA, and from CUDA 11 on one floor holds for all minor versions."""
    facts = ("image.cuda.runtimes", "image.cuda.env_version", "host.gpu_driver", "host.driver_cuda")
    versions, proven = cuda_versions(needs)
    if host.gpu_driver is None and host.driver_cuda is None:
        return Finding(rule="R5", fit=Fit.UNKNOWN, reason="the GPU driver of the nodes is not known", facts=facts)
    fits = [_driver_fit(version, host.gpu_driver, host.driver_cuda) for version in versions]
    newest = max(versions, key=lambda version: (*version, 0, 0)[:3])
    if all(fit is Fit.YES for fit in fits):
        return Finding(rule="R5", fit=Fit.YES, facts=facts)
    has = f"driver {version_text(host.gpu_driver)}" if host.gpu_driver else "driver"
    floor = tables.driver_floor(newest)
    asks = f"needs driver {version_text(floor)} or newer" if floor else "is newer than our tables"
    reason = f"CUDA {version_text(newest)} {asks}, the nodes have {has}"
    certain = proven and all(fit is Fit.NO for fit in fits)
    fix = "use an image with an older CUDA, or nodes with a newer driver"
    return Finding(rule="R5", fit=Fit.NO if certain else Fit.UNKNOWN, reason=reason, fix=fix, facts=facts)


def _driver_fit(runtime: Version, driver: Version | None, said: Version | None) -> Fit:
    own = own_cuda(driver, said)
    if own is not None and at_least(own, runtime[:2]):
        return Fit.YES
    floor = tables.driver_floor(runtime)
    if driver is None or floor is None:
        return Fit.UNKNOWN
    return Fit.YES if at_least(driver, floor) else Fit.NO


def just_in_time(needs: Needs, host: HostFacts) -> Way:
    """R6: within one major version newer features may fail, and so does code that an older driver must compile.

    That is not certain: the code may have been made by an older compiler than the runtime beside it.
    """
    own = own_cuda(host.gpu_driver, host.driver_cuda)
    newer = [version for version in cuda_versions(needs)[0] if own is not None and not at_least(own, version[:2])]
    gpus = nvidia_gpus(host)
    if not newer or own is None:
        return ()
    reason = f"the driver brings CUDA {version_text(own)}, the image {version_text(newer[0])}: newer features may fail"
    only_ptx = (
        needs.cuda.ptx
        and needs.cuda.cubins is not None
        and gpus
        and not any(code_runs(target, gpu) for target in needs.cuda.cubins for gpu in gpus)
    )
    if only_ptx:
        reason += ", and its GPU code must be compiled by that driver (error 222)"
    facts = ("image.cuda.runtimes", "image.cuda.cubins", "host.driver_cuda")
    if not only_ptx:
        return (Finding(rule="R6", fit=Fit.YES, reason=reason, facts=facts),)
    fix = "use nodes with a newer driver, or an image that is built for their GPUs"
    cost_s = JUST_IN_TIME_COST_S
    return (Finding(rule="R6", fit=Fit.UNKNOWN, reason=reason, fix=fix, facts=facts, cost_s=cost_s),)


def _behind_libraries(needs: Needs, host: HostFacts) -> Sequence[Finding]:
    """R7, for each compatibility library of the image, and of the site."""
    ours = [_compatible(library, needs, host, ()) for library in needs.cuda.compat or ()]
    theirs = [
        _compatible(replace(library, folder=SITE_COMPAT), needs, host, (Bind(library.folder, SITE_COMPAT),))
        for library in host.compat or ()
    ]
    known = needs.cuda.compat is not None and host.compat is not None
    reason = "there is no compatibility library" if known else "whether there is a compatibility library is not known"
    none = Finding(
        rule="R7", fit=Fit.NO if known else Fit.UNKNOWN, reason=reason, facts=("image.cuda.compat", "host.compat")
    )
    return [*ours, *theirs, *(() if known and (ours or theirs) else (none,))]


def _compatible(library: CompatLibrary, needs: Needs, host: HostFacts, binds: tuple[Bind, ...]) -> Finding:
    """R7: a newer user-space driver, of the image or bound into it, over the older one of the nodes."""
    facts = ("image.cuda.compat", "host.gpus", "host.gpu_driver")
    fix = "use nodes with a newer driver, or an image with an older CUDA"

    def answer(fit: Fit, reason: str) -> Finding:
        return Finding(rule="R7", fit=fit, reason=reason, fix=fix, facts=facts)

    gpus, driver = nvidia_gpus(host), host.gpu_driver
    if not any(_driver_fit(version, library.driver, None) is not Fit.NO for version in cuda_versions(needs)[0]):
        return answer(
            Fit.NO, f"the compatibility library {version_text(library.driver)} is older than the image's CUDA"
        )
    if not gpus or driver is None:
        return answer(Fit.UNKNOWN, "there is a compatibility library; GPUs or driver of the nodes are not known")
    fits = [_forward(gpu, library, driver) for gpu in gpus]
    fit, reason = min(fits, key=lambda each: each[0].badness)
    if fit is not Fit.FIXABLE:
        return answer(fit, reason)
    return Finding(
        rule="R7",
        fit=fit,
        reason=reason,
        fix=f"{library.folder} comes first in the library path",
        facts=facts,
        actions=(*binds, LibraryPathFirst(library.folder)),
    )


def _forward(gpu: Gpu, library: CompatLibrary, driver: Version) -> tuple[Fit, str]:
    """Whether a compatibility library works on one kind of GPU over this driver."""
    grade = tables.Grade.DATA_CENTRE if gpu.data_centre else tables.gpu_grade(gpu.name)
    if grade is tables.Grade.CONSUMER or (gpu.data_centre is False and grade is not tables.Grade.PROFESSIONAL):
        return Fit.NO, f"{gpu.name} does not take compatibility libraries (error 804)"
    if gpu.compute_capability is not None and tables.drops_gpu(library.driver, gpu.compute_capability):
        return Fit.NO, f"{gpu.name} is too old for the compatibility library {version_text(library.driver)}"
    name = f"compatibility library {version_text(library.driver)} over driver {version_text(driver)}"
    if grade is not tables.Grade.DATA_CENTRE or gpu.compute_capability is None:
        return Fit.UNKNOWN, f"{name} may work on {gpu.name}; only data-centre GPUs are sure"
    cuda = tables.driver_cuda(library.driver)
    if cuda is None or driver[0] not in tables.forward_branches(cuda):
        return Fit.UNKNOWN, f"{name} is no pair that NVIDIA lists"
    return Fit.FIXABLE, f"the driver of the nodes is older than the image's CUDA: {name} works"


# -- what the image says that it requires --------------------------------------------------------------------------


def requirements_hold(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R8b, R8c: ``NVIDIA_REQUIRE_*``. It is stricter than the driver, so it matters only where a hook enforces it."""
    if not uses_cuda(needs, host, policy) or needs.cuda.require_disabled or not _asks_for_devices(needs):
        return None
    facts = ("image.cuda.requires", "image.cuda.env_version", "host.gpu_driver", "host.gpus")
    enforced = policy.enforces_require
    if enforced is None:
        runtime = runtime_of(host, policy)
        enforced = runtime.nvccli if runtime else None
    try:
        asked = [requirements.parse(text, name) for name, text in _requirements(needs)]
    except SpecInvalid as unreadable:
        fit = Fit.YES if enforced is False else Fit.UNKNOWN
        return Finding(rule="R8b", fit=fit, reason=str(unreadable), facts=facts)
    answers = [requirements.all_hold(asked, _facts_of(gpu, host)) for gpu in nvidia_gpus(host) or (Gpu(name=""),)]
    if True in answers:
        return None
    text = "; ".join(value for _, value in _requirements(needs))[:120]
    what = "whether the nodes meet" if None in answers else "the nodes do not meet"
    reason = f"{what} what the image requires ({text})" + (" is not known" if None in answers else "")
    if enforced is False:
        return Finding(rule="R8c", fit=Fit.YES, reason=f"{reason}; nothing checks it here", facts=facts)
    if policy.may_disable_require:
        return Finding(
            rule="R8c",
            fit=Fit.FIXABLE,
            reason=reason,
            fix="the check is switched off: the driver itself decides",
            facts=facts,
            actions=(RuntimeEnv("NVIDIA_DISABLE_REQUIRE", "true"),),
        )
    fit = Fit.NO if enforced and None not in answers else Fit.UNKNOWN
    return Finding(rule="R8c", fit=fit, reason=reason, fix="use nodes with a newer driver", facts=facts)


def _requirements(needs: Needs) -> Sequence[tuple[str, str]]:
    """The variables; a legacy image, with ``CUDA_VERSION`` and without ``NVIDIA_REQUIRE_CUDA``, asks for that CUDA."""
    asked = sorted((needs.cuda.requires or {}).items())
    legacy = env_version(needs)
    if legacy and needs.cuda.requires is not None and "NVIDIA_REQUIRE_CUDA" not in needs.cuda.requires:
        asked.append(("CUDA_VERSION", "cuda>=" + version_text(legacy[:2])))
    return asked


def _asks_for_devices(needs: Needs) -> bool:
    """Hooks look at an image that asks for GPUs; one with ``CUDA_VERSION`` only always does."""
    visible = needs.cuda.visible_devices
    legacy = needs.cuda.env_version is not None and "NVIDIA_REQUIRE_CUDA" not in (needs.cuda.requires or {})
    return legacy if visible is None else visible not in ("", "void")


def _facts_of(gpu: Gpu, host: HostFacts) -> requirements.Facts:
    own = own_cuda(host.gpu_driver, host.driver_cuda)
    return {"cuda": own, "driver": host.gpu_driver, "arch": gpu.compute_capability, "brand": gpu.brand}
