"""Images of jobs by name: which of them Berth reads, how a runtime reads what they meant, and who keeps them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from images.policy import ImagePolicy
from images.reference import (
    LibraryReference,
    PushedReference,
    Reference,
    RegistryReference,
    UrlReference,
    parse_reference,
)
from images.sources import Resolved
from scheduler.judge import policy_there
from scheduler.model.errors import SpecInvalid
from scheduler.model.jobs import Job, JobSpec
from scheduler.model.runs import Runtime
from scheduler.model.systems import System


def is_readable(job: Job) -> bool:
    """Whether the job's image was not resolved yet, and is of a kind that Berth reads for jobs."""
    return job.image is None and job.spec.runtime is not Runtime.NONE and readable(job.spec) is not None


def readable(spec: JobSpec) -> Reference | None:
    """The image's name as Berth reads it for jobs; None for what lies on a system, or only its runtime understands.

    A name without a transport is a file to Apptainer, and an image of a registry to Docker.
    """
    if spec.runtime is not Runtime.DOCKER and "://" not in spec.image:
        return None
    try:
        reference = parse_reference(spec.image)
    except SpecInvalid:
        return None
    if isinstance(reference, UrlReference):
        return reference if reference.digest else None
    return reference if isinstance(reference, RegistryReference | LibraryReference | PushedReference) else None


def kept_by(systems: Iterable[System]) -> Mapping[str, ImagePolicy]:
    """What is said of images on those systems that keep them, by id."""
    found = ((system.id, policy_there(system)) for system in systems)
    return {system_id: policy for system_id, policy in found if policy is not None}


def as_runtimes_read(resolved: Resolved[Any]) -> str:
    """The pinned reference; runtimes read a tag or a digest, and not both."""
    reference = resolved.reference
    if isinstance(reference, RegistryReference):
        return str(replace(reference, tag="", digest=resolved.manifest_digest))
    return str(reference)
