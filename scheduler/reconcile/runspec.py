"""From a placed job to what a backend runs: pure, and frozen with the attempt before the first remote call."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from urllib.parse import urlsplit

from scheduler.judge import policy_there
from scheduler.model.actions import Action
from scheduler.model.apps import ANONYMOUS_APP_ID, FileInput
from scheduler.model.ids import Marker
from scheduler.model.jobs import Job, Place
from scheduler.model.macros import JobIdentity, environment_of, relative_path
from scheduler.model.plan import Estimate
from scheduler.model.runs import Mount, RunSpec, Runtime, StagePlan
from scheduler.model.systems import System

CONTAINER_EXEC_DIR = "/TapisExec"
CONTAINER_INPUT_DIR = "/TapisInput"
CONTAINER_OUTPUT_DIR = "/TapisOutput"
LOCAL_SCHEME = "tapislocal"


def identity_of(job: Job, login_user: str | None) -> JobIdentity:
    """What macros need to know of a job."""
    return JobIdentity(
        uuid=job.uuid, tenant=job.tenant, owner=job.owner, created_at=job.created_at, login_user=login_user
    )


def run_spec(job: Job, place: Place, system: System, login_user: str, chosen: Estimate | None = None) -> RunSpec:
    """Everything that a backend needs to run ``job`` at ``place``; paths are absolute on the system.

    chosen: what was expected there; of the winner of the job's decision when None.
    """
    spec = job.spec
    queue = system.queue(place.queue) if place.queue else None
    input_dir = absolute(system, place.input_dir)
    env = environment_of(spec, system, queue, identity_of(job, login_user))
    env |= {one.env_key: _seen_by_job(one, spec.runtime, input_dir) for one in spec.file_inputs if one.env_key}
    return RunSpec(
        job_uuid=job.uuid,
        name=spec.name,
        image=spec.image if job.image is None else job.image.reference,
        runtime=spec.runtime,
        use_entrypoint=spec.use_entrypoint,
        args=spec.args,
        container_args=spec.container_args,
        env=env,
        mounts=_local_mounts(spec.file_inputs, system),
        job_type=place.job_type,
        resources=spec.resources,
        partition=place.partition,
        scheduler_options=spec.scheduler_options,
        scheduler_profile=spec.scheduler_profile or system.scheduler_profile,
        array=spec.array,
        exec_dir=absolute(system, place.exec_dir),
        input_dir=input_dir,
        output_dir=absolute(system, place.output_dir),
        # A bare image knows nothing of Tapis: what it writes where it stands is its output.
        container_dir=CONTAINER_OUTPUT_DIR if spec.app_id == ANONYMOUS_APP_ID else CONTAINER_EXEC_DIR,
        stdout=spec.stdout,
        stderr=spec.stderr,
        is_mpi=spec.is_mpi,
        mpi_cmd=spec.mpi_cmd or system.mpi_cmd,
        cmd_prefix=spec.cmd_prefix,
        plain_http_registry=registry_of(spec.image) in system.berth_notes.get("plainHttpRegistries", ()),
        image_wait_s=_image_wait_s(job, system),
        image_is_private=job.image is not None and job.image.is_private,
        image_actions=_image_actions(job, place, chosen),
    )


def awaited_image(job: Job, run: RunSpec) -> str | None:
    """Manifest digest of the image that Berth brings to this run; None where its runtime fetches it."""
    return job.image.manifest_digest if job.image is not None and run.image_wait_s else None


def stage_plan(marker: Marker, run: RunSpec) -> StagePlan:
    """What must be there before ``run`` may be submitted."""
    directories = tuple(dict.fromkeys((run.exec_dir, run.input_dir, run.output_dir)))
    return StagePlan(marker=marker, directories=directories, image=run.image)


def absolute(system: System, path: str) -> str:
    """A path below the system's root directory as the system itself names it."""
    return posixpath.join(system.root_dir, relative_path(path)).rstrip("/") or "/"


def target_of(one: FileInput) -> str:
    """Where an input goes, relative to the input directory: as asked, else the last part of its URL."""
    if one.target_path and one.target_path != "*":
        return relative_path(one.target_path)
    return relative_path(posixpath.basename(urlsplit(one.source_url or "").path.rstrip("/")))


def is_local(one: FileInput) -> bool:
    """Whether an input lies on the execution system already."""
    return urlsplit(one.source_url or "").scheme == LOCAL_SCHEME


def registry_of(image: str) -> str:
    """``host[:port]`` of an image reference; empty when the reference names none."""
    head, slash, _ = image.partition("://")[2].partition("/") if "://" in image else image.partition("/")
    return head if slash and ("." in head or ":" in head or head == "localhost") else ""


def _image_wait_s(job: Job, system: System) -> int:
    """Only what Apptainer runs is brought as a file."""
    policy = policy_there(system) if job.image is not None and job.spec.runtime is Runtime.SINGULARITY else None
    return 0 if policy is None else policy.wait_s


def _image_actions(job: Job, place: Place, chosen: Estimate | None) -> tuple[Action, ...]:
    """What was found to be needed where the job goes; verdicts speak of Apptainer."""
    chosen = chosen or (job.decision.winner if job.decision else None)
    if chosen is None or job.spec.runtime is not Runtime.SINGULARITY:
        return ()
    return chosen.image_actions if (chosen.system_id, chosen.queue) == (place.system_id, place.queue) else ()


def _local_mounts(inputs: Sequence[FileInput], system: System) -> tuple[Mount, ...]:
    return tuple(
        Mount(
            source=absolute(system, urlsplit(one.source_url or "").path),
            target=_container_path(one),
            read_only=True,
        )
        for one in inputs
        if is_local(one) and one.auto_mount_local
    )


def _container_path(one: FileInput) -> str:
    if one.target_path and one.target_path.startswith("/") and is_local(one):
        return "/" + relative_path(one.target_path)
    return f"{CONTAINER_INPUT_DIR}/{target_of(one)}"


def _seen_by_job(one: FileInput, runtime: Runtime, input_dir: str) -> str:
    return posixpath.join(input_dir, target_of(one)) if runtime is Runtime.NONE else _container_path(one)
