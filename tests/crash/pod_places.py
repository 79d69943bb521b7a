"""The three kinds of place of a campaign on pods: what can be struck there, and what may not be left there."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from backends.k8s.objects import TOLD, is_void
from backends.k8s.volume import FILES
from testbed import Cluster
from testbed.host_image import local_system
from testbed.k8s.client import client
from testbed.k8s.control_plane import ControlPlane
from testbed.k8s.node import Node
from tests.crash.pod_life import MARK
from tests.end_to_end import pod_images
from tests.end_to_end.kubernetes_place import CLAIM, SYSTEM, kubernetes_place
from tests.end_to_end.wire import Wire
from tests.fakes.layout_registry import layout_registry

Strike = Callable[[random.Random], bool]
"""Whether there was anything to hit."""


@dataclass(frozen=True)
class Place:
    """A system that keeps pods. strikes: each leaves the place whole. left: what is there of pods, in words.

    rest_s: between two strikes, at least and at most, so that what keeps the place finds time for its own work.
    state: how the place is at the moment, in words. An outage is over, for ``left`` and after a strike, when what was
    struck answers again.
    """

    system: str
    image: str
    register: Callable[[Wire], None]
    strikes: Mapping[str, Strike]
    left: Callable[[], Sequence[str]]
    settings: Mapping[str, str] = field(default_factory=dict)
    rest_s: tuple[float, float] = (5.0, 15.0)
    state: Callable[[], str] = str


# -- this machine ------------------------------------------------------------------------------------------------------


@contextmanager
def this_machine(home: Path, mark: str) -> Iterator[Place]:
    """One process of a pod is killed, whichever: its script, its door, its sandbox or its server."""
    home.chmod(0o755)  # the account that runs pods reads images below it
    work = home / "work"
    definition = local_system("here", work)
    definition["notes"]["berth"]["pods"] = True

    def kill(chance: random.Random) -> bool:
        return killed(sorted(processes(mark) | processes(str(work))), chance)

    def left() -> Sequence[str]:
        alive = processes(mark) | processes(str(work))
        folders = [path.name for path in (work / "berth/pods").glob("*")]
        return [*_processes(alive), *(f"directory {name}" for name in folders)]

    with layout_registry({"library/web": pod_images.web(home / "web")}) as mirror:
        settings = {
            "images_dir": str(home / "images"),
            "registry_mirrors": json.dumps({"docker.io": [mirror]}),
            "plain_http_registries": mirror,
        }
        yield Place(
            "here",
            "web",
            lambda wire: wire.post("/v3/systems", definition) and None,
            {"instance SIGKILL": kill},
            left,
            settings,
        )


# -- an allocation of Slurm --------------------------------------------------------------------------------------------

_FOLDERS = "find /home/alice /shared /scratch -mindepth 1 -type d -path '*/pods/*-007' -prune 2>/dev/null; true"
_STATE = """
sinfo --noheader --Node --format='%N %T %E'
squeue --noheader --format='%i %j %T %N %M %r'
for marker in $(squeue --noheader --format=%j | grep ^berth-); do
    find / -xdev -path "*/markers/$marker/*" -printf '%p %TT\\n' 2>/dev/null | tail -n 12
done
"""
_RESUME = """
for node in $(sinfo --noheader --Node --states=down,drain,fail --format=%n | sort -u); do
    scontrol update nodename="$node" state=resume
done
"""


@contextmanager
def an_allocation(cluster: Cluster, home: Path, mark: str) -> Iterator[Place]:
    """Jobs are cancelled by the site, nodes lose their power, and the controller dies."""
    image = cluster.push_image(pod_images.web(home / "web"), "library/web:1") and "login:5000/library/web:1"

    def jobs() -> list[str]:
        listed = cluster.sh("login", "squeue --noheader --format='%i %j'", check=False).splitlines()
        return [line.split()[0] for line in listed if line.split()[1].startswith("berth-")]

    def cancel(chance: random.Random) -> bool:
        running = jobs()
        if running:
            cluster.sh("login", f"scancel {chance.choice(running)}", check=False)
        return bool(running)

    def crash(chance: random.Random) -> bool:
        node = chance.choice([name for name in cluster.machines if name != "login"])
        cluster.crash(node)
        time.sleep(chance.choice((0.0, 15.0, 60.0)))
        cluster.boot(node)
        cluster.sh("login", _RESUME, check=False)
        return True

    def kill_controller(chance: random.Random) -> bool:
        cluster.kill("login", "slurmctld")
        time.sleep(chance.uniform(0.0, 5.0))
        cluster.start("login", "slurmctld")
        cluster.sh("login", _RESUME, check=False)
        return True

    def state() -> str:
        """Of nodes and jobs, and what lies in the marker directories."""
        return cluster.sh("login", _STATE, check=False)

    def left() -> Sequence[str]:
        folders = cluster.sh("login", _FOLDERS).split()
        return [
            *_processes(processes(mark)),
            *(f"job {job}" for job in jobs()),
            *(f"directory {name}" for name in folders),
        ]

    yield Place(
        "alder",
        image,
        lambda wire: wire.register(cluster.info(), "alder", keeps_pods=True),
        {"scancel": cancel, "node crash": crash, "slurmctld SIGKILL": kill_controller},
        left,
        state=state,
    )


# -- a Kubernetes ------------------------------------------------------------------------------------------------------


@contextmanager
def a_kubernetes(plane: ControlPlane, home: Path, mark: str) -> Iterator[Place]:
    """The API server dies or hangs, the kubelet dies, the node loses its power, and pods are deleted by others."""
    api_server = "kube-apiserver"
    with ExitStack() as stack:
        place = stack.enter_context(kubernetes_place(plane))
        admin = stack.enter_context(client(plane))
        node: Node = place.node
        image = node.push_image(pod_images.web(home / "web"), "library/web:1")

        def whole() -> bool:
            """Wait until the control plane answers, and the node says that it is ready."""
            plane.start(api_server)
            node.up()
            return True

        def kill_api_server(chance: random.Random) -> bool:
            plane.kill(api_server)
            time.sleep(chance.choice((0.0, 3.0, 15.0)))
            return whole()

        def pause_api_server(chance: random.Random) -> bool:
            plane.pause(api_server)
            time.sleep(chance.choice((3.0, 15.0, 25.0)))
            plane.resume(api_server)
            return whole()

        def kill_kubelet(chance: random.Random) -> bool:
            node.kill("kubelet")
            time.sleep(chance.choice((0.0, 5.0, 20.0)))
            return whole()

        def crash_node(chance: random.Random) -> bool:
            node.crash()
            time.sleep(chance.choice((0.0, 15.0)))
            return whole()

        def delete_pod(chance: random.Random) -> bool:
            pods = [one["metadata"]["name"] for one in _listed(admin, place.namespace, "/api/v1", "pods")]
            if not pods:
                return False
            path = f"/api/v1/namespaces/{place.namespace}/pods/{chance.choice(pods)}"
            answer = admin.request("DELETE", path)
            if answer.status_code == httpx.codes.NOT_FOUND:  # it has gone meanwhile
                return False
            return answer.raise_for_status().is_success

        def left() -> Sequence[str]:
            try:
                return [*_processes(processes(mark)), *_objects(admin, place.namespace)]
            except httpx.HTTPError as error:
                return [f"the API server does not say: {error!r}"]

        yield Place(
            SYSTEM,
            image,
            lambda wire: place.register(wire, pods=True),
            {
                "API server SIGKILL": kill_api_server,
                "API server paused": pause_api_server,
                "kubelet SIGKILL": kill_kubelet,
                "node crash": crash_node,
                "pod deleted": delete_pod,
            },
            left,
            {"plain_http_registries": node.registry},
            rest_s=(20.0, 40.0),  # its controllers wait longer after each failure
            state=lambda: _seen(admin, place.namespace),
        )


def _seen(admin: httpx.Client, namespace: str) -> str:
    """Nodes, Jobs and pods with what they say of themselves."""
    paths = ("/api/v1/nodes", f"/apis/batch/v1/namespaces/{namespace}/jobs", f"/api/v1/namespaces/{namespace}/pods")
    found = [one for path in paths for one in admin.get(path).raise_for_status().json()["items"]]
    return "\n".join(f"{one['metadata']['name']}: {json.dumps(one['status'])[:600]}" for one in found)


_KINDS = {
    "/apis/batch/v1": ("jobs",),
    "/api/v1": ("pods", "services", "secrets", "persistentvolumeclaims"),
    "/apis/apps/v1": ("deployments", "statefulsets"),
}


def _objects(admin: httpx.Client, namespace: str) -> Sequence[str]:
    """What is in the namespace beside what belongs to it, and what stays for a while as the guide says.

    A void Job starts nothing, and keeps a name from being taken by a request that comes late. A Job whose end was told
    stays with its pods, of which nothing runs; so does the pod for files, until nobody used it for three minutes.
    """
    there = {kind: _listed(admin, namespace, group, kind) for group, kinds in _KINDS.items() for kind in kinds}
    told = {job["metadata"]["uid"] for job in there["jobs"] if TOLD in job["metadata"].get("annotations", {})}

    def stays(one: Mapping[str, Any]) -> bool:
        about = one["metadata"]
        over = one.get("status", {}).get("phase") in ("Succeeded", "Failed")
        of_told = any(owner["uid"] in told for owner in about.get("ownerReferences", ()))
        return about["uid"] in told or is_void(one) or (of_told and over) or FILES in about.get("labels", {})

    return [
        f"{kind} {one['metadata']['name']}"
        for kind, found in there.items()
        for one in found
        if not stays(one) and not _belongs_to_the_namespace(one)
    ]


def _belongs_to_the_namespace(found: Mapping[str, Any]) -> bool:
    return found["metadata"]["name"] == CLAIM or str(found.get("type", "")).startswith("kubernetes.io/")


def _listed(admin: httpx.Client, namespace: str, group: str, kind: str) -> list[dict[str, Any]]:
    return list(admin.get(f"{group}/namespaces/{namespace}/{kind}").raise_for_status().json()["items"])


# -- processes ---------------------------------------------------------------------------------------------------------


def processes(words: str) -> set[int]:
    """Processes of this machine, of all its namespaces, with these words in their command or as their pod's mark."""
    marks = f"{MARK}={words}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                command, variables = ((folder / name).read_bytes() for name in ("cmdline", "environ"))
                if words.encode() in command or marks in variables.split(b"\0"):
                    found.add(int(folder.name))
    return found


def killed(pids: Sequence[int], chance: random.Random) -> bool:
    """Kill one of these processes at random; whether there was one."""
    if not pids:
        return False
    try:
        os.kill(chance.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def children(pid: int, name: str) -> set[int]:
    """Children of a process whose program has this name."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                program, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
                if program == name and int(rest.split()[1]) == pid:
                    found.add(int(folder.name))
    return found


def _processes(pids: set[int]) -> Sequence[str]:
    return [f"process {pid}: {_command(pid)}" for pid in sorted(pids)]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    except OSError:
        return "it has ended"
