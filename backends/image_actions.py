"""What a verdict says must be done so that an image runs on the nodes, as parts of Apptainer's run line. Pure.

The paths come from a look at machines of others: each is checked here, and quoted by whoever writes the line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from scheduler.model.actions import Action, Bind, LaunchWith, LibraryPathFirst, RuntimeEnv, Unpack, WritableRoot
from scheduler.model.errors import SpecInvalid
from scheduler.model.runs import Mount

LIBRARY_PATH = "LD_LIBRARY_PATH"

Kind = TypeVar("Kind", bound=Action)

_PLUGIN = re.compile(r"[a-z][a-z0-9_]{0,40}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,80}")


def mounts(actions: Iterable[Action]) -> tuple[Mount, ...]:
    """Files and folders of the host that the container is shown."""
    shown = [Mount(source=each.host_path, target=each.container_path, read_only=True) for each in _all(actions, Bind)]
    for mount in shown:
        for path in (mount.source, mount.target):
            if not path.startswith("/") or not path.isprintable():
                raise _refused(f"'{path[:80]}' is no absolute path")
    return tuple(shown)


def environment(actions: Iterable[Action], env: Mapping[str, str]) -> Mapping[str, str]:
    """The job's variables, with folders that are searched first before what the user says, or else the image."""
    first = _all(actions, LibraryPathFirst)
    if not first:
        return env
    rest = env.get(LIBRARY_PATH) or next((each.then for each in first if each.then), "")
    return {**env, LIBRARY_PATH: ":".join([*(each.folder for each in first), *([rest] if rest else [])])}


def setup(actions: Iterable[Action]) -> str:
    """Lines before the runtime is started; they set ``unpack`` where the image is to be unpacked."""
    actions = tuple(actions)
    lines = []
    for each in _all(actions, RuntimeEnv):
        if _NAME.fullmatch(each.name) is None or "\0" in each.value:
            raise _refused(f"'{each.name[:80]}' is no variable")
        lines.append(f"export {each.name}={shlex.quote(each.value)}\n")
    return "".join(lines) + (_UNPACK if _all(actions, Unpack) else "")


def words(actions: Iterable[Action]) -> list[str]:
    """Words of the runtime's command, ready for the shell."""
    actions = tuple(actions)
    unpack = ['${unpack:+"$unpack"}'] if _all(actions, Unpack) else []
    return unpack + (["--writable-tmpfs"] if _all(actions, WritableRoot) else [])


def launch(actions: Iterable[Action], nodes: int, tasks_per_node: int) -> Sequence[str] | None:
    """How the processes of an MPI job are started; None: as jobs are that no action speaks of."""
    chosen = _all(actions, LaunchWith)
    if not chosen:
        return None
    plugin = chosen[-1].plugin
    tasks = nodes * tasks_per_node
    if plugin is None:
        return ["mpirun", "-n", str(tasks)]
    if _PLUGIN.fullmatch(plugin) is None:
        raise _refused(f"'{plugin[:40]}' is no plugin of srun")
    return [
        "srun",
        f"--mpi={plugin}",
        f"--nodes={nodes}",
        f"--ntasks={tasks}",
        f"--ntasks-per-node={tasks_per_node}",
        "--cpus-per-task=1",
        "--kill-on-bad-exit=1",
    ]


_UNPACK = """\
# Nothing can mount an image file on these nodes, so it is unpacked for the job; some runtimes do so unasked.
unpack=
for flag in --unsquash --tmp-sandbox; do
    if "$runtime" help run 2>/dev/null | grep -q -e "$flag"; then unpack=$flag; break; fi
done
"""


def _all(actions: Iterable[Action], kind: type[Kind]) -> list[Kind]:
    return [each for each in actions if isinstance(each, kind)]


def _refused(why: str) -> SpecInvalid:
    return SpecInvalid.of("imageActions", why, "look at what the probe of the nodes found")
