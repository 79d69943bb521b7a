"""What must be done so that an image runs on nodes of one class: data that the run line is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bind:
    """Show a file or folder of the host inside the container, read-only."""

    host_path: str
    container_path: str


@dataclass(frozen=True, slots=True)
class LibraryPathFirst:
    """Search this folder of the container for libraries before any other; then where the image's own variable says."""

    folder: str
    then: str = ""


@dataclass(frozen=True, slots=True)
class RuntimeEnv:
    """Set a variable in the environment in which the container runtime is started, where its hooks read it."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class LaunchWith:
    """Start the processes with ``srun --mpi=PLUGIN``, or, without a plugin, with the host's own ``mpirun``."""

    plugin: str | None


@dataclass(frozen=True, slots=True)
class ConvertTo:
    """Bring the image in this form: ``sif`` or ``squashfs``, and the compressor; None: as it is by default."""

    form: str | None = None
    compressor: str | None = None


@dataclass(frozen=True, slots=True)
class Unpack:
    """Run from an unpacked tree in this job's own scratch, since nothing can mount a file there."""

    mounts_nothing: bool = True


@dataclass(frozen=True, slots=True)
class WritableRoot:
    """Lay a writable layer in memory over the image."""

    in_memory: bool = True


Action = Bind | LibraryPathFirst | RuntimeEnv | LaunchWith | ConvertTo | Unpack | WritableRoot
