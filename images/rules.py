"""R1 to R4 and R14 to R18: machine, kernel, runtime and room. Each rule is small, and a missing fact is never a no."""

from __future__ import annotations

from images import cpu
from images.findings import Finding, MatchPolicy
from images.host import Area, HostFacts, RuntimeFacts
from images.needs import LibcFamily, Needs
from images.versions import at_least, version_text
from scheduler.model.actions import ConvertTo, Unpack, WritableRoot
from scheduler.model.verdicts import Fit

UNPACKING_COST_S = 120.0
"""What unpacking an image for each job is worth avoiding."""

_MODERN_GLIBC, _OLD_KERNEL = (2, 34), (4, 0)
_GIB = 1024**3


# -- the machine ---------------------------------------------------------------------------------------------------


def same_platform(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R1: Linux, and the architecture of the nodes; emulation is never meant."""
    facts = ("image.platform", "host.architecture")
    if needs.platform is None:
        return Finding(rule="R1", fit=Fit.UNKNOWN, reason="the image does not say its platform", facts=facts)
    wanted = f"{needs.platform.os}/{needs.platform.architecture}"
    fix = "use an image that is built for this platform, or a multi-platform tag"
    if needs.platform.os != "linux":
        return Finding(rule="R1", fit=Fit.NO, reason=f"the image is for {wanted}, not Linux", fix=fix, facts=facts)
    if host.architecture is None:
        return Finding(rule="R1", fit=Fit.UNKNOWN, reason="the architecture of the nodes is not known", facts=facts)
    if needs.platform.architecture != host.architecture:
        reason = f"the image is for {wanted}, the nodes are linux/{host.architecture}"
        return Finding(rule="R1", fit=Fit.NO, reason=reason, fix=fix, facts=facts)
    return None


def cpu_runs_proven_code(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R2: the level that the linker noted. No note is no proof, so that it asks for nothing."""
    return _cpu_runs("R2", needs.isa.proven, "image.isa.proven", host)


def cpu_runs_declared_target(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R3, and R4's instructions: the target that the builder names."""
    return _cpu_runs("R3", needs.isa.declared, "image.isa.declared", host)


def _cpu_runs(rule: str, target: str | None, fact: str, host: HostFacts) -> Finding | None:
    if target is None:
        return None
    fit, reason = cpu.runs_code_for(target, host.microarchitecture, host.cpu_flags)
    if fit is Fit.YES:
        return None
    fix = (
        f"use an image built for {host.microarchitecture or 'a more general CPU'}, or constrain the job to newer nodes"
    )
    facts = (fact, "host.microarchitecture", "host.cpu_flags")
    return Finding(rule=rule, fit=fit, reason=reason, fix=fix, facts=facts)


def pages_aligned(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R4: a kernel with pages larger than the alignment of a program's segments cannot load it."""
    page_bytes, aligned = host.page_size_bytes, needs.page_alignment
    if page_bytes is None or aligned is None or aligned.min_bytes >= page_bytes:
        return None
    nothing_loads = aligned.max_bytes < page_bytes
    reason = f"the kernel's pages have {page_bytes} bytes, and the image holds programs linked for smaller ones"
    return Finding(
        rule="R4",
        fit=Fit.NO if nothing_loads else Fit.UNKNOWN,
        reason=reason,
        fix=f"link with -z max-page-size={page_bytes}, or use nodes with smaller pages",
        facts=("image.page_alignment", "host.page_size_bytes"),
    )


def kernel_new_enough(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R14: the C library starts on this kernel, and what the builder declares holds."""
    libc = needs.libc
    floor = max((v for v in (libc.min_kernel if libc else None, needs.declared.kernel) if v), default=None)
    facts = ("image.libc", "image.declared.kernel", "host.kernel")
    if host.kernel is None:
        unsure = needs.declared.kernel is not None
        reason = "the image asks for a kernel version, and that of the nodes is not known"
        return Finding(rule="R14", fit=Fit.UNKNOWN, reason=reason, facts=facts) if unsure else None
    if floor is not None and not at_least(host.kernel, floor):
        reason = f"the image needs Linux {version_text(floor)}, the nodes run {version_text(host.kernel)}"
        return Finding(rule="R14", fit=Fit.NO, reason=reason, fix="use an image with an older base", facts=facts)
    modern = libc and libc.family is LibcFamily.GLIBC and libc.version and at_least(libc.version, _MODERN_GLIBC)
    if modern and not at_least(host.kernel, _OLD_KERNEL):
        reason = (
            f"the image's C library is much newer than Linux {version_text(host.kernel)}: a system call may be missing"
        )
        return Finding(rule="R14", fit=Fit.YES, reason=reason, facts=facts, cost_s=60.0)
    return None


def memory_suffices(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """The memory that the builder declares."""
    asked, has = needs.declared.memory_bytes, host.memory_bytes
    if asked is None or (has is not None and asked <= has):
        return None
    facts = ("image.declared.memory_bytes", "host.memory_bytes")
    if has is None:
        reason = "the image asks for memory, and that of the nodes is not known"
        return Finding(rule="memory", fit=Fit.UNKNOWN, reason=reason, facts=facts)
    reason = f"the image needs {asked / _GIB:.1f} GiB of memory, the nodes have {has / _GIB:.1f} GiB"
    return Finding(rule="memory", fit=Fit.NO, reason=reason, fix="use nodes with more memory", facts=facts)


def network_open(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """The network that the builder declares."""
    if not needs.declared.network or host.outbound_network:
        return None
    facts = ("image.declared.network", "host.outbound_network")
    if host.outbound_network is None:
        reason = "the image needs the network, and whether the nodes reach it is not known"
        return Finding(rule="network", fit=Fit.UNKNOWN, reason=reason, facts=facts)
    reason = "the image needs the network, and the nodes reach nothing outside"
    return Finding(rule="network", fit=Fit.NO, reason=reason, fix="stage what it downloads as inputs", facts=facts)


# -- the container runtime -----------------------------------------------------------------------------------------


def runtime_of(host: HostFacts, policy: MatchPolicy) -> RuntimeFacts | None:
    """The runtime that will be used; None where none is known."""
    named = [each for each in host.runtimes or () if policy.runtime in (None, each.name)]
    return named[0] if named else None


def runtime_starts(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R15: there is a runtime, and it may make containers: as root, or through user namespaces."""
    facts = ("host.runtimes", "host.user_namespaces")
    if host.runtimes is None:
        return Finding(rule="R15", fit=Fit.UNKNOWN, reason="the container runtime is not known", facts=facts)
    runtime = runtime_of(host, policy)
    if runtime is None:
        reason = f"the nodes have no {policy.runtime or 'container runtime'}"
        return Finding(rule="R15", fit=Fit.NO, reason=reason, fix="ask the site to install Apptainer", facts=facts)
    if runtime.setuid or host.user_namespaces:
        return None
    known = runtime.setuid is False and host.user_namespaces is False
    reason = f"{runtime.name} is not setuid, and user namespaces are switched off"
    if not known:
        reason = f"whether {runtime.name} may make containers here is not known"
    fix = "ask the site for user namespaces or a setuid Apptainer"
    return Finding(rule="R15", fit=Fit.NO if known else Fit.UNKNOWN, reason=reason, fix=fix, facts=facts)


def runtime_mounts(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R15: something mounts the image file: FUSE, or a setuid runtime that is allowed to; else it is unpacked."""
    runtime = runtime_of(host, policy)
    if runtime is None or runtime.fuse or (runtime.setuid and runtime.setuid_mounts):
        return None
    if runtime.fuse is None or (runtime.setuid is not False and runtime.setuid_mounts is None):
        reason = f"whether {runtime.name} can mount an image here is not known"
        return Finding(rule="R15", fit=Fit.UNKNOWN, reason=reason, fix="probe the nodes", facts=("host.runtimes",))
    return Finding(
        rule="R15",
        fit=Fit.FIXABLE,
        reason=f"{runtime.name} cannot mount images here",
        fix="the image is unpacked for each job",
        facts=("host.runtimes",),
        actions=(Unpack(),),
        cost_s=UNPACKING_COST_S,
    )


def form_accepted(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R15: squashfs files without a SIF around them are allowed."""
    runtime = runtime_of(host, policy)
    if runtime is None or policy.form != "squashfs" or runtime.bare_squashfs:
        return None
    known = runtime.bare_squashfs is False
    return Finding(
        rule="R15",
        fit=Fit.FIXABLE,
        reason=f"{runtime.name} {'does not run' if known else 'may not run'} bare squashfs files here",
        fix="the image is wrapped as a SIF",
        facts=("host.runtimes",),
        actions=(ConvertTo(form="sif"),),
    )


def compressor_mounts(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R16: the compressor was tried there; gzip is what everything reads."""
    runtime = runtime_of(host, policy)
    if runtime is None or policy.compressor == "gzip":
        return None
    if runtime.compressors is not None and policy.compressor in runtime.compressors:
        return None
    known = runtime.compressors is not None
    reason = f"{policy.compressor} images {'cannot be mounted' if known else 'were never tried'} on these nodes"
    return Finding(
        rule="R16",
        fit=Fit.FIXABLE,
        reason=reason,
        fix="the image is compressed with gzip",
        facts=("host.runtimes",),
        actions=(ConvertTo(compressor="gzip"),),
    )


def root_writable(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """The builder says that the image writes into its own tree."""
    if not needs.declared.writable_root:
        return None
    return Finding(
        rule="root",
        fit=Fit.FIXABLE,
        reason="the image writes into its own files",
        fix="a writable layer in memory is laid over it",
        facts=("image.declared.writable_root",),
        actions=(WritableRoot(),),
    )


def hooks_present(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """Hooks that the builder asks for by ``com.hooks.NAME.enabled``; names differ between sites, so none is a no."""
    runtime = runtime_of(host, policy)
    offered = (runtime.hooks if runtime else None) or ()
    missing = [name for name in needs.declared.hooks if name not in offered]
    if not missing:
        return None
    reason = f"the image asks for the hooks {', '.join(missing)}, which this site is not known to have"
    facts = ("image.declared.hooks", "host.runtimes")
    return Finding(rule="hooks", fit=Fit.UNKNOWN, reason=reason, fix="ask the site", facts=facts)


# -- room ----------------------------------------------------------------------------------------------------------


def store_has_room(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R18: the finished file, about as large as its compressed layers, fits into the store."""
    room, size_bytes = host.rooms.get(Area.SCRATCH), needs.download_bytes
    if room is None or size_bytes is None:
        return None
    facts = ("image.download_bytes", "host.rooms")
    if room.limit_bytes is not None and size_bytes > room.limit_bytes:
        reason = f"the image has {_gib(size_bytes)}, {room.path} holds at most {_gib(room.limit_bytes)}"
        return Finding(rule="R18", fit=Fit.NO, reason=reason, fix="ask for a larger quota", facts=facts)
    if room.free_bytes is not None and size_bytes > room.free_bytes:
        reason = f"the image has {_gib(size_bytes)}, {room.path} has {_gib(room.free_bytes)} free"
        fix = "images that nobody uses are removed first"
        return Finding(rule="R18", fit=Fit.FIXABLE, reason=reason, fix=fix, facts=facts)
    return None


def conversion_has_room(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding | None:
    """R18: where nodes of this class convert: layers, tree and finished file fit side by side."""
    room = host.rooms.get(Area.TMPDIR)
    if not policy.converts_here or room is None or needs.download_bytes is None or needs.unpacked_bytes is None:
        return None
    asked_bytes = 2 * needs.download_bytes + needs.unpacked_bytes
    facts = ("image.download_bytes", "image.unpacked_bytes", "host.rooms")
    if room.limit_bytes is not None and asked_bytes > room.limit_bytes:
        reason = f"converting needs {_gib(asked_bytes)}, {room.path} holds {_gib(room.limit_bytes)}"
        return Finding(rule="R18", fit=Fit.FIXABLE, reason=reason, fix="it is converted elsewhere", facts=facts)
    if room.in_memory:
        reason = f"{room.path} is in memory: converting takes {_gib(asked_bytes)} of the job's memory"
        return Finding(rule="R18", fit=Fit.YES, reason=reason, facts=facts)
    return None


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
