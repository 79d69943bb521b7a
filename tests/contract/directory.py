"""Storages whose root is a directory of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backends.base import Storage


class DirectorySubject:
    """A directory, and a file beside it that no path may reach."""

    def __init__(self, tmp_path: Path, opened: Callable[[Path], Storage]) -> None:
        self._root = tmp_path / "root"
        self._root.mkdir()
        secret = tmp_path / "outside" / "passwd"
        secret.parent.mkdir()
        secret.write_text("root:x:0:0")
        self.outside = str(secret)
        self.storage = opened(self._root)

    def plant_link(self, path: str, target: str) -> None:
        (self._root / path).symlink_to(target)
