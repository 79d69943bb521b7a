"""What the lines of every runtime are made of: words of a shell, mounts, and what stands before the command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from backends import image_actions
from backends.pods import launch as pod_launch
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Mount, RunSpec, Runtime


class Claim(StrEnum):
    """Who owns a marker: a Slurm job (its id survives a requeue) or a process of a FORK host."""

    SLURM = "slurm"
    FORK = "fork"


RUN = """\
(
    set -- {positional}
    . "$env_file"
    exec {command}
) </dev/null
"""
"""A subshell, so that the user's variables (PATH, IFS, ...) reach what is started and not the lines after it."""

TRANSPORT = re.compile(r"[a-z][a-z0-9+.-]*://|(oci|oci-archive|docker-archive|docker-daemon|dir):")

quote: Callable[[str], str] = shlex.quote


def quoted(words: Iterable[str]) -> list[str]:
    """Each word as a literal of the shell."""
    return [quote(word) for word in words]


def image_of(run: RunSpec) -> str:
    """The reference with its transport: Docker's bare ``busybox`` is ``docker://busybox`` to everyone else."""
    bare = TRANSPORT.match(run.image) is None and not run.image.startswith(("/", "."))
    return f"docker://{run.image}" if bare and run.runtime is Runtime.DOCKER else run.image


def mounts_of(run: RunSpec) -> tuple[Mount, ...]:
    """What a container sees of the system: the directories of its run, and what was asked for."""
    if run.ports:
        return (*pod_launch.own_mounts(run), *run.mounts)
    return (
        Mount(source=run.exec_dir, target="/TapisExec"),
        Mount(source=run.input_dir, target="/TapisInput"),
        Mount(source=run.output_dir, target="/TapisOutput"),
        *run.mounts,
    )


def csv(mount: Mount, source: str, target: str) -> str:
    """A mount as one CSV record (RFC 4180), as Apptainer, Podman and Docker read it."""
    fields = ["type=bind", f"{source}={mount.source}", f"{target}={mount.target}", *(["ro"] if mount.read_only else [])]
    return ",".join('"' + text.replace('"', '""') + '"' if re.search(r'[,"\n]', text) else text for text in fields)


def options(args: Sequence[str]) -> Iterable[str]:
    """Container arguments as words: ``--bind /a:/b`` is an option and its value, as Tapis reads it."""
    for arg in args:
        option = re.fullmatch(r"(--?[\w-]+)\s+(\S.*)", arg, re.DOTALL)
        yield from option.groups() if option else (arg,)


def prefix_of(run: RunSpec, claim: Claim) -> list[str]:
    """What stands before the runtime: a pod's door, the site's prefix or MPI command, or ``srun`` on every node."""
    door = [pod_launch.WORDS] if run.ports else []
    said = ("mpiCmd", run.mpi_cmd) if run.is_mpi and run.mpi_cmd else ("cmdPrefix", run.cmd_prefix)
    if said[1]:
        try:
            return door + quoted(shlex.split(said[1]))
        except ValueError as error:
            raise SpecInvalid.of(said[0], f"cannot be read as words: {error}", "close every quote") from None
    if not run.is_mpi and run.resources.nodes == 1:
        return door
    if claim is not Claim.SLURM:
        raise SpecInvalid.of("mpiCmd", "is needed for an MPI job outside a batch system", "for example 'mpirun -n 4'")
    nodes, cores = run.resources.nodes, run.resources.cores_per_node
    per_node, each = (cores, 1) if run.is_mpi else (1, cores)
    launch = image_actions.launch(run.image_actions, nodes, per_node) if run.is_mpi else None
    if launch is not None:
        return quoted(launch)
    return [
        f"srun --nodes={nodes} --ntasks={nodes * per_node} --ntasks-per-node={per_node} --cpus-per-task={each}",
        "--kill-on-bad-exit=1",
    ]
