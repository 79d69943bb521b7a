"""Where Berth keeps its own things on a system."""

from __future__ import annotations

import posixpath

from backends.container import GO_NAME
from scheduler.model.ids import Marker, checked_marker
from scheduler.model.systems import System


def marker_root(system: System, login_user: str) -> str:
    """Absolute path of the directory with one directory per marker: ``<work root>/.berth/markers``.

    A marker must be found without knowing its job. So where the working directory differs from job to job (a macro
    other than ``${EffectiveUserId}`` in it), its part before that is taken.
    """
    working_dir = (system.job_working_dir or "").replace("${EffectiveUserId}", login_user)
    parts: list[str] = []
    for part in working_dir.split("/"):
        if "$" in part:
            break
        parts.append(part)
    return posixpath.normpath("/".join(["", system.root_dir, *parts, ".berth", "markers"])).replace("//", "/")


def gate_path(system: System, login_user: str, marker: Marker) -> str:
    """The file that opens the gate of a copy, relative to the system's root directory as ``Storage`` takes it."""
    root = posixpath.relpath(marker_root(system, login_user), posixpath.join("/", system.root_dir))
    return posixpath.join(root, checked_marker(marker), GO_NAME)
