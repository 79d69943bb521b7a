"""Where the files that a pod mounts lie, and where that lets it go.

A volume and a snapshot lie with Berth until a pod that mounts them is placed; from then on they stay on its system.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from scheduler.model.errors import NothingLearnt, Stale
from scheduler.model.pod_catalog import FilesStatus, PodFilesOf, PodSnapshot, files_name
from scheduler.model.pods import Pod, VolumeKind
from scheduler.model.systems import BackendKind, System
from scheduler.reconcile.pod_runs import volume_dir
from scheduler.reconcile.runspec import absolute
from scheduler.reconcile.sides import Side
from scheduler.store.pod_files import PodSnapshotStore, PodVolumeStore, store_of

STORES: Mapping[VolumeKind, type[PodVolumeStore] | type[PodSnapshotStore]] = MappingProxyType(
    {VolumeKind.VOLUME: PodVolumeStore, VolumeKind.SNAPSHOT: PodSnapshotStore}
)
"""Which store knows whose files are meant by a mount."""

Mounted = Mapping[tuple[VolumeKind, str], PodFilesOf]
"""What of ours a pod mounts, by kind and name."""


@dataclass(frozen=True, slots=True)
class Home:
    """The one system on which a pod may run, since files that it mounts lie there. No ``system_id``: no such one.

    words: why, for people.
    """

    system_id: str
    words: str


async def mounted_by(db: Any, pod: Pod) -> Mounted:
    """Raises NotFound, which names what is gone."""
    asked = {(mount.kind, mount.source) for mount in pod.definition.mounts if mount.kind in STORES}
    return {(kind, name): await STORES[kind](db).get(pod.tenant, name) for kind, name in sorted(asked)}


def home_of(mounted: Mounted) -> Home | None:
    """Where these must be mounted; None: anywhere."""
    settled = [one for one in mounted.values() if one.system_id]
    systems = sorted({one.system_id for one in settled})
    if not systems:
        return None
    names = " and ".join(f"{files_name(one)} on '{one.system_id}'" for one in settled)
    if len(systems) > 1:
        return Home("", f"its files lie apart: {names}; mount those of one system")
    return Home(systems[0], f"{names} lies there alone" if len(settled) == 1 else f"{names} lie there alone")


def holds_files(system: System) -> bool:
    """Whether what pods write there outlives them."""
    notes = system.berth_notes.get("k8s")
    return system.backend is not BackendKind.K8S or (isinstance(notes, Mapping) and bool(notes.get("volume")))


def strange(mounted: Mounted, side: Side) -> str:
    """Why this login cannot mount these, now or ever; empty where it can."""
    for one in mounted.values():
        if one.status is FilesStatus.ERROR:
            return f"{files_name(one)} holds no files ({one.message}); mount another, or none"
        if one.system_id and one.login_owner != side.login.owner:
            return (
                f"{files_name(one)} lies on '{one.system_id}' among the files of {one.login_owner}, and the pod would "
                f"run as {side.login.owner} there; let {one.login_owner} make the pod, or mount another"
            )
    return ""


async def settled(db: Any, pod: Pod, side: Side, at: datetime) -> Mounted:
    """What a pod mounts, each with a home from now on: that of the pod, where it had none.

    NothingLearnt when one of them was changed meanwhile, or is not there yet.
    """
    found = dict(await mounted_by(db, pod))
    for key, one in found.items():
        if one.status is not FilesStatus.AVAILABLE:
            raise NothingLearnt(f"{files_name(one)} is {one.status}")
        if not one.system_id:
            directory = volume_dir(pod, side.system, side.login_user, _folder(one))
            home = {"system_id": side.system.id, "login_owner": side.login.owner, "directory": directory}
            try:
                found[key] = await store_of(db, one).change(one, at, **home)
            except Stale as stale:
                raise NothingLearnt(str(stale)) from None
        elif (one.system_id, one.login_owner) != (side.system.id, side.login.owner):
            where = f"'{one.system_id}' among the files of {one.login_owner}"
            raise NothingLearnt(f"{files_name(one)} was placed on {where} meanwhile")
    return found


def sources(mounted: Mounted, system: System) -> Mapping[tuple[VolumeKind, str], str]:
    """The absolute path of each on its system."""
    return {key: absolute(system, one.directory) for key, one in mounted.items()}


def not_there(mounted: Mounted) -> Sequence[PodFilesOf]:
    """Those whose files are still to be brought."""
    return [one for one in mounted.values() if one.is_on_its_way]


def _folder(one: PodFilesOf) -> str:
    return posixpath.join("snapshots", one.uuid) if isinstance(one, PodSnapshot) else one.uuid
