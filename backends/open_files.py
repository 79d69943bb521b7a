"""How many files this process may open, and how many the programs that it starts on this machine.

Every connection is a file. What a shell or systemd lets a process open is made for programs that know no more than
1,024 of them; this one does, and goes up to what it may ask for. Programs of others are given what we were given.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence

_given: int | None = None
"""What we were given; None: we have taken no more."""


def raise_limit() -> int:
    """Take as many as we may have, once at the start; how many that is."""
    global _given
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        _given = soft
    return hard


def most_files() -> int:
    """How many we may open now."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def as_given() -> Sequence[str]:
    """What comes before the command of a program that is to open as many as we were given; Python's own hook between
    fork and exec is not safe beside threads."""
    return () if _given is None else ("prlimit", f"--nofile={_given}:", "--")
