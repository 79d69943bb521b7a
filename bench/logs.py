"""Recorded jobs on disk: logs in the Standard Workload Format and months of waits, packed or not."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from backends.swf import SwfLog, parse_swf


def logs_in(folder: Path, suffix: str = ".swf") -> Sequence[Path]:
    """The records in a folder, by name."""
    return sorted([*folder.glob(f"*{suffix}"), *folder.glob(f"*{suffix}.gz")])


def read_log(path: Path) -> SwfLog:
    """A log in the Standard Workload Format."""
    with opened(path) as lines:
        return parse_swf(lines)


def opened(path: Path) -> TextIO:
    """A text file, unpacked where its name ends in ``.gz``."""
    return gzip.open(path, "rt", errors="replace") if path.suffix == ".gz" else path.open(errors="replace")


def name_of(path: Path) -> str:
    """What a record is called: its file up to the first dot."""
    return path.name.split(".")[0]
