"""From a pod and its place to what a backend runs: pure. Secrets are put in only when the run is handed over."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import replace

from images.reference import RegistryReference, parse_reference
from scheduler.model.errors import SpecInvalid
from scheduler.model.ids import Marker
from scheduler.model.macros import JobIdentity, working_dir_of
from scheduler.model.pod_names import label_of
from scheduler.model.pods import SERVICE_USER, Pod, PodCredentials, PodMount, PodNet, VolumeKind
from scheduler.model.runs import (
    JobType,
    Mount,
    MountedText,
    Resources,
    RunSpec,
    Runtime,
    Share,
    StagedFile,
    StagePlan,
    Way,
)
from scheduler.model.systems import LogicalQueue, System
from scheduler.reconcile.runspec import absolute

LONG_S = 30 * 86_400
"""Walltime of an instance where nothing limits it."""

STDOUT, STDERR = "pod.out", "pod.err"


def pod_resources(pod: Pod, walltime_s: int) -> Resources:
    """What an instance asks of its place: whole cores, and the most memory it may take, since places kill beyond it."""
    asked = pod.definition.resources
    return Resources(
        cores_per_node=max(1, -(-asked.request_millicores // 1000)),
        memory_mib=asked.limit_memory_mib,
        walltime_s=walltime_s,
        gpus_per_node=asked.gpus,
    )


def pod_share(pod: Pod) -> Share:
    """What an instance asks of places that give out parts of cores: what the pod says, unchanged."""
    asked = pod.definition.resources
    return Share(
        request_millicores=asked.request_millicores,
        limit_millicores=asked.limit_millicores,
        request_memory_mib=asked.request_memory_mib,
        limit_memory_mib=asked.limit_memory_mib,
    )


def pod_run(
    pod: Pod,
    number: int,
    system: System,
    queue: LogicalQueue | None,
    login_user: str,
    *,
    walltime_s: int,
    files: Mapping[tuple[VolumeKind, str], str],
) -> RunSpec:
    """The run of one instance, placeholders of secrets still in it; paths are absolute on the system.

    files: the directory of each volume and snapshot that it mounts, by kind and name.
    """
    definition = pod.definition
    base = pod_dir(pod, system, login_user)
    folder = posixpath.join(base, str(number))
    command = definition.command
    return RunSpec(
        job_uuid=pod.uuid,
        name=pod.id,
        image=image_of(definition.image),
        runtime=runtime_on(system),
        use_entrypoint=command is None,
        args=(*(command or ()), *definition.arguments),
        env=dict(definition.environment),
        mounts=tuple(_mount(mount, n, folder, base, files) for n, mount in enumerate(definition.mounts)),
        job_type=JobType.FORK if queue is None else JobType.BATCH,
        resources=pod_resources(pod, walltime_s),
        share=pod_share(pod),
        partition=queue.partition if queue else None,
        scheduler_profile=system.scheduler_profile,
        exec_dir=folder,
        input_dir=folder,
        output_dir=folder,
        stdout=STDOUT,
        stderr=STDERR,
        plain_http_registry=_registry(definition.image) in system.berth_notes.get("plainHttpRegistries", ()),
        ports=definition.ports,
        ways=tuple(_way(pod, net) for net in definition.nets if net.is_outside),
    )


def _way(pod: Pod, net: PodNet) -> Way:
    return Way(net.port, label_of(pod.id, net.name) if net.is_plain_web else "", net.name)


def pod_dir(pod: Pod, system: System, login_user: str) -> str:
    """The directory on a system of all that instances of a pod keep there; absolute."""
    return posixpath.join(absolute(system, _below_root(pod, system, login_user)), "pods", pod.uuid)


def volume_dir(pod: Pod, system: System, login_user: str, uuid: str) -> str:
    """Where a volume gets to lie on a system, below its root: beside the pods of all with the same working directory.

    A volume of the same name that is made later has another uuid, and so files of its own.
    """
    return posixpath.join(_below_root(pod, system, login_user), "pod-volumes", pod.tenant, uuid)


def stage_pod(marker: Marker, pod: Pod, run: RunSpec, secrets: PodCredentials, number: int) -> StagePlan:
    """What must be there before ``run`` may be handed over: its directories, and small files that the pod asked for.

    By the run alone: what the pod is to be may have changed since the run was written down. SpecInvalid where an older
    version of Berth wrote it, which did not keep what stands in small files.
    """
    directories, files = [run.exec_dir], []
    for mount in run.mounts:
        if mount.claim:  # which is there
            continue
        if mount.text is None:
            if not mount.root:
                raise SpecInvalid.of("volume_mounts", f"what lies at {mount.target} is not known of this instance")
            directories.append(mount.source)
            continue
        directories.append(posixpath.dirname(mount.source))
        if not mount.text.once or number == 1:
            files.append(StagedFile(mount.source, filled(mount.text.content, pod, secrets).encode(), mount.text.mode))
    return StagePlan(marker=marker, directories=tuple(dict.fromkeys(directories)), files=tuple(files), image=run.image)


def with_secrets(run: RunSpec, pod: Pod, secrets: PodCredentials) -> RunSpec:
    """``run`` with every placeholder replaced, for handing over and never for keeping."""
    return replace(
        run,
        args=tuple(filled(arg, pod, secrets) for arg in run.args),
        env={key: filled(value, pod, secrets) for key, value in run.env.items()},
    )


def filled(text: str, pod: Pod, secrets: PodCredentials) -> str:
    """``text`` with the placeholders of the pod's own names and secrets replaced."""
    for placeholder, value in placeholders(pod, secrets).items():
        text = text.replace(placeholder, value)
    return text


def placeholders(pod: Pod, secrets: PodCredentials) -> Mapping[str, str]:
    """What templates may leave to be filled in."""
    return {
        "<<TAPIS_user_username>>": pod.id,
        "<<TAPIS_user_password>>": secrets.user_password,
        "<<TAPIS_podsservice_username>>": SERVICE_USER,
        "<<TAPIS_podsservice_password>>": secrets.service_password,
    }


def image_of(name: str) -> str:
    """The image as runtimes read it: a bare name lies in a registry. What does is read as by who allowed the image,
    since runtimes know transports (``dir:``, ``docker-daemon:``) that would be names of a registry there."""
    is_bare = "://" not in name and isinstance(parse_reference(name), RegistryReference)
    return f"docker://{name}" if is_bare else name


def runtime_on(system: System) -> Runtime:
    """What runs pods there: Apptainer unless the system says that it has only Docker."""
    offered = {each.runtime for each in system.runtimes}
    return Runtime.DOCKER if Runtime.DOCKER in offered and Runtime.SINGULARITY not in offered else Runtime.SINGULARITY


def _mount(mount: PodMount, n: int, folder: str, base: str, files: Mapping[tuple[VolumeKind, str], str]) -> Mount:
    if mount.content is not None:
        kept = base if mount.content_once else folder
        source = posixpath.join(kept, "files", str(n), mount.content_name or posixpath.basename(mount.target))
        text = MountedText(content=mount.content, mode=int(mount.content_mode, 8), once=mount.content_once)
        return Mount(source=source, target=_file_target(mount), read_only=mount.read_only, text=text)
    match mount.kind:
        case VolumeKind.EPHEMERAL:
            source = posixpath.join(folder, "ephemeral", str(n))
        case VolumeKind.PVC:
            path = mount.sub_path.strip("/")
            return Mount(source=path, target=mount.target, read_only=mount.read_only, claim=mount.source)
        case VolumeKind.SNAPSHOT | VolumeKind.VOLUME:
            source = files[mount.kind, mount.source]
    return Mount(
        source=posixpath.join(source, mount.sub_path.strip("/")).rstrip("/"),
        target=mount.target,
        read_only=mount.read_only or mount.kind is VolumeKind.SNAPSHOT,
        root=source,
        is_kept=mount.kind is VolumeKind.SNAPSHOT,
    )


def _file_target(mount: PodMount) -> str:
    """A small file lies at the path itself, or under its name in the directory that the path is."""
    return posixpath.join(mount.target, mount.content_name) if mount.content_name else mount.target


def _below_root(pod: Pod, system: System, login_user: str) -> str:
    """The working directory, relative to the system's root."""
    identity = JobIdentity(
        uuid=pod.uuid, tenant=pod.tenant, owner=pod.owner, created_at=pod.created_at, login_user=login_user
    )
    return working_dir_of(system, identity)


def _registry(image: str) -> str:
    head, slash, _ = image.split("://")[-1].partition("/")
    return head if slash and ("." in head or ":" in head or head == "localhost") else ""
