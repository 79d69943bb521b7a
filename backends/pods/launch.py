"""What the script of a run with ports has more than another's: the door, and the words that start the container in it.

Pure: text in, text out; ``backends/container.py`` puts it together.
"""

from __future__ import annotations

import json
import shlex
from functools import cache
from importlib.resources import files

from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Mount, RunSpec

APPTAINER_WORDS = ("--userns", "--containall", "--writable-tmpfs")
"""A pod sees its image and its mounts alone, writes where it likes until it ends, and is a namespace that the door can
enter."""

WORDS = '"$door_python" -I "$marker_dir/door.py" "$marker_dir" "$door_told"'
"""What comes before the command, as words of a shell."""

INSIDE = "inside"
"""The directory below a run's own that its pod sees."""

_ENDS = "END_OF_THE_DOOR"


def check(run: RunSpec) -> None:
    """SpecInvalid for what no door can stand before."""
    if run.resources.nodes > 1 or run.is_mpi:
        raise SpecInvalid.of("nodeCount", "is more than one, but a pod runs on one node", "ask for 1, without MPI")
    if run.array is not None:
        raise SpecInvalid.of("notes.berth.array", "cannot have ports", "start one pod for each")
    if any(mount.claim for mount in run.mounts):
        wrong, fix = "are of a Kubernetes, and this is none", "name a queue of one in compute_queue, or mount volumes"
        raise SpecInvalid.of("volume_mounts", f"claims {wrong}", fix)
    for port in run.ports:
        if not 0 < port < 65536:
            raise SpecInvalid.of("networking.port", f"is {port}", "give a port from 1 to 65535")


def setup(run: RunSpec, *, other_nodes: bool, shared_network: bool, contained: bool) -> str:
    """Lines that bring the door to the node, for WORDS to open.

    other_nodes: Berth comes to it from another node. shared_network: the system lets pods use the node's own network
    where a node gives them none. contained: the command starts a container, and is not the pod's own code.
    """
    told = {"ports": list(run.ports), "tcp": other_nodes, "shared": shared_network, "contained": contained}
    return _SETUP.format(told=shlex.quote(json.dumps(told)), program=_program(), ends=_ENDS, inside=INSIDE)


def own_mounts(run: RunSpec) -> tuple[Mount, ...]:
    """An empty directory where jobs see theirs. What a shell of the host reads and writes there (the environment,
    outputs) stays out of the pod's reach: a run that is put back in the queue reads it again."""
    source = f"{run.exec_dir}/{INSIDE}"
    return tuple(Mount(source=source, target=target) for target in ("/TapisExec", "/TapisInput", "/TapisOutput"))


def checks(run: RunSpec) -> str:
    """Lines before the container starts: a link that a pod left in a volume may not lead another mount out of it."""
    kept = [mount for mount in run.mounts if run.ports and mount.root]
    words = [f"keeps_within {shlex.quote(mount.root)} {shlex.quote(mount.source)}\n" for mount in kept]
    return "".join([_KEEPS_WITHIN, *words]) if kept else ""


@cache
def _program() -> str:
    text = files("backends.pods.programs").joinpath("door.py").read_text("ascii")
    assert _ENDS not in text
    return text.rstrip("\n")


_SETUP = """\
door_python=$(command -v python3 || command -v /usr/libexec/platform-python) ||
    refuse "this node has no python3, which keeps the door of a pod; install Python 3.6 or later"
door_told={told}
readonly door_python door_told marker_dir
mkdir -p "$exec_dir/{inside}" || refuse "the directory of the pod cannot be made"
rm -f "$marker_dir/door" "$marker_dir/refused" # of a start before it was put back in the queue
cat > "$marker_dir/door.py" <<'{ends}' || refuse "the door of the pod cannot be written"
{program}
{ends}
"""

_KEEPS_WITHIN = """\
keeps_within() {
    pod_root=$(realpath -e -- "$1") && pod_source=$(realpath -e -- "$2") || refuse "a mount of the pod is not there: $2"
    case $pod_source/ in
        "$pod_root"/*) ;;
        *) refuse "a link leads a mount of the pod out of its volume: $2" ;;
    esac
}
"""
