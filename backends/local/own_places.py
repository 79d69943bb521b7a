"""Where Berth keeps its own state on this machine, which no system may reach."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def overlapped(root_dir: str, own_places: Iterable[Path]) -> Path | None:
    """The first of Berth's own places that lies below a root directory, or around it; every link is followed.

    Whose account touches the files makes no difference: a home that others may read would give its database away.
    """
    root = _real(Path(root_dir))
    for place in own_places:
        real = _real(place)
        if root == real or root in real.parents or real in root.parents:
            return place
    return None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
