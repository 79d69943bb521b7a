"""R9 to R13 and R17: a job over several nodes runs with the MPI of the image, or with that of the host in its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from images import tables
from images.findings import Finding, MatchPolicy, Way
from images.host import HostFacts, HostMpi
from images.needs import Fabric, LibcFamily, MpiFamily, MpiLibrary, MpiMode, Needs
from images.versions import Version, at_least, version_of, version_text
from scheduler.model.actions import Bind, LaunchWith, LibraryPathFirst
from scheduler.model.verdicts import Fit

TCP_COST_S = 600.0
"""What running over TCP beside a fast network is worth avoiding."""
TRANSLATED_COST_S = 120.0
BOUND_FOLDER = "/.berth/mpi"
"""Where the host's libraries appear in the container, under the names that its programs ask for."""

_DECLARED = re.compile(r"(mpich-abi|openmpi|mpi-abi)(?:>=([0-9.]{1,20}))?")
_PLUGINS: Mapping[MpiFamily, Sequence[str]] = {
    MpiFamily.MPICH_ABI: ("pmi2", "pmix"),
    MpiFamily.OPEN_MPI: ("pmix",),
    MpiFamily.STANDARD_ABI: ("pmix", "pmi2"),
}
_SITES_PLUGINS: Mapping[MpiFamily, Sequence[str]] = {MpiFamily.MPICH_ABI: ("cray_shasta",)}
"""What only Cray's own MPI understands, and is asked for first where that is bound: on Cray's network.

Slurm is often built with it elsewhere, too, where it starts nothing that works.
"""
_TRANSLATED = frozenset({MpiFamily.MPICH_ABI, MpiFamily.OPEN_MPI})
"""Families between which translators translate; none is known to take programs of the standard ABI."""


def mpi_ways(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Iterable[Way]:
    """The image's own MPI, started by the host; each MPI of the host in place of it; a translation between families."""
    mode = needs.declared.mpi_mode or policy.mpi_mode
    if not policy.wants_mpi or mode is MpiMode.NONE:
        return
    libraries = used_libraries(needs)
    if libraries is None:
        reason = "whether and which MPI the image has is not known"
        yield (Finding(rule="R9", fit=Fit.UNKNOWN, reason=reason, fix="inspect the image", facts=("image.mpi",)),)
        return
    doubt = _which_is_used(libraries) if policy.nodes > 1 else ()
    for library in libraries if mode is not MpiMode.BIND else ():
        yield (own_launch(library, needs, host, policy), *fabric_used(needs, host, policy), *doubt)
    for library in libraries if mode is not MpiMode.HYBRID else ():
        for way in _bound_ways(library, needs, host):
            yield (*way, *doubt)
    if not libraries:
        reason = "the image has no MPI that its programs ask for: each process runs alone"
        yield (Finding(rule="R9", fit=Fit.YES, reason=reason, facts=("image.mpi",)),)


def used_libraries(needs: Needs) -> Sequence[MpiLibrary] | None:
    """Libraries that the image's programs use, or may use; what the builder declares where nobody looked.

    Where the files do not tell which of several is used, the builder's word for the family does.
    """
    declared = _declared(needs)
    if needs.mpi is None:
        return None if declared is None else [declared]
    if used := [each for each in needs.mpi if each.used]:
        return used
    maybe = [each for each in needs.mpi if each.used is None]
    return [each for each in maybe if declared is not None and each.family is declared.family] or maybe


def _declared(needs: Needs) -> MpiLibrary | None:
    found = _DECLARED.fullmatch((needs.declared.mpi or "").replace(" ", ""))
    if found is None:
        return None
    family, version = MpiFamily(found[1]), version_of(found[2]) if (found[2] or ".")[0].isdigit() else None
    abi = version if family is MpiFamily.MPICH_ABI else None
    return MpiLibrary(family=family, soname="", path="", abi=abi, version=None if abi else version)


def _which_is_used(libraries: Sequence[MpiLibrary]) -> Way:
    """A way that is right for one family starts programs of another as so many jobs of one process."""
    families = dict.fromkeys(str(library.family) for library in libraries)
    if len(families) < 2:
        return ()
    reason = f"the image has MPI of the families {', '.join(families)}, and which one the program uses is not known"
    fix = "label the image with berth.require.mpi"
    return (Finding(rule="R9", fit=Fit.UNKNOWN, reason=reason, fix=fix, facts=("image.mpi",)),)


# -- the image's own MPI -------------------------------------------------------------------------------------------


def own_launch(library: MpiLibrary, needs: Needs, host: HostFacts, policy: MatchPolicy) -> Finding:
    """R10, R12: Slurm starts the processes, and they find each other through PMIx or PMI-2.

    A launcher of the host and libraries of the image in one job must not mix versions, so that no other way is tried.
    """
    facts = ("image.mpi", "image.pmix", "host.mpi_plugins", "host.pmix")
    plugins = host.mpi_plugins
    if policy.nodes == 1:
        return Finding(rule="R10", fit=Fit.YES, reason="on one node the image's own launcher runs", facts=facts)
    if plugins is None:
        reason = "what `srun --mpi=list` offers is not known"
        return Finding(rule="R12", fit=Fit.UNKNOWN, reason=reason, fix="probe the nodes", facts=facts)
    plugin = plugin_for(_PLUGINS[library.family], plugins)
    if plugin is None:
        is_open_mpi = library.family is MpiFamily.OPEN_MPI
        certain = is_open_mpi and library.version is not None and at_least(library.version, (5,))
        reason = f"the image's MPI needs {'PMIx' if is_open_mpi else 'PMI-2 or PMIx'}, and Slurm does not offer it"
        fit = Fit.NO if certain else Fit.UNKNOWN
        return Finding(rule="R12", fit=fit, reason=reason, fix="bind the host's MPI", facts=facts)
    launch = (LaunchWith(plugin),)
    if library.family is MpiFamily.MPICH_ABI and plugin == "pmi2":
        return Finding(rule="R12", fit=Fit.YES, facts=facts, actions=launch)
    if library.family is not MpiFamily.OPEN_MPI and (plugin == "pmi2" or not needs.pmix):
        reason = f"whether the image's MPI was built for {plugin}, which Slurm offers, is not known"
        return Finding(
            rule="R12", fit=Fit.UNKNOWN, reason=reason, fix="bind the host's MPI", facts=facts, actions=launch
        )
    fit, reason = _handshake(_pmix_clients(library, needs), _pmix_server(host), needs.declared.pmix)
    return Finding(rule="R12", fit=fit, reason=reason, facts=facts, actions=launch)


def plugin_for(wanted: Sequence[str], plugins: Sequence[str]) -> str | None:
    """The first wanted way in which Slurm starts programs, of those that it offers."""
    return next((each for start in wanted for each in sorted(plugins) if each.startswith(start)), None)


def _pmix_clients(library: MpiLibrary, needs: Needs) -> Sequence[Version] | None:
    """Versions of PMIx that the image's programs may speak; None when nothing tells."""
    versions = [client.version for client in needs.pmix or () if client.version is not None]
    if versions:
        return versions
    inside = tables.open_mpi_pmix(library.version) if library.version else None
    return [inside] if inside is not None and not needs.pmix else None


def _pmix_server(host: HostFacts) -> Version | None:
    """As probed, or the major version in the name of Slurm's plugin (``pmix_v4``)."""
    majors = [int(found[1]) for each in host.mpi_plugins or () if (found := re.fullmatch(r"pmix_v(\d{1,3})", each))]
    return host.pmix or ((max(majors),) if majors else None)


def _handshake(clients: Sequence[Version] | None, server: Version | None, asked: Version | None) -> tuple[Fit, str]:
    """Servers take clients from 2.1 on; clients, servers from 3.2 on, or from what the builder declares."""
    if asked is not None and server is not None and not at_least(server, asked[: len(server)]):
        return Fit.NO, f"the image asks for PMIx {version_text(asked)}, Slurm has {version_text(server)}"
    if clients is None:
        return Fit.UNKNOWN, "the PMIx version of the image is not known"
    if not any(at_least(client, tables.PMIX_OLDEST_CLIENT) for client in clients):
        return Fit.NO, f"the image's PMIx {version_text(clients[0])} is too old: servers take 2.1 and newer"
    if server is None or (len(server) == 1 and server[0] <= tables.PMIX_OLDEST_SERVER[0]):
        return Fit.UNKNOWN, "which PMIx Slurm was built with is not known"
    if not at_least(server, tables.PMIX_OLDEST_SERVER):
        return Fit.UNKNOWN, f"Slurm's PMIx {version_text(server)} is older than clients are tested with"
    return Fit.YES, ""


def fabric_used(needs: Needs, host: HostFacts, policy: MatchPolicy) -> Way:
    """R17: the image drives the fast network of the nodes; if not it runs over TCP: slow, not broken."""
    drives = needs.declared.fabrics if needs.fabrics is None else needs.fabrics
    if policy.nodes == 1 or not host.fabrics or drives is None or set(drives) & set(host.fabrics):
        return ()
    names = ", ".join(host.fabrics)
    reason = f"the image does not drive the nodes' network ({names}): it runs over TCP, slowly"
    return (
        Finding(rule="R17", fit=Fit.YES, reason=reason, facts=("image.fabrics", "host.fabrics"), cost_s=TCP_COST_S),
    )


# -- the host's MPI in its place -----------------------------------------------------------------------------------


def _bound_ways(library: MpiLibrary, needs: Needs, host: HostFacts) -> Iterable[Way]:
    facts = ("image.mpi", "host.mpi")
    if not host.mpi:
        known = host.mpi is not None
        reason = "the host has no MPI to bind" if known else "which MPI the host has is not known"
        yield (Finding(rule="R9", fit=Fit.NO if known else Fit.UNKNOWN, reason=reason, facts=facts),)
    for theirs in host.mpi or ():
        yield (replaced(library, theirs, host.mpi_plugins, host.fabrics or ()), libraries_load(theirs, needs, host))
    for theirs, translator in product(host.mpi or (), host.translators or ()):
        if theirs.library.family is not library.family and {theirs.library.family, library.family} <= _TRANSLATED:
            yield (_translated(library, theirs, translator), libraries_load(theirs, needs, host))


def replaced(
    library: MpiLibrary, theirs: HostMpi, plugins: Sequence[str] | None, fabrics: Sequence[Fabric] = ()
) -> Finding:
    """R9, R10, R11: whether the host's library speaks the image's ABI; if so, the files to bind and how to launch."""
    rule, judge = _JUDGES[library.family]
    facts = ("image.mpi", "host.mpi")
    if theirs.library.family is not library.family:
        fit, reason = Fit.NO, f"the image is built for {library.family}, the host has {theirs.library.family}"
    else:
        fit, reason = judge(library, theirs.library)
    if fit is Fit.NO:
        fix = "use an image with the host's family of MPI"
        return Finding(rule=rule, fit=fit, reason=reason, fix=fix, facts=facts)
    sites = _SITES_PLUGINS.get(library.family, ()) if Fabric.CXI in fabrics else ()
    wanted = (*sites, *_PLUGINS[library.family])
    launch = () if plugins is None else (LaunchWith(plugin_for(wanted, plugins)),)
    actions = (*_binds(library, theirs), *launch)
    return Finding(rule=rule, fit=fit, reason=reason, facts=facts, actions=actions)


def _mpich_fit(mine: MpiLibrary, its: MpiLibrary) -> tuple[Fit, str]:
    """The numbers of the file name: one major version is one ABI, minor versions add to it."""
    if mine.abi is None or its.abi is None:
        return Fit.UNKNOWN, "the ABI version of one of the MPI libraries is not known"
    names = f"{version_text(mine.abi)}, the host has {version_text(its.abi)}"
    if mine.abi[0] != its.abi[0]:
        return Fit.NO, f"the image needs the MPICH ABI {names}"
    if not at_least(its.abi, mine.abi[:2]):
        return Fit.YES, f"the image was built with the newer MPICH ABI {names}: symbols may be missing"
    return Fit.YES, ""


def _open_mpi_fit(mine: MpiLibrary, its: MpiLibrary) -> tuple[Fit, str]:
    """Programs of one series run with it and with the next; Fortran only where the compilers are the same."""
    if mine.version is None or its.version is None:
        return Fit.UNKNOWN, "the version of one of the Open MPI libraries is not known"
    names = f"Open MPI {version_text(mine.version)} of the image with {version_text(its.version)} of the host"
    if mine.version[0] == its.version[0]:
        older = not at_least(its.version, mine.version[:2])
        return Fit.YES, f"{names}: symbols may be missing" if older else ""
    if (mine.version[0], its.version[0]) == (4, 5):
        return Fit.YES, f"{names}: works for C; for Fortran only with the same compiler"
    certain = mine.version[0] > its.version[0] or mine.version[0] < 4
    return (Fit.NO if certain else Fit.UNKNOWN), f"{names} is no pair that works together"


_JUDGES: Mapping[MpiFamily, tuple[str, Callable[[MpiLibrary, MpiLibrary], tuple[Fit, str]]]] = {
    MpiFamily.MPICH_ABI: ("R9", _mpich_fit),
    MpiFamily.OPEN_MPI: ("R10", _open_mpi_fit),
    MpiFamily.STANDARD_ABI: ("R11", lambda mine, its: (Fit.YES, "")),
}


def _translated(library: MpiLibrary, theirs: HostMpi, translator: str) -> Finding:
    reason = f"the image is built for {library.family}, the host has {theirs.library.family}"
    fix = f"start it through {translator}, which the site offers"
    facts = ("image.mpi", "host.mpi", "host.translators")
    return Finding(rule="R11", fit=Fit.FIXABLE, reason=reason, fix=fix, facts=facts, cost_s=TRANSLATED_COST_S)


def _binds(library: MpiLibrary, theirs: HostMpi) -> tuple[Bind | LibraryPathFirst, ...]:
    """The library under the image's name for it, what it needs, and its plugins where they are."""
    names = {each.soname: each.path for each in theirs.libraries}
    names[library.soname or theirs.library.soname] = theirs.library.path
    files = (Bind(path, f"{BOUND_FOLDER}/{soname}") for soname, path in names.items())
    return (*files, *(Bind(folder, folder) for folder in theirs.folders), LibraryPathFirst(BOUND_FOLDER))


def libraries_load(theirs: HostMpi, needs: Needs, host: HostFacts) -> Finding:
    """R13: the host's libraries ask for no newer C and C++ libraries than the image has."""
    fit, reason = _loads(theirs, needs, host)
    fix = "use an image with a newer base" if fit is not Fit.YES else ""
    if fit is Fit.FIXABLE:
        fix = "the site's hook brings the host's C library along"
    return Finding(rule="R13", fit=fit, reason=reason, fix=fix, facts=("image.libc", "image.glibcxx", "host.mpi"))


def _loads(theirs: HostMpi, needs: Needs, host: HostFacts) -> tuple[Fit, str]:
    libc = needs.libc
    if libc is not None and libc.family is LibcFamily.MUSL:
        return Fit.NO, "the image has musl, and the host's MPI needs glibc"
    if libc is None or libc.version is None or theirs.needs_glibc is None:
        return Fit.UNKNOWN, "whether the host's MPI runs with the image's C library is not known"
    if theirs.needs_glibcxx is not None and needs.glibcxx is None:
        return Fit.UNKNOWN, "whether the host's MPI runs with the image's C++ library is not known"
    if theirs.needs_glibcxx and needs.glibcxx and not at_least(needs.glibcxx, theirs.needs_glibcxx):
        asked, has = version_text(theirs.needs_glibcxx), version_text(needs.glibcxx)
        return Fit.NO, f"the host's MPI needs GLIBCXX {asked}, the image has {has}"
    if at_least(libc.version, theirs.needs_glibc):
        return Fit.YES, ""
    reason = (
        f"the host's MPI needs glibc {version_text(theirs.needs_glibc)}, the image has {version_text(libc.version)}"
    )
    hook = False if needs.declared.inject_glibc is False else host.glibc_hook
    return {True: Fit.FIXABLE, False: Fit.NO, None: Fit.UNKNOWN}[hook], reason
