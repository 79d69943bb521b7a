"""A control group of its own for each machine, so that Slurm's memory limits inside are real.

Version 1: one folder below each controller, bound into the machine. Version 2: one folder in the single tree, which a
cgroup namespace turns into the machine's root; the processes sit in its leaf ``init``, because a group that hands
controllers to its children may hold no processes itself.
"""

import contextlib
import os
import signal
from pathlib import Path

from testbed.host import wait_until

_ROOT = Path("/sys/fs/cgroup")
_V1_CONTROLLERS = ("memory", "freezer", "cpuset", "devices", "cpuacct", "cpu")
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


def available_mode() -> str:
    """``v1``, ``v2`` or ``none``: what this host offers with a memory controller that can be written."""
    if (_ROOT / "cgroup.controllers").exists():
        return "v2" if _writable(_ROOT) and _hands_down_memory(_ROOT) else "none"
    if all((_ROOT / controller).is_dir() for controller in _V1_CONTROLLERS) and _writable(_ROOT / "memory"):
        return "v1"
    return "none"


def path_of(cluster: str, machine: str) -> str:
    """A machine's folder, relative to the root of the tree or of each controller."""
    return f"berth-{cluster}/{machine}"


def create(mode: str, cluster: str, machine: str) -> None:
    if mode == "v1":
        for controller in _V1_CONTROLLERS:
            folder = _ROOT / controller / path_of(cluster, machine)
            folder.mkdir(parents=True, exist_ok=True)
            if controller == "cpuset":  # empty sets admit no process; a child starts with its parent's
                for level in (folder.parent, folder):
                    for name in ("cpuset.cpus", "cpuset.mems"):
                        (level / name).write_text((level.parent / name).read_text())
    elif mode == "v2":
        folder = _ROOT / path_of(cluster, machine)
        (folder / "init").mkdir(parents=True, exist_ok=True)
        for level in (_ROOT, folder.parent):
            _hands_down_memory(level)


def entering_new(mode: str, cluster: str, machine: str) -> list[str]:
    """What to put before the argv of a machine's first process: v2 makes its group a new cgroup namespace's root."""
    if mode != "v2":
        return []
    folder = _ROOT / path_of(cluster, machine)
    become_root = f'echo 0 > {folder}/cgroup.procs; exec unshare --cgroup "$@"'
    move_to_leaf = f'echo 0 > {folder}/init/cgroup.procs; exec "$@"'
    return ["sh", "-c", become_root, "sh", "sh", "-c", move_to_leaf, "sh"]


def entering(mode: str, cluster: str, machine: str) -> list[str]:
    """What to put before an argv that will run inside a machine: v2 needs the process itself in the machine's leaf."""
    if mode != "v2":
        return []
    return ["sh", "-c", f'echo 0 > {_ROOT / path_of(cluster, machine)}/init/cgroup.procs; exec "$@"', "sh"]


def remove(cluster: str, machine: str = "") -> None:
    """Remove a machine's groups, or a whole cluster's; its processes must be dead already."""
    for top in _tops(cluster, machine):
        for folder in sorted(top.rglob("*/"), reverse=True):
            if folder.is_dir():
                _remove_folder(folder)
        _remove_folder(top)


def kill(cluster: str, machine: str = "") -> None:
    """SIGKILL every process in a machine's groups, or in a whole cluster's, until there is none."""

    def nothing_left() -> bool:
        pids = {pid for top in _tops(cluster, machine) for path in top.rglob("cgroup.procs") for pid in _members(path)}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    wait_until(nothing_left, f"all processes in the control groups of {cluster} are dead")


def _members(path: Path) -> list[int]:
    try:
        return [int(pid) for pid in path.read_text().split()]
    except OSError:  # a group that has just gone
        return []


def _tops(cluster: str, machine: str) -> list[Path]:
    """The topmost folders of a machine's groups: one below each controller (version 1), or one (version 2)."""
    roots = (_ROOT, *(folder for folder in _ROOT.iterdir() if folder.is_dir()))
    return [top for root in roots if (top := root / path_of(cluster, machine)).is_dir()]


def _remove_folder(folder: Path) -> None:
    """rmdir, tried for a while: the kernel lets a group go a moment after its last process."""

    def gone() -> bool:
        with contextlib.suppress(OSError):
            folder.rmdir()
        return not folder.exists()

    wait_until(gone, f"control group {folder} is removed")


def _hands_down_memory(level: Path) -> bool:
    """v2: let the groups below use what there is of our controllers; whether memory is among them.

    A container's root group refuses, since it holds processes itself.
    """
    for controller in _V2_CONTROLLERS:
        with contextlib.suppress(OSError):
            (level / "cgroup.subtree_control").write_text(f"+{controller}")
    return "memory" in (level / "cgroup.subtree_control").read_text().split()


def _writable(folder: Path) -> bool:
    probe = folder / "berth-probe"
    try:
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError:
        return False
    return True
