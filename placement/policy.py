"""What a system's owner says of it in ``notes.berth``: prices, network, room for files, images that may run.

Notes are free text of people: what is no sensible value counts as not said, and what is not said never rejects.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from scheduler.model.images import PUSHED
from scheduler.model.jobs import JobSpec
from scheduler.model.systems import System

SENSIBLE = (1e-6, 1e6)
"""Prices and factors outside are taken for slips of the pen."""


class Tariff(NamedTuple):
    """What an hour of a core and of a GPU costs, and what a busy core draws; None where that is not said."""

    usd_per_core_hour: float | None
    usd_per_gpu_hour: float | None
    watts_per_core: float | None


def tariff(system: System) -> Tariff:
    """As its owner says, as far as that is sensible."""
    return Tariff(*(_sensible(system, name) for name in ("pricePerCoreHour", "pricePerGpuHour", "wattsPerCore")))


def price_usd(spec: JobSpec, said: Tariff) -> float | None:
    """What the job costs there at most, all tasks for all of their walltime; None where no price is said."""
    per_core, per_gpu, asked = said.usd_per_core_hour, said.usd_per_gpu_hour, spec.resources
    gpus = asked.nodes * asked.gpus_per_node
    if per_core is None and (per_gpu is None or not gpus):
        return None
    tasks = max(1, len(spec.array.indices)) if spec.array else 1
    return ((per_core or 0.0) * asked.cores + (per_gpu or 0.0) * gpus) * asked.walltime_s / 3600 * tasks


def outbound_network(system: System) -> bool | None:
    """Whether jobs reach the internet from where they run; None when not said."""
    said = system.berth_notes.get("outboundNetwork")
    return said if isinstance(said, bool) else None


def storage_mib(system: System) -> int | None:
    """Room for one user's files where jobs run: the quota that is said, else the size of the file system probed."""
    said = system.berth_notes.get("storageQuotaMB")
    if isinstance(said, int) and not isinstance(said, bool) and said > 0:
        return said
    working_dir = system.job_working_dir or ""
    path = working_dir if working_dir.startswith("/") else f"{system.root_dir.rstrip('/')}/{working_dir}"
    around = [one for one in _file_systems(system) if _is_below(path, one["mount"])]
    return max(around, key=lambda one: len(one["mount"]))["sizeMiB"] if around else None


def image_allowed(image: str, system: System) -> bool:
    """Whether the owner lets this image run there; ``allowedImages`` are patterns as of file names."""
    patterns = allowed_images(system)
    return not patterns or any(fnmatchcase(image, pattern) for pattern in patterns)


def is_pushed(image: str) -> bool:
    """Whether an image is a file that its owner gave to Berth, so that no runtime can fetch it."""
    return image.startswith(PUSHED)


def keeps_images(system: System) -> bool:
    """Whether Berth brings images there; ``images`` are the owner's words on that."""
    return isinstance(system.berth_notes.get("images"), Mapping)


def allowed_images(system: System) -> tuple[str, ...]:
    """Patterns of the images that may run there; empty when all may."""
    said = system.berth_notes.get("allowedImages")
    return tuple(each for each in said if isinstance(each, str)) if isinstance(said, list | tuple) else ()


def _sensible(system: System, name: str) -> float | None:
    value = system.berth_notes.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and SENSIBLE[0] < value < SENSIBLE[1]:
        return float(value)
    return None


def _file_systems(system: System) -> list[Mapping[str, Any]]:
    facts = system.berth_notes.get("facts")
    listed = facts.get("fileSystems") if isinstance(facts, Mapping) else None
    return [
        one
        for one in (listed if isinstance(listed, list | tuple) else ())
        if isinstance(one, Mapping) and isinstance(one.get("mount"), str) and _is_size(one.get("sizeMiB"))
    ]


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_below(path: str, mount: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")
