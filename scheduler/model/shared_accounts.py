"""Where jobs and pods keep files on systems where all users have one account: what nothing but Berth keeps apart.

Paths are relative to the system's root directory.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler.model.systems import System

JOBS = "jobs"
KEPT_IN = (JOBS, "pods", "pod-volumes", ".berth")
"""Directories of a working directory, each with files of many users."""


def keeps_apart(system: System, owner: str) -> bool:
    """Whether files of others must be kept from this user by Berth; the system's owner may see them all."""
    return system.is_shared_account and system.can_exec and system.owner != owner


def closed_dirs(system: System) -> Sequence[str]:
    """Directories where jobs and pods of anybody keep their files, between slashes."""
    named, macro, _ = (system.job_working_dir or "").partition("${")
    top = between_slashes(named)
    return (top,) if macro else tuple(f"{top}{name}/" for name in KEPT_IN)


def may_be_given(system: System, working_dir: str, job_uuid: str, path: str) -> bool:
    """Whether a job that is to be kept apart may have this directory: with files of nobody else in or around it.

    working_dir: what the system's working directory is for this job.
    """
    asked, home = between_slashes(path), between_slashes(working_dir)
    if asked.startswith((f"{home}{JOBS}/{job_uuid}/", f"/{JOBS}/{job_uuid}/")):
        return True
    closed = (*closed_dirs(system), *(f"{home}{name}/" for name in KEPT_IN))
    if asked.startswith(home) and asked != home:  # its own part of a working directory that differs from job to job
        closed = tuple(each for each in closed if not home.startswith(each))
    return not any(asked.startswith(each) or each.startswith(asked) for each in closed)


def between_slashes(path: str) -> str:
    """The path in its shortest form, with a slash at either end."""
    return "/".join(["", *parts_of(path), ""])


def parts_of(path: str) -> list[str]:
    """Its names, without what names nothing."""
    return [part for part in path.split("/") if part not in ("", ".")]
