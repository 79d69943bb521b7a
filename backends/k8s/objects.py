"""From a RunSpec to the objects that run it: a Job named like the marker, and what it needs. Pure.

The Job's name is what makes a run happen at most once: no second object can have it. A *void* Job, which starts
nothing, takes the name for ever when it is proven that the run is not there.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from backends.k8s.site import Site
from scheduler.model.errors import SpecInvalid
from scheduler.model.ids import Marker, checked_marker
from scheduler.model.runs import Mount, RunSpec, Runtime, Way

Object = dict[str, Any]

PREFIX = "berth.hpc/"
MANAGED = {"app.kubernetes.io/managed-by": "berth"}
"""What all objects of Berth's are found by."""
MARKER, VOID = PREFIX + "marker", PREFIX + "void"
KEPT = PREFIX + "kept"
"""Finalizer of Jobs and their pods: none of them vanishes before Berth lets it go, so that absence means something."""
STDOUT, STDERR = PREFIX + "stdout", PREFIX + "stderr"
"""Annotations of a Job: the paths under which the log of its container is asked for."""
WAYS = PREFIX + "ways"
"""Annotation of a pod: its ports that clients from outside may reach, with the host names that all may ask them by."""
TOLD = PREFIX + "told-at"
"""Annotation of a Job: when its end was first told to whoever asked."""

MAIN = "main"
"""The container in which the user's code runs."""

INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
TASK_VARIABLE = "SLURM_ARRAY_TASK_ID"
NO_RIGHTS = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
GRACE_S = 10
"""How long a run that is cancelled has to end by itself."""

MULTI_NODE_SINCE, ARRAYS_SINCE = (1, 22), (1, 29)
"""Versions that number the pods of a Job; and that end a task that failed without the others, nor try it again."""

LOW_PORTS_SINCE, FIRST_FREE_PORT = (1, 22), 1024
"""Nodes that let a user listen on ports below the first that is free to all, where a pod asks for that."""


def job(marker: Marker, run: RunSpec, site: Site, root_dir: str, *, opens_low_ports: bool = False) -> Object:
    """The Job of a run, an Indexed one where it has several pods. SpecInvalid, naming the field, for what it cannot be.

    opens_low_ports: the pod asks that its user may listen below 1024, which nodes before LOW_PORTS_SINCE refuse.
    """
    _check(run)
    nodes, tasks = run.resources.nodes, len(run.array.indices) if run.array else 0
    count = tasks or nodes
    spec: Object = {
        "backoffLimit": 0,
        "parallelism": min(run.array.limit or count, count) if run.array else count,
        "completions": count,
        "podReplacementPolicy": "Failed",
        "template": {"metadata": _template(marker), "spec": _pod(marker, run, site, root_dir)},
    }
    if count > 1 or tasks:
        spec["completionMode"] = "Indexed"
    if tasks:
        del spec["backoffLimit"]
        spec |= {"backoffLimitPerIndex": 0, "maxFailedIndexes": tasks}
    if opens_low_ports:
        free = {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
        spec["template"]["spec"]["securityContext"]["sysctls"] = [free]
    if run.ways:
        spec["template"]["metadata"]["annotations"] = {WAYS: json.dumps(_ways(run.ways))}
    about = _about(marker, kept=True)
    out = posixpath.join(run.output_dir, run.stdout)
    about["annotations"] = {STDOUT: out, STDERR: posixpath.join(run.output_dir, run.stderr)}
    spec["template"]["metadata"].setdefault("annotations", {}).update(about["annotations"])
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}
    return made if site.queue is None else queued_by(site.queue, made)


def queued_by(queue: str, job: Object) -> Object:
    """The same Job, which a LocalQueue of Kueue lets start."""
    about = {**job["metadata"], "labels": {**job["metadata"]["labels"], "kueue.x-k8s.io/queue-name": queue}}
    return {**job, "metadata": about, "spec": {**job["spec"], "suspend": True}}


def void_job(marker: Marker) -> Object:
    """What takes the name of a run that is not there: a Job that never starts a pod."""
    about = _about(marker, kept=True)
    about["labels"][VOID] = "true"
    container = {"name": MAIN, "image": "void.invalid/void"}
    template = {"metadata": _template(marker), "spec": {"restartPolicy": "Never", "containers": [container]}}
    spec = {"parallelism": 0, "completions": 1, "backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}


def is_void(found: Object) -> bool:
    return VOID in found["metadata"].get("labels", {})


def is_ours(found: Object, marker: Marker) -> bool:
    """Whether an object under a marker's name was made by Berth for it."""
    return bool(found["metadata"].get("labels", {}).get(MARKER) == marker)


def environment(marker: Marker, run: RunSpec) -> Object | None:
    """The Secret that carries the run's variables; None when it has none."""
    if not run.env:
        return None
    for key, value in run.env.items():
        if _ENV_KEY.fullmatch(key) is None:
            raise SpecInvalid.of(f"envVariables.{key[:80]}", "is not a variable name", "use letters, digits and _")
        if "\0" in value:
            raise SpecInvalid.of(f"envVariables.{key}", "holds a NUL character", "remove it")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _about(marker),
        "immutable": True,
        "stringData": dict(run.env),
    }


def bare_pod(site: Site, main: Object, volumes: Sequence[Object]) -> Object:
    """A pod of one container as the site lets Berth run it: as a user without rights, on the nodes that it names."""
    pod: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security(site),
        "containers": [{**main, "securityContext": NO_RIGHTS}],
        "volumes": list(volumes),
    }
    if site.node_selector:
        pod["nodeSelector"] = dict(site.node_selector)
    if site.service_account is not None:
        pod["serviceAccountName"] = site.service_account
    if site.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in site.pull_secrets]
    return pod


def literal(word: str) -> str:
    """A word of which Kubernetes expands nothing: it reads ``$(NAME)`` as a variable, and ``$$`` as ``$``."""
    return word.replace("$", "$$")


def image_of(run: RunSpec) -> str:
    """The image as the kubelet's runtime reads it."""
    scheme, mark, rest = run.image.partition("://")
    image = rest if mark and scheme == "docker" else run.image
    if run.runtime is Runtime.NONE or (mark and scheme != "docker") or _IMAGE.fullmatch(image) is None:
        raise SpecInvalid.of(
            "image", f"'{run.image[:80]}' is no image that Kubernetes runs", "write for example docker://busybox"
        )
    return image


# -- pieces ------------------------------------------------------------------------------------------------------------

_ENV_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,1000}")


def _about(marker: Marker, *, kept: bool = False) -> Object:
    about: Object = {"name": checked_marker(marker), "labels": {**MANAGED, MARKER: marker}}
    return {**about, "finalizers": [KEPT]} if kept else about


def _template(marker: Marker) -> Object:
    """What the pods of a Job are called by; their names are the cluster's."""
    about = _about(marker, kept=True)
    del about["name"]
    return about


def _check(run: RunSpec) -> None:
    for name, text in (*(("appArgs", arg) for arg in run.args), ("execSystemOutputDir", run.output_dir)):
        if "\0" in text:
            raise SpecInvalid.of(name, "holds a NUL character", "remove it")
    if not run.args and not run.use_entrypoint:
        raise SpecInvalid.of("appArgs", "say no command to run", "give the command as the first app argument")
    refused = (
        (run.is_mpi or run.mpi_cmd, "isMpi", "has no launcher on Kubernetes", "choose a batch system"),
        (run.cmd_prefix, "cmdPrefix", "has no place on Kubernetes", "put it into the image"),
        (run.container_args, "containerArgs", "are options of other runtimes", "leave them out"),
        (run.scheduler_options, "schedulerOptions", "are options of Slurm", "leave them out"),
        (run.gate_s, "notes.berth.hedge", "copies of a job cannot wait on Kubernetes", "leave it out"),
        (run.array and run.resources.nodes > 1, "nodeCount", "of an array's tasks is more than 1", "ask for 1"),
    )
    for asked, name, wrong, fix in refused:
        if asked:
            raise SpecInvalid.of(name, wrong, fix)


def _pod(marker: Marker, run: RunSpec, site: Site, root_dir: str) -> Object:
    volumes, mounts = _volumes(run, site, root_dir)
    main: Object = {
        "name": MAIN,
        "image": image_of(run),
        "imagePullPolicy": "IfNotPresent",
        "workingDir": run.container_dir,
        "resources": _resources(run, site),
        "volumeMounts": mounts,
    }
    if run.args:
        main["args" if run.use_entrypoint else "command"] = [literal(arg) for arg in run.args]
    if run.env:
        main["envFrom"] = [{"secretRef": {"name": marker}}]
    if run.array is not None:
        path = f"metadata.annotations['{INDEX_ANNOTATION}']"
        main["env"] = [{"name": TASK_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}}]
    if run.ports:
        main["ports"] = [{"containerPort": port} for port in run.ports]
    pod = bare_pod(site, main, volumes)
    pod["terminationGracePeriodSeconds"] = GRACE_S
    pod["activeDeadlineSeconds"] = max(1, run.resources.walltime_s)
    if selector := _selector(run, site):
        pod["nodeSelector"] = selector
    if run.resources.nodes > 1:
        pod["affinity"] = _apart(marker)
    return pod


def _security(site: Site) -> Object:
    ids: Object = {"runAsUser": site.run_as, "runAsGroup": site.run_as, "fsGroup": site.run_as, "runAsNonRoot": True}
    return {**ids, "seccompProfile": {"type": "RuntimeDefault"}}


def _ways(ways: Sequence[Way]) -> Mapping[int, list[str]]:
    ports = dict.fromkeys(way.port for way in ways)
    return {port: [way.web_name for way in ways if way.port == port and way.web_name] for port in ports}


def _resources(run: RunSpec, site: Site) -> Object:
    """A job is limited to what it asks, as on a batch system; an instance of a pod has a request and a limit."""
    if share := run.share:
        requests = {"cpu": f"{share.request_millicores}m", "memory": f"{share.request_memory_mib}Mi"}
        limits = {"cpu": f"{share.limit_millicores}m", "memory": f"{share.limit_memory_mib}Mi"}
    else:
        requests = {"cpu": str(run.resources.cores_per_node), "memory": f"{run.resources.memory_mib}Mi"}
        limits = dict(requests)
    if run.resources.gpus_per_node:  # requests of what is counted are its limits
        limits[site.gpu_resource] = str(run.resources.gpus_per_node)
        requests[site.gpu_resource] = limits[site.gpu_resource]
    return {"requests": requests, "limits": limits}


def _selector(run: RunSpec, site: Site) -> Mapping[str, str]:
    model = {site.gpu_model_label: run.resources.gpu_model} if run.resources.gpu_model else {}
    return {**site.node_selector, **model}


def _apart(marker: Marker) -> Object:
    """Each pod of the run on a node of its own."""
    term = {"labelSelector": {"matchLabels": {MARKER: marker}}, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _volumes(run: RunSpec, site: Site, root_dir: str) -> tuple[list[Object], list[Object]]:
    """The run's directories: on the site's volume, else in the pod alone."""
    own = (
        Mount(source=run.exec_dir, target="/TapisExec"),
        Mount(source=run.input_dir, target="/TapisInput"),
        Mount(source=run.output_dir, target="/TapisOutput"),
    )
    shared = [one for one in run.mounts if not one.claim]
    mounts: list[Object]
    if site.volume is None:
        if shared:
            raise SpecInvalid.of("mounts", "need a volume, and the system has none", "set notes.berth.k8s.volume")
        mounts = [{"name": "work", "mountPath": one.target, "subPath": one.target[1:]} for one in own]
        work: Object = {"name": "work", "emptyDir": {}}
    else:
        mounts = [_shared_mount(one, root_dir) for one in (*own, *shared)]
        work = _claim("work", site.volume)
    claims = {one.claim: f"claim-{n}" for n, one in enumerate(run.mounts) if one.claim}
    mounts += [
        {"name": claims[one.claim], "mountPath": one.target, "subPath": one.source, "readOnly": one.read_only}
        for one in run.mounts
        if one.claim
    ]
    return [work, *(_claim(name, claim) for claim, name in claims.items())], mounts


def _shared_mount(one: Mount, root_dir: str) -> Object:
    """A directory of the site's volume, which the cluster lets no link lead out of; but it is everybody's."""
    if one.root and not one.is_kept and one.source != one.root:
        wrong = "a part of a volume cannot be had here: a link that a pod left in it could lead to files of others"
        raise SpecInvalid.of("volume_mounts.sub_path", wrong, "mount the whole volume, or choose another system")
    return {
        "name": "work",
        "mountPath": one.target,
        "subPath": below(root_dir, one.source),
        "readOnly": one.read_only,
    }


def _claim(name: str, claim: str) -> Object:
    return {"name": name, "persistentVolumeClaim": {"claimName": claim}}


def below(root_dir: str, path: str) -> str:
    """A path of the system as one of its volume, whose top is the system's root directory."""
    relative = posixpath.relpath(posixpath.normpath(path), root_dir)
    if relative == "." or relative.split("/")[0] == "..":
        raise SpecInvalid.of("mounts", f"'{path[:200]}' is not below {root_dir}", "name a directory of the volume")
    return relative
