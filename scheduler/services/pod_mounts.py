"""``volume_mounts`` in both forms: by volume, as clients up to now send it, and by mount path. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import Any

from scheduler.model.errors import Problem
from scheduler.model.pods import PodMount, VolumeKind

DEFAULT_PATH = "/tapis_volume_mount"
"""Where a mount of the old form lies when nobody says."""

MOST_CONTENT = 65_536
MOST_MOUNTS = 32

_SOURCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_MODE = re.compile(r"0?[0-7]{3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SYSTEM = ("/proc", "/sys", "/dev")
_NEW_ONLY = ("read_only", "config_content", "config_permissions", "config_filename", "config_update_mode", "source_id")

Mounts = Mapping[str, Mapping[str, Any] | None]


def by_path(mounts: Mounts) -> dict[str, PodMount | None]:
    """Every mount by the path where it lies; None takes one away that a template brings. Checked before."""
    found: dict[str, PodMount | None] = {}
    for key, mount in mounts.items():
        path = posixpath.normpath(_path(key, mount))
        found[path] = None if mount is None else _mount(path, key, mount)
    return found


def on_the_wire(mounts: tuple[PodMount, ...]) -> dict[str, dict[str, Any]]:
    """Mounts by path, as the newest form writes them."""
    return {mount.target: _shown(mount) for mount in mounts}


def mount_problems(field: str, mounts: Mounts) -> Iterator[Problem]:
    """What is wrong with ``volume_mounts``."""
    if len(mounts) > MOST_MOUNTS:
        yield Problem(field, f"has {len(mounts)} entries", f"send at most {MOST_MOUNTS}")
    paths: set[str] = set()
    for key, mount in mounts.items():
        where = f"{field}.{key[:80]}"
        if mount is None and not key.startswith("/"):
            yield Problem(where, "is null, which takes away what lies at a path", "write the path as the key")
            continue
        path = _path(key, mount)
        yield from _path_problems(where, path)
        if posixpath.normpath(path) in paths:
            yield Problem(where, f"lies at '{path[:80]}', where another one lies", "give each a path of its own")
        paths.add(posixpath.normpath(path))
        if mount is not None:
            yield from _one(where, key, mount)


def _one(where: str, key: str, mount: Mapping[str, Any]) -> Iterator[Problem]:
    kind, source = mount.get("type") or VolumeKind.VOLUME, _source(key, mount)
    if kind not in list(VolumeKind):
        yield Problem(f"{where}.type", f"'{kind[:80]}' is none", f"use one of {', '.join(VolumeKind)}")
    elif kind == VolumeKind.EPHEMERAL and source:
        yield Problem(f"{where}.source_id", "is said, and ephemeral has no source", "leave it out")
    elif kind != VolumeKind.EPHEMERAL and _SOURCE.fullmatch(source) is None:
        yield Problem(f"{where}.source_id", f"'{source[:80]}' names no {kind}", "name what is mounted")
    if not key.startswith("/") and any(mount.get(name) for name in _NEW_ONLY):
        yield Problem(where, "has fields of mounts by path", "use the path as the key, and source_id")
    if key.startswith("/") and mount.get("mount_path") not in (None, "", key):
        yield Problem(f"{where}.mount_path", "is not the key, which is the path", "leave it out")
    if ".." in (mount.get("sub_path") or "").split("/") or _CONTROL.search(mount.get("sub_path") or ""):
        yield Problem(f"{where}.sub_path", "leaves the volume", "write a path below it")
    yield from _content(where, mount)


def _content(where: str, mount: Mapping[str, Any]) -> Iterator[Problem]:
    content, name = mount.get("config_content"), mount.get("config_filename") or ""
    if content is not None and not name:
        yield Problem(f"{where}.config_filename", "is missing", "name the file that config_content makes")
    if content is None and name:
        yield Problem(f"{where}.config_content", "is missing", "say what stands in the file")
    if content is not None and len(content) > MOST_CONTENT:
        yield Problem(f"{where}.config_content", f"has {len(content)} characters", f"send at most {MOST_CONTENT}")
    if content is not None and mount.get("type") in (VolumeKind.SNAPSHOT, VolumeKind.PVC):
        yield Problem(f"{where}.config_content", f"is not for {mount['type']}", "use tapisvolume or ephemeral")
    if name and (_FILE_NAME.fullmatch(name) is None or name in (".", "..")):
        yield Problem(f"{where}.config_filename", "is no file name", "use letters, digits and . _ -")
    if _MODE.fullmatch(mount.get("config_permissions") or "0644") is None:
        yield Problem(f"{where}.config_permissions", "is no mode", "write for example 0644")
    if (mount.get("config_update_mode") or "always") not in ("always", "once"):
        yield Problem(f"{where}.config_update_mode", "is unknown", "use always or once")


def _path_problems(where: str, path: str) -> Iterator[Problem]:
    shortest = posixpath.normpath(path)
    if not path.startswith("/") or path.startswith("//") or ".." in path.split("/") or _CONTROL.search(path):
        yield Problem(where, f"'{path[:80]}' is no path to mount at", "write an absolute path without '..'")
    elif shortest == "/" or any(shortest == each or shortest.startswith(f"{each}/") for each in _SYSTEM):
        yield Problem(where, f"'{path[:80]}' belongs to the container", "choose a directory of its own")
    elif len(path) > 512 or any(character in path for character in ":,\\"):
        yield Problem(where, f"'{path[:80]}' is too long, or holds ':', ',' or '\\'", "choose another path")


def _path(key: str, mount: Mapping[str, Any] | None) -> str:
    return key if key.startswith("/") else str((mount or {}).get("mount_path") or DEFAULT_PATH)


def _source(key: str, mount: Mapping[str, Any]) -> str:
    return str(mount.get("source_id") or "") if key.startswith("/") else key


def _mount(path: str, key: str, mount: Mapping[str, Any]) -> PodMount:
    return PodMount(
        kind=VolumeKind(mount.get("type") or VolumeKind.VOLUME),
        target=path,
        source=_source(key, mount),
        sub_path=(mount.get("sub_path") or "").strip("/"),
        read_only=bool(mount.get("read_only")) or mount.get("type") == VolumeKind.SNAPSHOT,
        content=mount.get("config_content"),
        content_name=mount.get("config_filename") or "",
        content_mode=mount.get("config_permissions") or "0644",
        content_once=mount.get("config_update_mode") == "once",
    )


def _shown(mount: PodMount) -> dict[str, Any]:
    return {
        "type": mount.kind.value,
        "source_id": mount.source,
        "sub_path": mount.sub_path,
        "read_only": mount.read_only,
        "config_content": mount.content,
        "config_permissions": mount.content_mode,
        "config_filename": mount.content_name,
        "config_update_mode": "once" if mount.content_once else "always",
    }
